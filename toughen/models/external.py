"""timm's models, and a user's own."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from toughen.models.normalize import normalized
from toughen.models.parts import Shape
from toughen.utils.plugins import describe_error, did_you_mean, module


class Configuration(NamedTuple):
    """What one of timm's nets is made for: rows and columns of its images, and what they are normalised by."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def data_configuration(name: str) -> Configuration:
    """timm's data configuration of one of its nets.

    Raises:
        ValueError: timm isn't installed, or has no such model.
    """
    timm = _timm(name)
    try:
        cfg = timm.get_pretrained_cfg(name) or timm.create_model(name).pretrained_cfg
        resolved = importlib.import_module("timm.data").resolve_data_config(
            pretrained_cfg=as_mapping(cfg), verbose=False
        )
    except Exception as error:  # each net has its own way to refuse
        if hint := _hint(timm, name):
            raise ValueError(f"timm has no model {name!r}{hint}") from error
        raise ValueError(f"timm has no input size for {name!r} ({error}): give --image-size") from error
    return Configuration(int(resolved["input_size"][-1]), tuple(resolved["mean"]), tuple(resolved["std"]))


def as_mapping(cfg: Any) -> Mapping[str, Any]:
    """timm's configuration of weights as a mapping, in whichever of its versions."""
    return cfg if isinstance(cfg, Mapping) else cfg.to_dict()


def _timm(name: str) -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError:
        raise ValueError(f"model timm:{name} needs the package timm: pip install 'toughen[timm]'") from None
    except Exception as error:  # as where its torchvision is one for another torch
        raise ValueError(f"model timm:{name}: timm cannot be imported: {describe_error(error)}") from error


def from_timm(name: str, num_classes: int, shape: Shape, settings: Mapping[str, Any]) -> nn.Module:
    """One of timm's models, without pretrained weights unless the settings say ``pretrained``.

    Raises:
        ValueError: timm isn't installed, or has no such model or setting.
    """
    timm = _timm(name)
    try:
        model = timm.create_model(name, num_classes=num_classes, in_chans=shape[0], **settings)
    except Exception as error:  # each net has its own way to refuse a setting
        raise ValueError(f"timm cannot make model {name!r}: {str(error).rstrip('.')}{_hint(timm, name)}") from error
    return _module(f"timm:{name}", model)


def _hint(timm: Any, name: str) -> str:
    """For a message: which names of timm's there are instead of one that it does not have, "" where it has it."""
    net, _, tag = name.partition(".")
    if timm.is_model(net):
        known = [each for each in timm.list_pretrained(f"{net}.*") if tag]
        close = [] if name in known else difflib.get_close_matches(name, known, n=3, cutoff=0)
        return _or(close)
    close = difflib.get_close_matches(net.lower(), timm.list_models(), n=3)
    return _or(close) or '; python -c "import timm; print(timm.list_models())" prints their names'


def _or(close: Sequence[str]) -> str:
    return f"; did you mean {' or '.join(close)}?" if close else ""


def pretrained(name: str, num_classes: int, shape: Shape) -> nn.Module:
    """One of timm's models with its pretrained weights, for images in [0, 1]: what it normalises by is inside.

    Args:
        name: timm's.
        num_classes: classes of the images that it is for.
        shape: one image's channels, height and width.

    Raises:
        ValueError: timm isn't installed or has no such model or weights, or they are for other classes or channels.
    """
    model = from_timm(name, num_classes, shape, {"pretrained": True})
    about = getattr(model, "pretrained_cfg", {})
    classes, mean, std = about.get("num_classes"), about.get("mean"), about.get("std")
    if classes is None or mean is None or std is None:
        raise ValueError(f"timm does not say what the weights of {name!r} were trained on: give --weights")
    if classes != num_classes:
        raise ValueError(
            f"timm's {name!r} has {classes:,} classes and these images have {num_classes:,}, so its last "
            f"layer would be new and random: evaluate it on images of its classes, or give --weights"
        )
    return normalized(model, shape[0], mean, std)


def imported(path: str, num_classes: int, shape: Shape, settings: Mapping[str, Any]) -> nn.Module:
    """What the function at ``package.module:function`` returns.

    It is given ``num_classes`` where it takes that name or any name, ``shape`` only where it takes that name, and the
    settings.

    Raises:
        ValueError: it cannot be imported, does not take these arguments, fails, or does not return a module.
    """
    function = _function(path)
    signature = inspect.signature(function)
    takes_any = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
    arguments: dict[str, Any] = {}
    if takes_any or "num_classes" in signature.parameters:
        arguments["num_classes"] = num_classes
    if "shape" in signature.parameters:  # not for takes_any: such functions often pass all on to a net's class
        arguments["shape"] = shape
    arguments.update(settings)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise ValueError(f"model {path} cannot be called with ({', '.join(arguments)}): {error}") from None
    try:
        model = function(**arguments)
    except Exception as error:  # the user's own code may raise anything
        raise ValueError(f"model {path} failed {describe_error(error)}") from error
    return _module(path, model)


def _function(path: str) -> Callable[..., object]:
    place, _, name = path.partition(":")
    if place.endswith(".py"):
        raise ValueError(
            f"model {path!r} names a file: write {Path(place).stem}:{name or 'FUNCTION'}, with its folder on PYTHONPATH"
        )
    if not name:
        raise ValueError(f"model {path!r} names no function: write {place}:FUNCTION")
    if not all(part.isidentifier() for part in place.split(".")):
        raise ValueError(f"model {path!r} cannot be imported: {place!r} is not the name of a module")
    holder = module(place, f"model {path!r}")
    function = getattr(holder, name, None)
    if function is None:
        raise ValueError(f"model {path!r}: module {place} has no {name!r}{did_you_mean(name, holder)}")
    if isinstance(function, nn.Module):
        raise ValueError(f"model {path!r} is a net: name its class, or a function that returns it")
    if not callable(function):
        raise ValueError(f"model {path!r} is not a function: name one that returns an nn.Module")
    typed: Callable[..., object] = function
    return typed


def _module(name: str, model: object) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise ValueError(f"model {name} returned {type(model).__name__}: it must return an nn.Module")
    return model

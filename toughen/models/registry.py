"""Models by name, and their plain description in a run's ``model.json``."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from toughen.core.types import Real
from toughen.models.ensemble import NetA, NetB, NetC, NetD
from toughen.models.external import from_timm, imported
from toughen.models.mnist import EFGSMNet, FBFNet, LeNetPlus, MadryCNN, MLeNet, SmallCNN
from toughen.models.normalize import normalized
from toughen.models.parts import Shape
from toughen.models.preact_resnet import PreActResNet18
from toughen.models.resnet import ResNet18, ResNet34, ResNet50, ResNet56
from toughen.models.settings import listed, resolve
from toughen.models.vgg import VGG11, VGG16, VGG19, Conv4
from toughen.models.wide_resnet import WideResNet
from toughen.utils.collect import summary
from toughen.utils.net_names import check_may_be_created

MNIST: Shape = (1, 28, 28)
CIFAR: Shape = (3, 32, 32)
NETS: dict[str, tuple[type[nn.Module], Shape]] = {  # each with the images of the papers that use it
    "small-cnn": (SmallCNN, MNIST),
    "madry-cnn": (MadryCNN, MNIST),
    "m-lenet": (MLeNet, MNIST),
    "lenet+": (LeNetPlus, MNIST),
    "fbf-mnist-cnn": (FBFNet, MNIST),
    "efgsm-cnn": (EFGSMNet, MNIST),
    "A": (NetA, MNIST),
    "B": (NetB, MNIST),
    "C": (NetC, MNIST),
    "D": (NetD, MNIST),
    "conv-4": (Conv4, CIFAR),
    "vgg11": (VGG11, CIFAR),
    "vgg16": (VGG16, CIFAR),
    "vgg19": (VGG19, CIFAR),
    "resnet18": (ResNet18, CIFAR),
    "resnet34": (ResNet34, CIFAR),
    "resnet50": (ResNet50, CIFAR),
    "resnet56": (ResNet56, CIFAR),
    "preact-resnet18": (PreActResNet18, CIFAR),
    "wrn-22-5": (WideResNet, CIFAR),
    "wrn-28-10": (WideResNet, CIFAR),
    "wrn-34-10": (WideResNet, CIFAR),
}
WIDE = r"wrn-(\d{1,4})-(\d{1,4})"  # wrn-DEPTH-WIDTH
FIELDS = ("name", "num_classes", "shape", "mean", "std", "settings")


def names() -> list[str]:
    """The names of toughen's own nets."""
    return list(NETS)


def knows(name: str) -> bool:
    """Whether this is one of toughen's own nets, so that making it runs no other code."""
    return bool(re.fullmatch(WIDE, name.lower())) or name.lower() in map(str.lower, NETS)


def takes(name: str, setting: str) -> bool:
    """Whether this is one of toughen's own nets and has this setting, such as "stem"."""
    return knows(name) and setting in _own(name, {})[2]


def summaries() -> dict[str, str]:
    """toughen's own nets: name -> one line with the number of parameters at ten classes, and the settings."""
    lines = {}
    with torch.device("meta"):  # counts without allocating
        for name, (net, shape) in NETS.items():
            parameters = sum(each.numel() for each in _make_own(name, 10, shape, {}).parameters())
            settings = listed(net, _own(name, {})[2])
            lines[name] = f"{summary(net)} {parameters:,} parameters on {'x'.join(map(str, shape))}."
            lines[name] += f" Settings: {settings}." if settings else ""
    return lines


def create(
    name: str,
    num_classes: int = 10,
    shape: Shape = (3, 32, 32),
    mean: Sequence[Real] | None = None,
    std: Sequence[Real] | None = None,
    **settings: Any,
) -> nn.Module:
    """A new model: images [n, c, h, w] in [0, 1] to logits [n, num_classes].

    Args:
        name: one of ``names()``, in capitals or not; wrn-DEPTH-WIDTH; ``timm:NAME``; or ``package.module:function``,
            which is imported and called with ``num_classes`` and ``shape`` where it takes them.
        num_classes: number of outputs, 2 or more.
        shape: one image's channels, height and width.
        mean, std: per channel, in [0, 1] units, for a ``Normalize`` before the net; None for both: no normalisation.
        settings: the net's own; for a wide ResNet they win over its name.

    Raises:
        ValueError: unknown name or setting, a setting of a wrong type or value, or images too small for the net.
    """
    _require_sizes(num_classes, shape)
    if name.startswith("timm:"):
        net = from_timm(name.removeprefix("timm:"), num_classes, shape, settings)
    elif ":" in name:
        net = imported(name, num_classes, shape, settings)
    else:
        net = _make_own(name, num_classes, shape, settings)
    return normalized(net, shape[0], mean, std)


def describe(
    name: str,
    num_classes: int,
    shape: Shape,
    mean: Sequence[Real] | None,
    std: Sequence[Real] | None,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """What ``create`` was called with as plain data, defaults of toughen's own nets written out.

    Raises:
        ValueError: as in ``create`` for toughen's own nets, or a setting that JSON cannot hold.
    """
    if ":" not in name:
        _, name, settings = _own(name, settings)
    plain = {
        "name": name,
        "num_classes": num_classes,
        "shape": list(shape),
        "mean": None if mean is None else [float(number) for number in mean],
        "std": None if std is None else [float(number) for number in std],
        "settings": dict(settings),
    }
    try:
        record: dict[str, Any] = json.loads(json.dumps(plain, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"settings of model {name} must be plain numbers, texts and lists: {error}") from None
    return record


def from_description(record: object) -> nn.Module:
    """A new model out of what ``describe`` returned, which anyone may have changed.

    Nothing is imported because of it but timm: only toughen's own nets are made, and those of timm's registry, without
    pretrained weights.

    Raises:
        ValueError: the model is another one, timm isn't installed, a field is missing, unknown or of a wrong type, or
            as in ``create``.
    """
    if not isinstance(record, Mapping) or set(record) != set(FIELDS):
        fields = sorted(record) if isinstance(record, Mapping) else type(record).__name__
        raise ValueError(f"a model's description must have the fields {', '.join(FIELDS)}, this one has {fields}")
    name, num_classes, shape, mean, std, settings = (record[field] for field in FIELDS)
    if not isinstance(name, str) or not isinstance(settings, dict) or not isinstance(shape, list):
        raise ValueError("a model's description must have a text as name, a list as shape and a mapping as settings")
    check_may_be_created(name, settings, "the file")
    for field, numbers in (("mean", mean), ("std", std)):
        if numbers is not None and not (isinstance(numbers, list) and all(type(n) in (int, float) for n in numbers)):
            raise ValueError(f"{field} in a model's description must be null or a list of numbers, not {numbers!r}")
    _require_sizes(num_classes, shape)
    channels, height, width = shape
    if ":" in name:
        plain = {key: value for key, value in settings.items() if key != "pretrained"}
        net = from_timm(name.removeprefix("timm:"), num_classes, (channels, height, width), plain)
    else:
        net = _make_own(name, num_classes, (channels, height, width), settings)
    return normalized(net, channels, mean, std)


def _make_own(name: str, num_classes: int, shape: Shape, given: Mapping[str, Any]) -> nn.Module:
    net, _, settings = _own(name, given)
    return net(num_classes, shape, **settings)


def _own(name: str, given: Mapping[str, Any]) -> tuple[type[nn.Module], str, dict[str, Any]]:
    """The class, exact name and settings of one of toughen's own nets."""
    if match := re.fullmatch(WIDE, name.lower()):
        depth, width = map(int, match.groups())
        settings = resolve(name, WideResNet, {"depth": depth, "width": width, **given})
        return WideResNet, "wrn-{depth}-{width}".format(**settings), settings
    name = {known.lower(): known for known in NETS}.get(name.lower(), name)
    if name not in NETS:
        close = difflib.get_close_matches(name, NETS, n=1)
        place, _, attribute = name.rpartition(".")
        hint = f"did you mean {close[0]}? " if close else f"did you mean {place}:{attribute}? " if place else ""
        raise ValueError(
            f"model {name!r} is unknown: {hint}There are {', '.join(NETS)}, wrn-DEPTH-WIDTH, timm:NAME and "
            "package.module:function"
        )
    net, _ = NETS[name]
    return net, name, resolve(name, net, given)


def _require_sizes(num_classes: Any, shape: Any) -> None:
    if type(num_classes) is not int or num_classes < 2:
        raise ValueError(f"num_classes must be a whole number, 2 or more, not {num_classes!r}")
    if len(shape) != 3 or any(type(size) is not int or size < 1 for size in shape):
        raise ValueError(f"shape must be channels, height and width, three whole numbers above 0, not {shape!r}")

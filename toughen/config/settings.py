"""Settings from a command line and a YAML recipe: finds recipes, and passes eps and norm to all methods."""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
import re
import sys
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import jsonargparse
from jsonargparse.typing import register_type

from toughen.utils import strict_yaml
from toughen.utils.configurable import hints_of
from toughen.utils.units import CLOSE, Fraction, scale_radius


def _plain(value: Fraction) -> str | float:
    """How a fraction is written in YAML: as it was given, a plain number as a number."""
    return value.text if "/" in value.text else float(value)


register_type(Fraction, serializer=_plain, deserializer=Fraction, fail_already_registered=False)
jsonargparse.set_dumper("yaml", strict_yaml.write)  # of --print_config


PARTS = {"method": "Standard", "optimizer": "SGD", "schedule": "Cyclic"}  # what a run without a recipe takes
# of a class or function, and of an attack with its steps and the like
_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*[.:][A-Za-z_]\w*(-\d+(x\d+)?)?(@[\d./eE-]+)?")


def recipes() -> dict[str, Path]:
    """The packaged recipes by name."""
    folder = Path(str(resources.files("toughen") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def recipe_path(name: str) -> Path:
    """The file of a packaged recipe, or a user's own.

    Raises:
        ValueError: there is neither.
    """
    if name in recipes():
        return recipes()[name]
    path = Path(name)
    if path.is_dir():
        raise ValueError(
            f"{name} is a folder, not a recipe: give a folder of images as --data {name}, and a run directory as --out "
            "to continue it, or as --init to start from its weights"
        )
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml") or "/" in name:
        raise ValueError(f"there is no recipe file {name}: check the path, or use a name from `toughen list recipes`")
    close = difflib.get_close_matches(name, recipes(), n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise ValueError(f"recipe {name!r} is unknown: {hint}use a name from `toughen list recipes`, or a YAML file")


def read_recipe(name: str) -> dict[str, Any]:
    """The settings of a packaged recipe or of a user's file.

    Raises:
        ValueError: there is no such recipe, or it holds no settings.
    """
    try:
        text = recipe_path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"recipe {name} is not text: give a YAML file in UTF-8") from None
    loaded = strict_yaml.read(text, f"recipe {name}")
    if not isinstance(loaded, dict):
        raise ValueError(f"recipe {name} holds no settings: write one a line, such as `method: NuAT` and `eps: 8/255`")
    return loaded


def last_part(path: Any) -> str:
    """The name at the end of an import path."""
    return str(path).rsplit(".", 1)[-1]


def find_own_classes(arguments: Sequence[str], recipe: Any = None) -> None:
    """Add the current folder to ``sys.path`` where an import path of a user's own class is given.

    Not otherwise: a file in the current folder could hide a package.

    Args:
        arguments: the command line.
        recipe: what the recipe's file holds.
    """
    words = (word.partition("=")[2] or word for word in arguments)
    texts = [*(each.strip("[]'\" ") for word in words for each in word.split(",")), *_texts(recipe)]
    here = str(Path.cwd())
    if here not in sys.path and any(_IMPORT_PATH.fullmatch(text) and not Path(text).exists() for text in texts):
        sys.path.append(here)  # last, so that nothing there hides a package


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def kebab(name: str) -> str:
    """A setting's name as help and messages write it: ``batch_size`` is ``batch-size``."""
    return name.replace("_", "-")


def flag(path: str) -> str:
    """A setting of a parsed tree as the command line writes it."""
    return "--" + kebab(path.replace(".init_args", ""))


def refuse_bases(settings: jsonargparse.Namespace) -> None:
    """Check that no part is named by an abstract base class.

    Raises:
        ValueError: one is.
    """
    for path, node in _nodes(settings, ""):
        name = last_part(node.class_path)
        if name in ("Method", "Optimizer", "Schedule") or name.startswith("_"):
            raise ValueError(
                f"{flag(path[1:])} {name} is only their base class: name one, as in `toughen train --help`"
            )


def refuse_infinite(settings: jsonargparse.Namespace) -> None:
    """Check that every number is finite.

    Raises:
        ValueError: one is NaN or infinite.
    """
    for path, value in settings.items():
        if isinstance(value, float | Fraction) and not math.isfinite(value):
            raise ValueError(f"{flag(path)} is {value}: give a finite number")


def refuse_nulls(settings: jsonargparse.Namespace) -> None:
    """See that a part's setting is null only where its class takes that; jsonargparse lets null pass anywhere in it.

    Raises:
        ValueError: one is null, and its class takes no null.
    """
    for path, node in _nodes(settings, ""):
        given = node.get("init_args")
        types = {} if given is None else hints_of(_class(node))
        for name, value in vars(given).items() if given is not None else ():
            if value is None and name in types and not _takes_null(types[name]):
                raise ValueError(f"{flag(f'{path[1:]}.{name}')} may not be null: give a value, or leave it out")


def fill_threat(settings: jsonargparse.Namespace, given: jsonargparse.Namespace) -> None:
    """Give the run's eps and norm to every part of the method that takes them and sets none of its own.

    jsonargparse's links do not reach inside methods that wrap others, so the parsed tree is filled before it is
    instantiated.

    Args:
        settings: all settings of the run; its method's tree is changed.
        given: the same without defaults, which tells what the user set.

    Raises:
        ValueError: a part sets another value, or nobody takes the run's eps, or it is zero.
    """
    if settings.eps is not None and float(settings.eps) == 0:
        raise ValueError("eps is 0, which allows no attack: use an eps above 0, or --method Standard without eps")
    nodes = dict(_nodes(settings.method, "method"))
    leaves = [path for path, node in nodes.items() if "eps" in _parameters(node)]
    name = last_part(settings.method.class_path)
    if settings.eps is not None and not leaves:
        raise ValueError(
            f"method {name} takes no eps: name another with --method, or leave --eps to `toughen evaluate`"
        )
    for path in leaves:
        _fill(settings, given, path)
        if settings[f"{path}.init_args.eps"] is None:
            name = last_part(nodes[path].class_path)
            raise ValueError(f"method {name} needs a radius in image units: add --eps, such as --eps 8/255")


def _fill(settings: jsonargparse.Namespace, given: jsonargparse.Namespace, path: str) -> None:
    """Give one part of the tree the run's eps and norm where it has none of its own."""
    eps = None if settings.eps is None else scale_radius(settings.eps, settings.eps_factor)
    for name, run in (("eps", eps), ("norm", settings.norm)):
        key = f"{path}.init_args.{name}"
        if name not in _parameters(settings[path]):  # a user's own, written for one norm
            if run == "l2":
                raise ValueError(f"method {last_part(settings[path].class_path)} takes no norm: leave --norm out")
            continue
        own = given.get(key)
        same = own == run
        if name == "eps" and own is not None and run is not None:
            same = math.isclose(float(own), float(run), rel_tol=CLOSE)
        if own is not None and name in given and given[name] is not None and not same:
            times = f" times --eps-factor {settings.eps_factor:g}" * (name == "eps" and settings.eps_factor != 1)
            raise ValueError(
                f"{flag(f'{path}.{name}')} {own} contradicts --{name} {settings[name]}{times}: give one of them"
            )
        if own is None and run is not None:
            settings[key] = run


def _nodes(settings: Any, path: str) -> Iterator[tuple[str, jsonargparse.Namespace]]:
    """All parts of a parsed tree that name a class, and where they are, outer before inner."""
    if not isinstance(settings, jsonargparse.Namespace):
        return
    if "class_path" in settings:
        yield path, settings
    for name, value in vars(settings).items():
        yield from _nodes(value, f"{path}.{name}")


def _class(node: jsonargparse.Namespace) -> Any:
    """The class that a part names."""
    module, name = node.class_path.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


def _parameters(node: jsonargparse.Namespace) -> set[str]:
    """The settings of the class that a part names, and those that it hands on to its bases."""
    given = node.get("init_args")
    return {*inspect.signature(_class(node)).parameters, *(() if given is None else vars(given))}


def _takes_null(kind: Any) -> bool:
    """Whether a type has None among its values; what is no plain type is not judged."""
    if get_origin(kind) in (Union, UnionType):
        return any(_takes_null(each) for each in get_args(kind))
    return kind in (Any, object, type(None)) or not (isinstance(kind, type) or get_origin(kind) is not None)

"""From a command line and a YAML recipe to settings: where recipes lie, and how eps and norm reach every leaf."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jsonargparse
from jsonargparse.typing import register_type

from toughen.types import Fraction

register_type(Fraction, serializer=str, deserializer=Fraction, fail_already_registered=False)


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
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml") or "/" in name:
        raise ValueError(f"there is no recipe file {name}: check the path, or use a name from `toughen list recipes`")
    raise ValueError(f"recipe {name!r} is unknown: use {', '.join(recipes())}, or a YAML file")


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
        raise ValueError(
            "eps is 0, which nothing has to withstand: use an eps above 0, or --method Standard without one"
        )
    leaves = [path for path, node in _nodes(settings.method, "method") if "eps" in _parameters(node)]
    if settings.eps is not None and not leaves:
        name = settings.method.class_path.rsplit(".", 1)[-1]
        raise ValueError(f"method {name} takes no eps: leave --eps away here and give it to `toughen evaluate`")
    for path in leaves:
        for name in ("eps", "norm"):
            key, run = f"{path}.init_args.{name}", settings[name]
            own = given.get(key)
            if own is not None and name in given and given[name] is not None and own != run:
                raise ValueError(f"--{path}.{name} {own} contradicts --{name} {run}: give one of them")
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


def _parameters(node: jsonargparse.Namespace) -> set[str]:
    """The settings of the class that a part names."""
    module, name = node.class_path.rsplit(".", 1)
    return set(inspect.signature(getattr(importlib.import_module(module), name)).parameters)

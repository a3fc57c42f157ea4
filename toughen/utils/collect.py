"""Finds the public classes of a folder of modules, so that a new file there is all that a new part needs."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def collect(package: str, path: Iterable[str], base: type[T]) -> dict[str, type[T]]:
    """Subclasses of ``base`` that modules of the package define, by name, without private ones and ``base`` itself.

    Raises:
        TypeError: two modules define the same name.
    """
    classes: dict[str, type[T]] = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(path)):
        members = vars(importlib.import_module(f"{package}.{module}"))
        for name, member in members.items():
            own = inspect.isclass(member) and member.__module__ == f"{package}.{module}" and not name.startswith("_")
            if not own or not issubclass(member, base) or member is base:
                continue
            if name in classes:
                raise TypeError(f"{classes[name].__module__} and {member.__module__} both define {name}: rename one")
            classes[name] = member
    return classes


def summary(thing: object) -> str:
    """The first line of something's docstring."""
    return (inspect.getdoc(thing) or "").split("\n")[0]

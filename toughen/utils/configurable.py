"""Objects that remember the settings they were made with, and the paths that import their classes."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

Made = TypeVar("Made", bound="Configurable")


class Configurable:
    """A class whose objects remember the arguments they were made with; ``init_args`` gives them."""

    def __new__(cls: type[Made], *args: Any, **kwargs: Any) -> Made:
        made = super().__new__(cls)
        vars(made)["_init_args"] = _arguments(cls, args, kwargs)  # a torch module takes no attribute before __init__
        return made


def init_args(made: Configurable) -> dict[str, Any]:
    """The arguments of an object's constructor by name, with the defaults of those that were not given."""
    given: dict[str, Any] = vars(made)["_init_args"]
    return given


def settings_of_part(value: object) -> dict[str, Any] | None:
    """The settings of a part that a recipe names by its class, such as a method or an attack; None for other values."""
    if isinstance(value, Configurable):
        return init_args(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in fields(value) if each.init}
    return None


def _arguments(kind: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a class's constructor by name; {} where they do not fit, of which the constructor tells."""
    try:
        bound = inspect.signature(kind).bind(*args, **kwargs)
    except TypeError:
        return {}
    bound.apply_defaults()
    named: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind_of = bound.signature.parameters[name].kind
        if kind_of is inspect.Parameter.VAR_KEYWORD:
            named |= value
        elif value or kind_of is not inspect.Parameter.VAR_POSITIONAL:
            named[name] = value
    return named


def hints_of(kind: type) -> dict[str, Any]:
    """The types of a class's settings, and of those that it hands on to its bases."""
    hints: dict[str, Any] = {}
    for each in reversed(inspect.getmro(kind)):
        with suppress(NameError, AttributeError, TypeError):  # a user's own, which names types that are not there
            hints |= get_type_hints(vars(each).get("__init__", object.__init__))
    return hints


def defaults_of(kind: type) -> dict[str, Any]:
    """The defaults of a class's settings, and of those that it hands on to its bases."""
    inits = (vars(each)["__init__"] for each in reversed(inspect.getmro(kind)) if "__init__" in vars(each))
    parameters = (each for init in inits for each in inspect.signature(init).parameters.values())
    return {each.name: each.default for each in parameters if each.default is not each.empty}


def nested_defaults(kind: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of a class's settings, and of theirs, as ``SETTING.init_args.NAME``.

    Args:
        kind: the class.
        settings: the values of its settings by name.
    """
    defaults = defaults_of(kind)
    for name, value in settings.items():
        if (inner_settings := settings_of_part(value)) is not None:
            inner = nested_defaults(type(value), inner_settings)
            defaults |= {f"{name}.init_args.{each}": default for each, default in inner.items()}
    return defaults


def import_path(kind: type) -> str:
    """The shortest path that imports a class, such as ``toughen.methods.NuAT``."""
    parts = kind.__module__.split(".")
    packages = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
    exposed = (each for each in packages if getattr(sys.modules.get(each), kind.__name__, None) is kind)
    return f"{next(exposed, kind.__module__)}.{kind.__qualname__}"

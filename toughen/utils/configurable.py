"""Objects that remember the settings they were made with, and the paths that import their classes."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any, TypeVar

Made = TypeVar("Made", bound="Configurable")


class Configurable:
    """A class whose objects remember the arguments they were made with.

    Attributes:
        settings: the arguments of the constructor by name, with the defaults of those that were not given.
    """

    if TYPE_CHECKING:  # as jsonargparse reads a dataclass's hints, its bases' too, with the names of its own module
        settings: dict[str, Any]

    def __new__(cls: type[Made], *args: Any, **kwargs: Any) -> Made:
        made = super().__new__(cls)
        given = _arguments(cls, args, kwargs)
        vars(made).update(settings=given, _made_with=given)  # a torch module takes no attribute before its __init__
        return made


def made_with(made: Configurable) -> dict[str, Any]:
    """The ``settings`` of an object, also where its class uses this name for something else."""
    given: dict[str, Any] = vars(made)["_made_with"]
    return given


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


def import_path(kind: type) -> str:
    """The shortest path that imports a class, such as ``toughen.methods.NuAT``."""
    parts = kind.__module__.split(".")
    packages = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
    exposed = (each for each in packages if getattr(sys.modules.get(each), kind.__name__, None) is kind)
    return f"{next(exposed, kind.__module__)}.{kind.__qualname__}"

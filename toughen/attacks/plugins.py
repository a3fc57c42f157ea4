"""A user's own attack classes: import, check and instantiation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from toughen.attacks.base import Attack
from toughen.utils.plugins import describe_error, import_object

ADVICE = "write a frozen dataclass under toughen.attacks.Attack"


def import_attack(path: str) -> type[Attack]:
    """The class at ``package.module.Class``.

    Raises:
        ValueError: it cannot be imported, is no attack, or needs more settings than eps and norm.
    """
    kind = import_object(path, "attack")
    check_kind(path, kind)
    _check_settings(path, kind)
    checked: type[Attack] = kind
    return checked


def instantiate(spec: str, kind: Callable[..., Attack], settings: Mapping[str, Any]) -> Attack:
    """An attack of a user's own class.

    Raises:
        ValueError: its constructor raised an error.
    """
    try:
        return kind(**settings)
    except ValueError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise ValueError(f"attack {spec!r} failed {describe_error(error)}") from error


def check_kind(name: str, kind: object) -> None:
    """Check that a class is a frozen dataclass under ``Attack``.

    Raises:
        ValueError: it is not.
    """
    if not (inspect.isclass(kind) and issubclass(kind, Attack) and is_dataclass(kind)):
        raise ValueError(f"attack {name!r} is not an attack: {ADVICE}")
    undecorated = "__dataclass_fields__" not in vars(kind) and inspect.get_annotations(kind)
    if undecorated or not kind.__dataclass_params__.frozen:
        raise ValueError(f"attack {name!r} is not a frozen dataclass: put @dataclass(frozen=True) above it")


def _check_settings(path: str, kind: type[Attack]) -> None:
    settings: Any = inspect.signature(kind).parameters
    for name in ("eps", "norm"):
        if name not in settings:
            raise ValueError(f"attack {path!r} has no {name}: it needs both eps and norm as fields")
    needed = [name for name, each in settings.items() if each.default is each.empty and name not in ("eps", "norm")]
    if needed:
        raise ValueError(f"attack {path!r} needs {needed[0]}: give the field a default")
    if settings.keys() != {field.name for field in fields(kind) if field.init}:  # type: ignore[arg-type]
        raise ValueError(f"attack {path!r} defines its own __init__: leave it to the dataclass")

"""Attacks that toughen did not write: a user's own classes."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import is_dataclass
from typing import Any

from toughen.attacks.base import Attack


def imported(path: str) -> type[Attack]:
    """The class at ``package.module.Class``.

    Raises:
        ValueError: it cannot be imported, or is no attack that eps and norm are enough to make.
    """
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except AttributeError:
        raise ValueError(f"attack {path!r}: module {module} has no {name!r}") from None
    except Exception as error:  # the user's own code may raise anything
        raise ValueError(f"attack {path!r} cannot be imported: {error}; is its folder on PYTHONPATH?") from error
    if not (inspect.isclass(kind) and issubclass(kind, Attack) and is_dataclass(kind)):
        raise ValueError(f"attack {path!r} is none: name a frozen dataclass under toughen.attacks.base.Attack")
    _check_settings(path, kind)
    return kind


def _check_settings(path: str, kind: type[Attack]) -> None:
    settings: Any = inspect.signature(kind).parameters
    for name in ("eps", "norm"):
        if name not in settings:
            raise ValueError(f"attack {path!r} has no {name}: it needs both eps and norm as fields")
    needed = [name for name, each in settings.items() if each.default is each.empty and name not in ("eps", "norm")]
    if needed:
        raise ValueError(f"attack {path!r} needs {needed[0]}: give the field a default")

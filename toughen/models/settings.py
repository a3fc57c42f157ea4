"""A net's settings are the keyword-only arguments of its class; here they are looked up and checked."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from torch import nn


def resolve(name: str, net: type[nn.Module], given: Mapping[str, Any]) -> dict[str, Any]:
    """All of a net's settings: those given, defaults for the rest.

    Raises:
        ValueError: the net has no setting of that name, or the value is of another type than it declares.
    """
    parameters = inspect.signature(net).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}
    hints = get_type_hints(net.__init__)
    for key, value in given.items():
        if key not in defaults:
            raise ValueError(f"model {name} has no setting {key!r}: it takes {', '.join(defaults) or 'none'}")
        if not _fits(value, hints[key]):
            raise ValueError(f"setting {key}={value!r} of model {name} must be {_in_words(hints[key])}")
    return {**defaults, **given}


def listed(net: type[nn.Module], settings: Mapping[str, Any]) -> str:
    """A net's settings in one line, and what else a named choice may be: "width=64, stem=cifar (or imagenet)"."""
    hints, parts = get_type_hints(net.__init__), []
    for key, value in settings.items():
        choices = get_args(hints[key]) if get_origin(hints[key]) is Literal else ()
        others = ", ".join(choice for choice in choices if choice != value)
        word = str(value).lower() if isinstance(value, bool) else str(value)
        parts.append(f"{key}={word} (or {others})" if others else f"{key}={word}")
    return ", ".join(parts)


def _fits(value: object, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if hint is bool or isinstance(value, bool):
        return hint is bool and isinstance(value, bool)
    return isinstance(value, int if hint is int else (int, float))


def _in_words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(f'"{value}"' for value in get_args(hint))
    return {bool: "true or false", int: "a whole number"}.get(hint, "a number")

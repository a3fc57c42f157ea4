"""Checks values against type hints: fields read from JSON, and settings given in Python."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin


def matches(value: object, hint: Any) -> bool:
    """Whether a value is what a type hint says.

    A bool is no number. As JSON gives them back, a list may stand for a tuple, and an int for a float.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(matches(value, each) for each in inner)
    if origin is Literal:
        return any(type(value) is type(each) and value == each for each in inner)  # True is no 1
    if origin is tuple:
        return isinstance(value, list) and len(value) == len(inner) and all(map(matches, value, inner))
    if origin is list:
        return isinstance(value, list) and all(matches(each, inner[0]) for each in value)
    if origin is dict:
        return isinstance(value, dict) and all(matches(each, inner[1]) for each in value.values())
    if isinstance(value, bool) or hint in (bool, int, str, type(None)):
        return type(value) is hint
    return isinstance(value, (float, int) if hint is float else hint)


def description(hint: Any) -> str:
    """A type hint in an error message: ``int or None``, ``'best' or 'last'``."""
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(description, get_args(hint))))
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if hint is type(None):
        return "None"
    return str(hint) if get_args(hint) else str(hint.__name__)


def first_mismatch(fields: Any, hints: Mapping[str, Any]) -> str | None:
    """The first of these fields that is missing, unknown or of another type; None where all is well."""
    if not isinstance(fields, dict):
        return next(iter(hints))
    names: list[str] = [*hints, *fields]
    for name in names:
        if name not in hints or name not in fields or not matches(fields[name], hints[name]):
            return name
    return None


def is_json(value: object) -> bool:
    """Whether JSON gives a value back as it is: text as keys, lists rather than tuples, plain values."""
    if isinstance(value, dict):
        return all(type(name) is str and is_json(each) for name, each in value.items())
    if isinstance(value, list):
        return all(map(is_json, value))
    return value is None or isinstance(value, bool | int | float | str)

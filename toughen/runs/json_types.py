"""Checks values read from JSON against type hints."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin


def matches(value: object, hint: Any) -> bool:
    """Whether a value that came out of JSON is what a type hint says.

    A tuple comes back as a list, a whole float may come back as an int, and a bool is no number.
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
    return type(value) in ((float, int) if hint is float else (hint,))


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

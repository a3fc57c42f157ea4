"""Strict YAML, read and written: no repeated keys, no recursive values, no aliases that expand to huge values."""

from __future__ import annotations

import re
from collections.abc import Hashable
from contextlib import suppress
from typing import Any

import jsonargparse
import yaml

LARGEST = 10_000  # values with aliases expanded; recipes have below a hundred


class _Dumper(yaml.SafeDumper):
    """Writes texts such as 1e3, which jsonargparse would read back as numbers, in quotes."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$|\.[0-9_]+$"), list("-+0123456789.")
)


def write(value: Any) -> str:
    """The YAML text that ``read`` reads as this value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read(text: str, name: str) -> Any:
    """The value of a YAML text; nothing in it is executed.

    Args:
        text: the file's.
        name: what errors call it.

    Raises:
        ValueError: it is not YAML, sets a key twice (YAML would take the last), or a value does not fit its tag.
    """
    try:
        return _read(text, name)
    except yaml.YAMLError as error:
        place, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f" (line {place.line + 1}: {problem})" if place and problem else ""
        raise ValueError(f"{name} is not valid YAML{where}: correct it") from None


def check_value(text: str, name: str) -> None:
    """Check an option's value as ``read`` does, where it is YAML rather than plain text.

    Raises:
        ValueError: as in ``read``.
    """
    with suppress(yaml.YAMLError):
        _check_text(text, name)
        if "!" in text:  # without a tag, a value that is not a number is a string
            _construct(text, name)


def _read(text: str, name: str) -> Any:
    _check_text(text, name)
    return _construct(text, name)


def _construct(text: str, name: str) -> Any:
    try:
        return jsonargparse.get_loader("yaml")(text)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # of a constructor
        if isinstance(error, TypeError) and "!" not in text:  # `1:`, which is left a text, as `a:` is
            return text
        raise ValueError(
            f"{name} has a value that is not of the type its tag (!!) says, or that begins like a number and is none: "
            "correct it"
        ) from None


def _check_text(text: str, name: str) -> None:
    try:
        _check(yaml.compose(text, Loader=yaml.SafeLoader), name)
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply: make it flatter") from None


def _check(root: yaml.Node | None, name: str) -> None:
    sizes: dict[int, int | None] = {}  # None while a node's parts are counted
    loader = yaml.SafeLoader("")

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            known = sizes[id(node)]
            if known is None:
                raise ValueError(f"{name} has a value within itself (line {node.start_mark.line + 1}): remove it")
            return known
        sizes[id(node)] = None
        parts = []
        if isinstance(node, yaml.MappingNode):
            keys = set[Hashable]()
            for key, value in node.value:
                meant = {str(key.value), _meaning(key, loader)}
                if not meant.isdisjoint(keys):
                    line = key.start_mark.line + 1
                    raise ValueError(f"{name} sets {str(key.value)!r} twice (line {line}): keep one of them")
                keys |= meant
                parts.append(value)
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        sizes[id(node)] = total = 1 + sum(map(size, parts))
        if total > LARGEST:
            raise ValueError(f"{name} holds more than {LARGEST} values: a recipe has a few dozen")
        return total

    if root is not None:
        size(root)


def _meaning(key: yaml.Node, loader: yaml.SafeLoader) -> Hashable:
    """A key's value: `~` and `null` are the same key, and so are `1` and `true`, as Python compares them."""
    if isinstance(key, yaml.ScalarNode):
        with suppress(yaml.YAMLError, ArithmeticError, LookupError, ValueError):  # said where the whole is read
            value = loader.construct_object(key)
            if isinstance(value, Hashable):
                return value
    return str(key.value)

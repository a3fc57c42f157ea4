"""YAML that says one thing: no key twice, nothing within itself, nothing that aliases blow up."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import jsonargparse
import yaml

LARGEST = 10_000  # values, aliases followed: no recipe has a hundredth


def read(text: str, name: str) -> Any:
    """What a YAML text holds; nothing in it is executed.

    Args:
        text: the file's.
        name: what errors call it.

    Raises:
        ValueError: it is no YAML, holds a value that its tag does not fit, or sets a key twice, of which YAML would
            take the last.
    """
    try:
        return _read(text, name)
    except yaml.YAMLError as error:
        place, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f" (line {place.line + 1}: {problem})" if place and problem else ""
        raise ValueError(f"{name} is not valid YAML{where}: mend it there") from None


def check_value(text: str, name: str) -> None:
    """See that an option's value, where it is YAML and no mere text, says one thing.

    Raises:
        ValueError: as in ``read``.
    """
    with suppress(yaml.YAMLError):
        _read(text, name)


def _read(text: str, name: str) -> Any:
    try:
        _check(yaml.compose(text, Loader=yaml.SafeLoader), name)
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply: mend it there") from None
    try:
        return jsonargparse.get_loader("yaml")(text)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):  # of a constructor, as !!int ""
        raise ValueError(f"{name} has a value that is not of the type its tag (!!) says: mend it there") from None


def _check(root: yaml.Node | None, name: str) -> None:
    sizes: dict[int, int | None] = {}  # None while a node's parts are counted

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            known = sizes[id(node)]
            if known is None:
                raise ValueError(f"{name} has a value within itself (line {node.start_mark.line + 1}): mend it there")
            return known
        sizes[id(node)] = None
        parts = []
        if isinstance(node, yaml.MappingNode):
            keys = set[str]()
            for key, value in node.value:
                if str(key.value) in keys:
                    line = key.start_mark.line + 1
                    raise ValueError(f"{name} sets {str(key.value)!r} twice (line {line}): keep one of them")
                keys.add(str(key.value))
                parts.append(value)
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        sizes[id(node)] = total = 1 + sum(map(size, parts))
        if total > LARGEST:
            raise ValueError(f"{name} holds more than {LARGEST} values: a recipe has a few dozen")
        return total

    if root is not None:
        size(root)

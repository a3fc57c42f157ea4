"""Numbers, texts and lists out of a run's files, which are read as if anyone had written them."""

from __future__ import annotations

import math
from typing import Any


def real(value: object) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def share(value: object) -> float | None:
    """A number from 0 to 1; None for anything else."""
    number = real(value)
    return number if number is not None and 0 <= number <= 1 else None


def whole(value: object) -> int | None:
    """A whole number from 0 on; None for anything else."""
    number = real(value)
    return int(number) if number is not None and number >= 0 and number == int(number) else None


def text(value: object, default: str = "") -> str:
    """A text or a number as text; the default for anything else."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else default


def mapping(value: object) -> dict[str, Any]:
    """A mapping with texts as keys; an empty one for anything else."""
    return {str(name): each for name, each in value.items()} if isinstance(value, dict) else {}


def items(value: object) -> list[Any]:
    """A list; an empty one for anything else."""
    return value if isinstance(value, list) else []


def pairs(xs: object, ys: object) -> list[tuple[float, float]]:
    """The points of a curve whose coordinates are both numbers."""
    found = [(real(x), real(y)) for x, y in zip(items(xs), items(ys), strict=False)]
    return [(x, y) for x, y in found if x is not None and y is not None]


def grid(value: object, rows: int, columns: int) -> list[list[float | None]]:
    """A matrix of this size; an empty one for anything else."""
    found = [[real(cell) for cell in items(row)] for row in items(value)]
    fits = len(found) == rows and all(len(row) == columns for row in found)
    return found if fits and rows and columns else []

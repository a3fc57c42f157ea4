"""Reads numbers, texts and lists from a run's files without trusting their content."""

from __future__ import annotations

from typing import Any

LARGEST = 1e100  # larger than any measurement; sums and squares of numbers below it stay finite
LONGEST, SENTENCE = 200, 1000  # a longer name or sentence, in characters, is cut


def real(value: object) -> float | None:
    """A finite number of at most ``LARGEST``; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if abs(number) <= LARGEST else None  # for NaN the comparison is False


def share(value: object) -> float | None:
    """A number from 0 to 1; None for anything else."""
    number = real(value)
    return number if number is not None and 0 <= number <= 1 else None


def whole(value: object) -> int | None:
    """An integer of at least 0; None for anything else."""
    number = real(value)
    return int(number) if number is not None and number >= 0 and number == int(number) else None


def clean(written: str) -> str:
    """A text that can be encoded as UTF-8: lone surrogates, as in file names that are not UTF-8, are replaced."""
    return written.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def text(value: object, default: str = "", *, longest: int = LONGEST) -> str:
    """A text of at most ``longest`` characters, or a number as text; the default for anything else."""
    if isinstance(value, str):
        return clean(value if len(value) <= longest else value[: longest - 1] + "…")
    return default if real(value) is None else str(value)


def mapping(value: object) -> dict[str, Any]:
    """A mapping, with its keys as texts; an empty one for anything else."""
    return {text(str(name)): each for name, each in value.items()} if isinstance(value, dict) else {}


def items(value: object) -> list[Any]:
    """A list; an empty one for anything else."""
    return value if isinstance(value, list) else []


def pairs(xs: object, ys: object) -> list[tuple[float, float]]:
    """The points of a curve; those whose coordinates are not both numbers are left out."""
    numbers = [(real(x), real(y)) for x, y in zip(items(xs), items(ys), strict=False)]
    return [(x, y) for x, y in numbers if x is not None and y is not None]


def grid(value: object, rows: int, columns: int) -> list[list[float | None]]:
    """A matrix of this size; an empty one for anything else."""
    cells = [[real(cell) for cell in items(row)] for row in items(value)]
    fits = len(cells) == rows and all(len(row) == columns for row in cells)
    return cells if fits and rows and columns else []

"""Numbers, texts and lists out of a run's files, which are read as if anyone had written them."""

from __future__ import annotations

from typing import Any

LARGEST = 1e100  # no measurement is beyond it, and sums and squares of what is within stay finite
LONGEST, SENTENCE = 200, 1000  # characters of a name and of a sentence beyond which they are cut


def real(value: object) -> float | None:
    """A number of a size that can be computed with; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if abs(number) <= LARGEST else None  # NaN is never within


def share(value: object) -> float | None:
    """A number from 0 to 1; None for anything else."""
    number = real(value)
    return number if number is not None and 0 <= number <= 1 else None


def whole(value: object) -> int | None:
    """A whole number from 0 on; None for anything else."""
    number = real(value)
    return int(number) if number is not None and number >= 0 and number == int(number) else None


def clean(written: str) -> str:
    """A text that a file can hold: half characters, as in names that are not UTF-8, become replacement characters."""
    return written.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def text(value: object, default: str = "", *, longest: int = LONGEST) -> str:
    """A text, cut where it is too long to be shown, or a number as text; the default for anything else."""
    if isinstance(value, str):
        return clean(value if len(value) <= longest else value[: longest - 1] + "…")
    return default if real(value) is None else str(value)


def mapping(value: object) -> dict[str, Any]:
    """A mapping with texts as keys; an empty one for anything else."""
    return {text(str(name)): each for name, each in value.items()} if isinstance(value, dict) else {}


def items(value: object) -> list[Any]:
    """A list; an empty one for anything else."""
    return value if isinstance(value, list) else []


def pairs(xs: object, ys: object) -> list[tuple[float, float]]:
    """The points of a curve whose coordinates are both numbers."""
    numbers = [(real(x), real(y)) for x, y in zip(items(xs), items(ys), strict=False)]
    return [(x, y) for x, y in numbers if x is not None and y is not None]


def grid(value: object, rows: int, columns: int) -> list[list[float | None]]:
    """A matrix of this size; an empty one for anything else."""
    cells = [[real(cell) for cell in items(row)] for row in items(value)]
    fits = len(cells) == rows and all(len(row) == columns for row in cells)
    return cells if fits and rows and columns else []

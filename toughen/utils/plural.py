"""Numbers with their nouns."""

from __future__ import annotations

from collections.abc import Sequence

NAMED = 5  # names of a list, at most


def count(number: float | int, noun: str) -> str:
    """A number with its noun, in the plural where it is not 1."""
    return f"{number:,.0f} {noun}{'' if round(number) == 1 else 's'}"


def some(names: Sequence[str]) -> str:
    """Names in a row; of many the first ones, and how many others there are."""
    if len(names) <= NAMED:
        return ", ".join(names)
    return f"{', '.join(names[: NAMED - 1])} and {len(names) - NAMED + 1:,} others"

"""The size that images of different sizes are brought to, where nobody says one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

ImageSize: TypeAlias = int | Literal["auto"] | None
"""Pixels that images are brought to, "auto" for ``choose``, None to leave them as they are."""
Size: TypeAlias = tuple[int, int]  # width and height in pixels

USUAL = (8, 16, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224)  # rows and columns, as nets halve them
_SMALLER = 10  # at most one image in so many is enlarged


class Choice(NamedTuple):
    """The size chosen, None where images stay as they are, and why in a few words."""

    size: int | None
    why: str


def choose(sizes: Mapping[Size, int]) -> Choice:
    """The largest usual size that at most a tenth of the images must be enlarged to.

    Enlarging adds nothing that a net could learn from, and each step costs in proportion to the pixels. A tenth may be
    smaller, so that a few tiny images do not decide. Images of one size stay as they are, unless they have more pixels
    than 224x224.

    Args:
        sizes: how many images there are of each size; one or more.
    """
    sides = sorted(min(size) for size, count in sizes.items() for _ in range(count))
    (width, height), *others = sizes
    if not others and width * height <= USUAL[-1] ** 2:
        return Choice(None, f"all are {width}x{height}")
    low = sides[len(sides) // _SMALLER]
    chosen = max((size for size in USUAL if size <= low), default=USUAL[0])
    fact = f"shorter sides of {sides[0]} to {sides[-1]} pixels" if others else f"{width}x{height} pixels each"
    if chosen == USUAL[-1]:
        reason = "the largest that is chosen by itself"
    elif low < chosen:
        reason = "the smallest that is chosen by itself"
    else:
        reason = "the largest usual size that nine in ten have"
    return Choice(chosen, f"they have {fact}; {chosen} is {reason}")

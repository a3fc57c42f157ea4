"""Chooses the size that images of different sizes are resized to, if the user does not give one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

ImageSize: TypeAlias = int | Literal["auto"] | None
"""Pixels that images are resized to, "auto" for ``choose``, None to leave them as they are."""
Size: TypeAlias = tuple[int, int]  # width and height in pixels

USUAL = (8, 16, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224)  # pixels; nets can halve them repeatedly
_SMALLER = 10  # at most one image in ten is enlarged


class Choice(NamedTuple):
    """The chosen size, None to leave images as they are, and the reason in a few words."""

    size: int | None
    why: str


def choose(sizes: Mapping[Size, int]) -> Choice:
    """The largest usual size to which at most a tenth of the images must be enlarged.

    Enlarging adds no information, and the cost of a step is proportional to the number of pixels. A tenth of the images
    may be smaller, so that a few tiny images do not determine the size. If all images have one size, they are left as
    they are, unless they have more pixels than 224x224.

    Args:
        sizes: the number of images of each size; at least one size.
    """
    sides = sorted(min(size) for size, count in sizes.items() for _ in range(count))
    (width, height), *others = sizes
    if not others and width * height <= USUAL[-1] ** 2:
        return Choice(None, f"all are {width}x{height}")
    low = sides[len(sides) // _SMALLER]
    chosen = max((size for size in USUAL if size <= low), default=USUAL[0])
    sides_range = f"{sides[0]} to {sides[-1]}" if sides[0] < sides[-1] else f"{sides[0]}"
    fact = f"shorter sides of {sides_range} pixels" if others else f"{width}x{height} pixels each"
    if chosen == USUAL[-1]:
        reason = "the largest size that is chosen automatically"
    elif low < chosen:
        reason = "the smallest size that is chosen automatically"
    else:
        reason = "the largest usual size that 9 of 10 images have"
    return Choice(chosen, f"they have {fact}; {chosen} is {reason}")

"""What is to be said of a set that can be used as it is, but says little."""

from __future__ import annotations

from collections.abc import Sequence

from toughen.utils.plural import count, some

FEWEST = 20  # images of a class: of so many a class's accuracy is known to within some 20 points


def doubts(classes: Sequence[str], trained: Sequence[int], tested: Sequence[int]) -> list[str]:
    """Sentences on classes with few training images, and without or with few test images.

    Args:
        classes: their names.
        trained, tested: images of each class; no numbers where nothing is known of them.
    """
    sentences = []
    if few := _few(classes, trained):
        sentences.append(
            f"too few training images: {few}; below {FEWEST} a class nothing can be concluded from what comes out"
        )
    if lacking := without(classes, tested):
        sentences.append(lacking)
    if few := _few(classes, tested):
        sentences.append(f"too few test images: {few}; below {FEWEST} a class their accuracy says next to nothing")
    return sentences


def without(classes: Sequence[str], tested: Sequence[int]) -> str:
    """That classes have no test images, "" where all have some."""
    lacking = [name for name, number in zip(classes, tested, strict=False) if not number]
    if not lacking:
        return ""
    return f"no test images of {some(lacking)}: accuracy will say nothing of {'it' if len(lacking) == 1 else 'them'}"


def _few(classes: Sequence[str], numbers: Sequence[int]) -> str:
    """The classes that have some images, and too few."""
    few = [f"{name} has {number}" for name, number in zip(classes, numbers, strict=False) if 0 < number < FEWEST]
    if len(few) == len(classes) and len(set(numbers)) == 1:
        return f"{count(numbers[0], 'image')} of each class"
    return some(few)

"""Warnings about data sets that can be used, but whose results would not be reliable."""

from __future__ import annotations

from collections.abc import Sequence

from toughen.utils.plural import count, some

FEWEST = 20  # images of a class: with this many, the class's accuracy is known to about 20 points
SEEN_LIMIT = 0.01  # share of the test images that may be training images: real data sets have a few duplicates


def size_warnings(classes: Sequence[str], trained: Sequence[int], tested: Sequence[int], shared: int = 0) -> list[str]:
    """Warnings about few training images, few or no test images, and test images that are trained on.

    Args:
        classes: the class names.
        trained, tested: the number of images of each class; empty if not known.
        shared: the number of test images that are training images, too.
    """
    sentences = []
    if few := _few(classes, trained):
        sentences.append(
            f"too few training images: {few}; with fewer than {FEWEST} per class, results are not reliable"
        )
    if lacking := missing_test_images(classes, tested):
        sentences.append(lacking)
    if few := _few(classes, tested):
        sentences.append(f"too few test images: {few}; with fewer than {FEWEST} per class, accuracy is not reliable")
    if shared > SEEN_LIMIT * sum(tested):
        sentences.append(
            f"{shared:,} of {count(sum(tested), 'test image')} are training images, too: an evaluation on them will be "
            "refused; remove the copies"
        )
    return sentences


def missing_test_images(classes: Sequence[str], tested: Sequence[int]) -> str:
    """A warning that classes have no test images; "" if all have some."""
    lacking = [name for name, number in zip(classes, tested, strict=False) if not number]
    if not lacking:
        return ""
    return f"no test images of {some(lacking)}: accuracy does not cover {'it' if len(lacking) == 1 else 'them'}"


def _few(classes: Sequence[str], numbers: Sequence[int]) -> str:
    """The classes that have at least one image, but fewer than ``FEWEST``."""
    few = [f"{name} has {number}" for name, number in zip(classes, numbers, strict=False) if 0 < number < FEWEST]
    if len(few) == len(classes) and len(set(numbers)) == 1:
        return f"{count(numbers[0], 'image')} of each class"
    return some(few)

"""Batches of a fixed size: the size, the padding of the last one, and counts of what passed through a model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from toughen.core.classifier import InputGradient
from toughen.core.types import Labels

LEAST_WORK = 64e6  # floating-point operations of a pass on a CPU; with fewer, calling the layers takes most of the time


def block_size(device: torch.device, n: int, given: int | None = None, work: float | int | None = None) -> int:
    """Images per forward pass, where ``n`` images are evaluated.

    ``given`` by the user, but at most ``n``. Otherwise up to 64 on a CPU, whose cache that fits, and up to 512 on a
    GPU. On a CPU there are several batches, to distribute over cores, unless a batch would be little work. The number
    of cores has no influence, so that results are the same on another machine.

    Args:
        device: where the model runs.
        n: images.
        given: the user's choice; None for none.
        work: floating-point operations of a forward pass of one image; None where they are not known.
    """
    if given is not None:
        return min(given, max(n, 1))
    if device.type != "cpu":
        return min(512, max(64, _power_of_two(n)))
    several = max(8, 1 << max(n // 4, 1).bit_length() - 1)
    enough = min(_power_of_two(math.ceil(LEAST_WORK / work)), 8 * math.ceil(n / 8)) if work else 0
    return min(64, max(several, enough))


def _power_of_two(least: int) -> int:
    """The smallest power of two that is not below ``least``."""
    return 1 << max(least - 1, 0).bit_length()


@dataclass
class Counts:
    """Passes through a model, in images.

    Attributes:
        forward: forward passes of the search, including those of gradients.
        gradient: backward passes to the input, each as costly as a forward pass.
        confirmation: forward passes of the model itself: to judge and confirm results, and to order the classes of the
            clean image.
        padding: forward and backward passes of padding images, not counted above.
    """

    forward: int = 0
    gradient: int = 0
    confirmation: int = 0
    padding: int = 0

    @property
    def total(self) -> int:
        """Passes of the attack itself, as its paper would count them."""
        return self.forward + self.gradient


def padded_batches(n: int, size: int, device: torch.device) -> Iterator[tuple[Labels, int]]:
    """Rows 0 to n - 1 in batches of one size, the last one padded with its first row; and each one's real length."""
    for rows in torch.arange(n, device=device).split(size):
        yield torch.cat([rows, rows[:1].expand(size - len(rows))]), len(rows)


def first_images(result: InputGradient, n: int) -> InputGradient:
    """The gradients of the first ``n`` images."""
    return InputGradient(result.gradient[:n], result.value[:n], result.logits[:n])


def concatenated(parts: Sequence[InputGradient]) -> InputGradient:
    """The gradients of all batches, one after the other."""
    return InputGradient(*(torch.cat(part) for part in zip(*parts, strict=True)))

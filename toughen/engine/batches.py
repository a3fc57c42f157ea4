"""Batches of a fixed size: the padding of the last one, and counts of what passed through a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from toughen.core.classifier import InputGradient
from toughen.core.types import Labels


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

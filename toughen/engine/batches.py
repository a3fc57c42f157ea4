"""Batches of one size: how large, the last one filled up, and what went through a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from toughen.core.classifier import InputGradient
from toughen.core.types import Labels


def block_size(device: torch.device, n: int, given: int | None = None) -> int:
    """How many images a forward takes, where ``n`` are evaluated.

    As many as the user gives, but no more than there are. Else what fits a core's cache, or fills a GPU; less where
    there are few images, since blocks are filled up: a power of two that leaves several blocks to share out between
    cores. It does not look at how many cores there are, so that results are the same on another machine.
    """
    if given is not None:
        return min(given, max(n, 1))
    if device.type != "cpu":
        return min(512, max(64, 1 << (n - 1).bit_length()))
    return min(64, max(8, 1 << max(n // 4, 1).bit_length() - 1))


@dataclass
class Counts:
    """What a model did, in images.

    Attributes:
        forward: images that went forward, those of gradients among them.
        gradient: images whose gradient was taken, each as costly as a forward.
        confirmation: forwards of the model itself: to judge, to confirm, to order the classes of the clean image.
        padding: forwards and gradients that only filled the last block up, not counted above.
    """

    forward: int = 0
    gradient: int = 0
    confirmation: int = 0
    padding: int = 0

    @property
    def total(self) -> int:
        """Forward equivalents of the attack itself, as its paper would count them."""
        return self.forward + self.gradient


def filled(n: int, size: int, device: torch.device) -> Iterator[tuple[Labels, int]]:
    """Rows 0 to n - 1 in blocks of one size, the last one filled up with its first row; and how many are real."""
    for rows in torch.arange(n, device=device).split(size):
        yield torch.cat([rows, rows[:1].expand(size - len(rows))]), len(rows)


def first(result: InputGradient, n: int) -> InputGradient:
    """The gradients of the first ``n`` images."""
    return InputGradient(result.gradient[:n], result.value[:n], result.logits[:n])


def joined(parts: Sequence[InputGradient]) -> InputGradient:
    """The gradients of all parts, one after the other."""
    return InputGradient(*(torch.cat(part) for part in zip(*parts, strict=True)))

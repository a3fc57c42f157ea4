"""Layers and checks that several nets share."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import nn

Shape: TypeAlias = tuple[int, int, int]  # one image's channels, height, width
Stem: TypeAlias = Literal["cifar", "imagenet"]


def stem_convolution(c_in: int, c_out: int, stem: Stem, *, bias: bool = False) -> nn.Conv2d:
    """A residual net's first convolution: 3x3 for small images; 7x7 that halves each side for large ones."""
    if stem == "cifar":
        return nn.Conv2d(c_in, c_out, 3, padding=1, bias=bias)
    return nn.Conv2d(c_in, c_out, 7, stride=2, padding=3, bias=bias)


def stem_pool(stem: Stem) -> list[nn.Module]:
    """What ends a stem: nothing for small images, a pool that halves each side for large ones."""
    return [] if stem == "cifar" else [nn.MaxPool2d(3, stride=2, padding=1)]


def require_side(net: str, shape: Shape, smallest: int) -> None:
    """Refuse images that a net's pooling would leave nothing of.

    Raises:
        ValueError: height or width is below ``smallest``.
    """
    if min(shape[1:]) < smallest:
        raise ValueError(
            f"{net} needs images of at least {smallest}x{smallest} pixels, these are {shape[1]}x{shape[2]}: "
            "enlarge them, or use resnet18"
        )


def require_positive(net: str, **settings: int) -> None:
    """Refuse sizes below 1.

    Raises:
        ValueError: one of them is below 1.
    """
    for name, value in settings.items():
        if value < 1:
            raise ValueError(f"{name}={value} of {net} must be 1 or more")

"""Layers and checks that several nets share."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import nn

from toughen.core.types import Images, Real

Shape: TypeAlias = tuple[int, int, int]  # one image's channels, height, width
Stem: TypeAlias = Literal["cifar", "imagenet"]
Activation: TypeAlias = Literal["relu", "silu", "gelu"]

ACTIVATIONS: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}

LEAK = 0.02  # slope of contrast stretching outside the stretched values, as a share of the slope inside


class ContrastStretching(nn.Module):
    """Stretches the values from ``low`` to 1 - ``low`` over [0, 1]; the others stay close to 0 or 1.

    An attack of eps at most ``low`` then changes a pixel that is 0 or 1 by little. Where most pixels are, as in MNIST,
    the net can become more robust; on photographs it does not (Chen et al., arXiv:1805.07816, on thresholds).
    Outside, the slope is ``LEAK`` times that inside, and not 0. A clipped pixel would have no gradient, so that attacks
    would leave it as it is, even where a larger change would fool the net.

    Args:
        low: what becomes 0, as 1 - ``low`` becomes 1; above 0 and below 0.5.

    Raises:
        ValueError: ``low`` is out of its range.
    """

    def __init__(self, low: Real) -> None:
        super().__init__()
        if not 0 < low < 0.5:
            raise ValueError(f"the contrast stretching's low is {low}: it must be above 0 and below 0.5")
        self.low = float(low)

    def forward(self, images: Images) -> Images:
        """Return the stretched images, [n, c, h, w]."""
        stretched = (images - self.low) / (1 - 2 * self.low)
        inside = stretched.clamp(0, 1)
        return inside + LEAK * (stretched - inside)

    def extra_repr(self) -> str:
        """What torch prints between the brackets."""
        return f"low={self.low}"


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

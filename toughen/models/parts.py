"""Layers and checks that several nets share."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import nn

from toughen.core.types import Images, Real

Shape: TypeAlias = tuple[int, int, int]  # one image's channels, height, width
Stem: TypeAlias = Literal["cifar", "imagenet"]


class ContrastStretching(nn.Module):
    """Stretches the values from ``low`` to 1 - ``low`` over [0, 1] and clips the others to 0 or 1.

    An attack of eps at most ``low`` then changes no pixel that is 0 or 1. Where most pixels are, as in MNIST, the net
    becomes more robust; on photographs it does not (Chen et al., arXiv:1805.07816, on thresholds).
    The gradient ignores the clipping: it is the slope 1 / (1 - 2 ``low``) everywhere (straight-through, Bengio et al.,
    arXiv:1308.3432). The true one is 0 at a clipped pixel, so that attacks would leave such a pixel as it is, even
    where a larger change would fool the net.

    Args:
        low: values up to it become 0, values from 1 - ``low`` become 1; above 0 and below 0.5.

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
        return stretched + (stretched.clamp(0, 1) - stretched).detach()  # the sum is exact, also in bfloat16

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

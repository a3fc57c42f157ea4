"""Nets A to D for MNIST of ensemble adversarial training (arXiv:1705.07204).

``variant="paper"`` is Table 1 of R-MGM (Vivek et al., CVPR Workshops 2019). It states neither padding nor strides, so
that there is no padding and each stride is 1; the initialisation is torch's. ``variant="code"`` is what the authors of
ensemble adversarial training published: B strides, C has ReLU and dropout instead of tanh and pools, A and D have the
same layers; all start with Glorot-uniform weights (D's hidden layers: Kaiming-normal) and biases of zero.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import nn

from toughen.models.parts import Shape, require_side

Variant: TypeAlias = Literal["paper", "code"]


class NetA(nn.Sequential):
    """Net A of ensemble adversarial training: two convolutions of 5x5 pixels and a hidden layer, with dropout.

    Args:
        num_classes: number of outputs.
        shape: one image's [c, h, w], at least 9x9 pixels.
        variant: "paper", R-MGM's Table 1, or "code", which differs in how it starts.

    Raises:
        ValueError: images too small.
    """

    def __init__(self, num_classes: int, shape: Shape, *, variant: Variant = "paper") -> None:
        require_side("A", shape, 9)
        channels, height, width = shape
        super().__init__(
            nn.Conv2d(channels, 64, 5), nn.ReLU(),
            nn.Conv2d(64, 64, 5), nn.ReLU(),
            nn.Dropout(0.25),
            nn.Flatten(),
            nn.Linear(64 * (height - 8) * (width - 8), 128), nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(128, num_classes),
        )  # fmt: skip
        if variant == "code":
            _start_as_published(self)


class NetB(nn.Sequential):
    """Net B of ensemble adversarial training: convolutions of 8x8, 6x6 and 5x5 pixels, dropout on the image itself.

    Args:
        num_classes: number of outputs.
        shape: one image's [c, h, w], at least 17x17 pixels, or 28x28 for "code".
        variant: "paper", R-MGM's Table 1, or "code": the first two convolutions stride by 2, the first one is padded.

    Raises:
        ValueError: images too small.
    """

    def __init__(self, num_classes: int, shape: Shape, *, variant: Variant = "paper") -> None:
        code = variant == "code"
        require_side("B", shape, 28 if code else 17)
        stride, padding = (2, 3) if code else (1, 0)
        rows, columns = ((side // 2 - 6) // 2 - 3 if code else side - 16 for side in shape[1:])  # 1 or 12 for 28
        super().__init__(
            nn.Dropout(0.2),
            nn.Conv2d(shape[0], 64, 8, stride, padding), nn.ReLU(),
            nn.Conv2d(64, 128, 6, stride), nn.ReLU(),
            nn.Conv2d(128, 128, 5), nn.ReLU(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(128 * rows * columns, num_classes),
        )  # fmt: skip
        if code:
            _start_as_published(self)


class NetC(nn.Sequential):
    """Net C of ensemble adversarial training: two convolutions of 3x3 pixels and a hidden layer.

    Args:
        num_classes: number of outputs.
        shape: one image's [c, h, w], at least 10x10 pixels, or 5x5 for "code".
        variant: "paper", R-MGM's Table 1 with tanh and pools, or "code", with ReLU, dropout and no pool.

    Raises:
        ValueError: images too small.
    """

    def __init__(self, num_classes: int, shape: Shape, *, variant: Variant = "paper") -> None:
        code = variant == "code"
        require_side("C", shape, 5 if code else 10)
        rows, columns = (side - 4 if code else ((side - 2) // 2 - 2) // 2 for side in shape[1:])  # 24 or 5 for 28
        features = [
            nn.Conv2d(shape[0], 128, 3), nn.ReLU(),
            nn.Conv2d(128, 64, 3), nn.ReLU(),
            nn.Dropout(0.25),
        ] if code else [
            nn.Conv2d(shape[0], 128, 3), nn.Tanh(), nn.MaxPool2d(2),
            nn.Conv2d(128, 64, 3), nn.Tanh(), nn.MaxPool2d(2),
        ]  # fmt: skip
        super().__init__(
            *features,
            nn.Flatten(),
            nn.Linear(64 * rows * columns, 128),
            nn.ReLU(),
            *([nn.Dropout(0.5)] if code else []),
            nn.Linear(128, num_classes),
        )
        if code:
            _start_as_published(self)


class NetD(nn.Sequential):
    """Net D of ensemble adversarial training: four hidden layers of 300, each with dropout.

    Args:
        num_classes: number of outputs.
        shape: one image's [c, h, w].
        variant: "paper", R-MGM's Table 1, or "code", which differs in how it starts.
    """

    def __init__(self, num_classes: int, shape: Shape, *, variant: Variant = "paper") -> None:
        channels, height, width = shape
        sizes = [channels * height * width, 300, 300, 300]
        hidden = [layer for size in sizes for layer in (nn.Linear(size, 300), nn.ReLU(), nn.Dropout(0.5))]
        last = nn.Linear(300, num_classes)
        super().__init__(nn.Flatten(), *hidden, last)
        if variant == "code":
            _start_as_published(self)
            for layer in self:
                if isinstance(layer, nn.Linear) and layer is not last:
                    nn.init.kaiming_normal_(layer.weight)


def _start_as_published(net: nn.Sequential) -> None:
    for weight in net.parameters():
        if weight.ndim > 1:
            nn.init.xavier_uniform_(weight)
        else:
            nn.init.zeros_(weight)

"""The papers' small nets for MNIST: plain stacks of layers, read from top to bottom."""

from __future__ import annotations

from torch import nn

from toughen.models.parts import Shape, require_side
from toughen.types import Real


class SmallCNN(nn.Sequential):
    """SmallCNN of TRADES (arXiv:1901.08573), also PAP's net for MNIST.

    Convolutions start Kaiming-normal, the last layer at zero, so that an untrained net returns zero logits.

    Args:
        num_classes: number of outputs.
        shape: one image's [c, h, w], at least 16x16 pixels.
        dropout: share of hidden units dropped while training, [0, 1).

    Raises:
        ValueError: images too small, or dropout out of its range.
    """

    def __init__(self, num_classes: int, shape: Shape, *, dropout: Real = 0.5) -> None:
        require_side("small-cnn", shape, 16)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout} of small-cnn must be at least 0 and below 1")
        channels, height, width = shape
        rows, columns = (((side - 4) // 2 - 4) // 2 for side in (height, width))  # 4x4 for 28x28
        super().__init__(
            nn.Conv2d(channels, 32, 3), nn.ReLU(),
            nn.Conv2d(32, 32, 3), nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3), nn.ReLU(),
            nn.Conv2d(64, 64, 3), nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * rows * columns, 200), nn.ReLU(),
            nn.Dropout(float(dropout)),
            nn.Linear(200, 200), nn.ReLU(),
            last := nn.Linear(200, num_classes),
        )  # fmt: skip
        for layer in self:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)


class MLeNet(nn.Sequential):
    """M-LeNet, the net for MNIST of GAT (arXiv:2011.14969) and its authors' later work; torch's initialisation.

    Args:
        num_classes: number of outputs.
        shape: one image's [c, h, w], at least 4x4 pixels.

    Raises:
        ValueError: images too small.
    """

    def __init__(self, num_classes: int, shape: Shape) -> None:
        require_side("m-lenet", shape, 4)
        channels, height, width = shape
        super().__init__(
            nn.Conv2d(channels, 32, 5, padding=2), nn.ReLU(),
            nn.Conv2d(32, 32, 5, padding=2), nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(),
            nn.Conv2d(64, 64, 5, padding=2), nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * (height // 4) * (width // 4), 512), nn.ReLU(),
            nn.Linear(512, num_classes),
        )  # fmt: skip


class FBFNet(nn.Sequential):
    """The net for MNIST of "Fast is better than free" (arXiv:2001.03994); torch's initialisation.

    Args:
        num_classes: number of outputs.
        shape: one image's [c, h, w], at least 4x4 pixels.

    Raises:
        ValueError: images too small.
    """

    def __init__(self, num_classes: int, shape: Shape) -> None:
        require_side("fbf-mnist-cnn", shape, 4)
        channels, height, width = shape
        super().__init__(
            nn.Conv2d(channels, 16, 4, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * (height // 4) * (width // 4), 100), nn.ReLU(),
            nn.Linear(100, num_classes),
        )  # fmt: skip

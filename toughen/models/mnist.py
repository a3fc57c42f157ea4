"""The papers' small nets for MNIST: plain stacks of layers, read from top to bottom."""

from __future__ import annotations

from typing import Literal

from torch import nn

from toughen.core.types import Real
from toughen.models.parts import ContrastStretching, Shape, require_positive, require_side


class SmallCNN(nn.Sequential):
    """SmallCNN of TRADES (arXiv:1901.08573), also PAP's net for MNIST.

    As released: convolutions start Kaiming-normal with biases at zero, the two hidden layers as torch has it, and the
    last layer at zero, so that an untrained net returns zero logits.

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
        super().__init__(
            *_four_convolutions(shape[0], 32),
            nn.Linear(_four_convolutions_outputs(shape, 32), 200), nn.ReLU(),
            nn.Dropout(float(dropout)),
            nn.Linear(200, 200), nn.ReLU(),
            last := nn.Linear(200, num_classes),
        )  # fmt: skip
        for layer in self:
            if isinstance(layer, nn.Conv2d):
                assert layer.bias is not None
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
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


class LeNetPlus(nn.Sequential):
    """LeNet+, R-MGM's net for MNIST; its padding, which the paper leaves open, and torch's initialisation are ours.

    Args:
        num_classes: number of outputs.
        shape: one image's [c, h, w], at least 4x4 pixels, or 16x16 without padding.
        padding: "same" keeps the sides through a convolution, as in Madry's net of the same layers; "none" cuts 4 off.

    Raises:
        ValueError: images too small.
    """

    def __init__(self, num_classes: int, shape: Shape, *, padding: Literal["same", "none"] = "same") -> None:
        same = padding == "same"
        require_side("lenet+", shape, 4 if same else 16)
        super().__init__(*_two_convolutions(num_classes, shape, 2 if same else 0))


class MadryCNN(nn.Sequential):
    """The net for MNIST of Madry et al. (arXiv:1706.06083); also our stand-in for DAT's unstated two-layer CNN.

    Weights start at a normal of 0.1 cut off at two deviations, biases at 0.1, as in the source.

    Args:
        num_classes: number of outputs.
        shape: one image's [c, h, w], at least 4x4 pixels.

    Raises:
        ValueError: images too small.
    """

    def __init__(self, num_classes: int, shape: Shape) -> None:
        require_side("madry-cnn", shape, 4)
        super().__init__(*_two_convolutions(num_classes, shape, 2))
        for weight in self.parameters():
            if weight.ndim > 1:
                nn.init.trunc_normal_(weight, std=0.1, a=-0.2, b=0.2)
            else:
                nn.init.constant_(weight, 0.1)


class EFGSMNet(nn.Sequential):
    """A net of the size of eFGSM's for MNIST, 0.2 M; the layers are ours: small-cnn's, with one hidden layer of 128.

    The paper says only that filters and dense layers are smaller than in others' nets. Torch's initialisation.

    Args:
        num_classes: number of outputs.
        shape: one image's [c, h, w], at least 16x16 pixels.
        width: channels of the first two convolutions; the other two have twice as many, the hidden layer four times.
        stretch: the ``low`` of a ``ContrastStretching`` before the first layer, ours; 0 leaves images as they are.

    Raises:
        ValueError: images too small, ``width`` below 1, or ``stretch`` not in [0, 0.5).
    """

    def __init__(self, num_classes: int, shape: Shape, *, width: int = 32, stretch: Real = 0.0) -> None:
        require_side("efgsm-cnn", shape, 16)
        require_positive("efgsm-cnn", width=width)
        super().__init__(
            *([ContrastStretching(stretch)] if stretch else []),
            *_four_convolutions(shape[0], width),
            nn.Linear(_four_convolutions_outputs(shape, width), 4 * width), nn.ReLU(),
            nn.Linear(4 * width, num_classes),
        )  # fmt: skip


def _four_convolutions(channels: int, width: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, width, 3), nn.ReLU(),
        nn.Conv2d(width, width, 3), nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3), nn.ReLU(),
        nn.Conv2d(2 * width, 2 * width, 3), nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
    ]  # fmt: skip


def _four_convolutions_outputs(shape: Shape, width: int) -> int:
    rows, columns = (((side - 4) // 2 - 4) // 2 for side in shape[1:])  # 4x4 for 28x28
    return 2 * width * rows * columns


def _two_convolutions(num_classes: int, shape: Shape, padding: int) -> list[nn.Module]:
    lost = 4 - 2 * padding  # by each convolution
    rows, columns = (((side - lost) // 2 - lost) // 2 for side in shape[1:])  # 7x7 or 4x4 for 28x28
    return [
        nn.Conv2d(shape[0], 32, 5, padding=padding), nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=padding), nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * rows * columns, 1024), nn.ReLU(),
        nn.Linear(1024, num_classes),
    ]  # fmt: skip

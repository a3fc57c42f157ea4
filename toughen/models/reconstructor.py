"""Re-constructors of eFGSM's authors: from class probabilities back to an image, only while a classifier is trained.

The paper gives their kind and their size (MNIST: two dense and three transposed convolution layers, 0.26 M parameters;
CIFAR-10: an up-sampling WRN-22-3, 5.1 M). Widths, kernels and all else are ours, chosen to meet these sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from toughen.models.parts import Shape
from toughen.models.wide_resnet import TradesBlock, start_as_trades


class DenseReconstructor(nn.Sequential):
    """Two dense layers to 32 maps of a quarter of each side, and three 5x5 transposed convolutions, two of stride 2.

    255,745 parameters for MNIST; torch's initialisation.

    Args:
        num_classes: number of probabilities.
        shape: one image's [c, h, w].
    """

    def __init__(self, num_classes: int, shape: Shape) -> None:
        channels, height, width = shape
        super().__init__(
            *_dense(num_classes, 128, 32, height // 4, width // 4), nn.ReLU(),
            nn.ConvTranspose2d(32, 32, 5, stride=2, padding=2, output_padding=1), nn.ReLU(),
            nn.ConvTranspose2d(32, 32, 5, stride=2, padding=2, output_padding=1), nn.ReLU(),
            nn.ConvTranspose2d(32, channels, 5, padding=2),
            nn.Sigmoid(),
        )  # fmt: skip


class WideReconstructor(nn.Sequential):
    """A wide ResNet upside down: stages of fewer and fewer maps, doubling each side between them.

    Two dense layers make its first maps; each doubling repeats every pixel. As WRN-22-3 it has stages of 192, 96 and 48
    maps with three blocks each, 5,118,867 parameters for CIFAR-10. The stages start as TRADES' wide ResNets do; the
    last convolution as torch has it, so that no pixel starts saturated.

    Args:
        num_classes: number of probabilities.
        shape: one image's [c, h, w].
        depth: 6 n + 4, for n blocks a stage.
        widen: maps of the last stage over 16.
    """

    def __init__(self, num_classes: int, shape: Shape, *, depth: int = 22, widen: int = 3) -> None:
        channels, height, width = shape
        first, second, third, blocks = 64 * widen, 32 * widen, 16 * widen, (depth - 4) // 6
        super().__init__(
            *_dense(num_classes, first, first, height // 4, width // 4),
            _stage(first, first, blocks), nn.Upsample(scale_factor=2),
            _stage(first, second, blocks), nn.Upsample(scale_factor=2),
            _stage(second, third, blocks), nn.BatchNorm2d(third), nn.ReLU(),
            nn.Conv2d(third, channels, 3, padding=1),
            nn.Sigmoid(),
        )  # fmt: skip


RECONSTRUCTORS: dict[str, Callable[[int, Shape], nn.Module]] = {
    "dense": DenseReconstructor,
    "wrn-22-3": WideReconstructor,
    "wrn-10-1": partial(WideReconstructor, depth=10, widen=1),
}


def create_reconstructor(name: str, num_classes: int, shape: Shape) -> nn.Module:
    """A new re-constructor: class probabilities [n, num_classes] to images [n, c, h, w] in [0, 1].

    Args:
        name: "dense", "wrn-22-3", "wrn-10-1", or "auto": dense for one channel, wrn-22-3 for more.
        num_classes: number of probabilities.
        shape: one image's [c, h, w]; both sides multiples of 4.

    Raises:
        ValueError: unknown name, or sides that are no multiples of 4.
    """
    if name == "auto":
        name = "dense" if shape[0] == 1 else "wrn-22-3"
    if name not in RECONSTRUCTORS:
        raise ValueError(f"re-constructor {name!r} is unknown: there are {', '.join(RECONSTRUCTORS)} and auto")
    if any(side % 4 for side in shape[1:]):
        raise ValueError(
            f"a re-constructor doubles each side twice, so both must be multiples of 4, these images are "
            f"{shape[1]}x{shape[2]}: pad or resize them"
        )
    return RECONSTRUCTORS[name](num_classes, shape)


def _dense(num_classes: int, hidden: int, maps: int, height: int, width: int) -> list[nn.Module]:
    """Two dense layers, and their outputs as maps."""
    return [
        nn.Linear(num_classes, hidden), nn.ReLU(),
        nn.Linear(hidden, maps * height * width),
        nn.Unflatten(1, (maps, height, width)),
    ]  # fmt: skip


def _stage(c_in: int, c_out: int, blocks: int) -> nn.Sequential:
    stage = nn.Sequential(TradesBlock(c_in, c_out, 1), *(TradesBlock(c_out, c_out, 1) for _ in range(blocks - 1)))
    start_as_trades(stage)
    return stage

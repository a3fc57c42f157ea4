"""VGG nets with batch norm, as they are trained on CIFAR-10, and conv-4, a small one of their kind."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from toughen.core.types import Images, Logits
from toughen.models.parts import Shape, require_positive, require_side


class VGG11(nn.Module):
    """VGG-11 (arXiv:1409.1556) for CIFAR-10: batch norm, and one linear layer instead of three; R-MGM attacks from it.

    The last map, one pixel for 32x32, is averaged whole. Torch's initialisation.

    Args:
        num_classes: number of outputs.
        shape: one image's [c, h, w], at least 32x32 pixels.
        width: channels of the first stage; the others have 2, 4, 8 and 8 times as many.

    Raises:
        ValueError: images too small, or width below 1.
    """

    convolutions: ClassVar = (1, 1, 2, 2, 2)  # of each stage

    def __init__(self, num_classes: int, shape: Shape, *, width: int = 64) -> None:
        name = type(self).__name__.lower()
        require_side(name, shape, 32)
        require_positive(name, width=width)
        super().__init__()
        self.stages, c_in = nn.Sequential(), shape[0]
        for number, factor in zip(self.convolutions, (1, 2, 4, 8, 8), strict=True):
            self.stages.append(_stage(c_in, factor * width, number))
            c_in = factor * width
        self.linear = nn.Linear(c_in, num_classes)

    def forward(self, x: Images) -> Logits:
        logits: Tensor = self.linear(self.stages(x).mean((2, 3)))
        return logits


class VGG16(VGG11):
    """VGG-16 for CIFAR-10, a source of R-MGM's ensembles: VGG-11 with 2, 2, 3, 3 and 3 convolutions a stage."""

    convolutions: ClassVar = (2, 2, 3, 3, 3)


class VGG19(VGG11):
    """VGG-19 for CIFAR-10, which R-MGM attacks from: VGG-11 with 2, 2, 4, 4 and 4 convolutions a stage."""

    convolutions: ClassVar = (2, 2, 4, 4, 4)


class Conv4(nn.Sequential):
    """Conv-4, the net for CIFAR-10 of arXiv:1803.03635, taken for the "Conv-4" that eFGSM's authors attack from.

    They name it and say no more. Torch's initialisation.

    Args:
        num_classes: number of outputs.
        shape: one image's [c, h, w], at least 4x4 pixels.
        width: channels of the first two convolutions; the others have 2, the hidden layers 4 times as many.

    Raises:
        ValueError: images too small, or width below 1.
    """

    def __init__(self, num_classes: int, shape: Shape, *, width: int = 64) -> None:
        require_side("conv-4", shape, 4)
        require_positive("conv-4", width=width)
        rows, columns = (side // 4 for side in shape[1:])
        super().__init__(
            nn.Conv2d(shape[0], width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(2 * width * rows * columns, 4 * width), nn.ReLU(),
            nn.Linear(4 * width, 4 * width), nn.ReLU(),
            nn.Linear(4 * width, num_classes),
        )  # fmt: skip


def _stage(c_in: int, c_out: int, convolutions: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for place in range(convolutions):
        layers += [nn.Conv2d(c_out if place else c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2))

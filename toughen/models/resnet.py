"""ResNet-18 (arXiv:1512.03385) as the papers train it on small images, with a stem for large ones."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from toughen.models.parts import Shape, Stem, require_positive, stem_convolution, stem_pool
from toughen.types import Images, Logits


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; the first one strides."""

    def __init__(self, c_in: int, c_out: int, stride: int, *, extra_relu: bool) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(),
            nn.Conv2d(c_out, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out),
            *([nn.ReLU()] if extra_relu else []),
        )  # fmt: skip
        self.shortcut = nn.Sequential()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.shortcut(x))


class ResNet18(nn.Module):
    """ResNet-18, as in TRADES and, with extra_relu, in NuAT and GAT.

    Any image size works: the last map is averaged whole. With the stem for small images the initialisation is torch's,
    as in those papers' code; with the one for large images it is torchvision's (Kaiming-normal over the fan out).

    Args:
        num_classes: number of outputs.
        shape: one image's [c, h, w].
        width: channels of the first stage; the others have 2, 4 and 8 times as many.
        stem: "cifar" 3x3, or "imagenet" 7x7 and a pool, which divide each side by 4.
        extra_relu: one more ReLU at the end of the residual branch, before the addition, as NuAT's authors have it.

    Raises:
        ValueError: width is below 1.
    """

    def __init__(
        self, num_classes: int, shape: Shape, *, width: int = 64, stem: Stem = "cifar", extra_relu: bool = False
    ) -> None:
        require_positive("resnet18", width=width)
        super().__init__()
        self.stem = nn.Sequential(
            stem_convolution(shape[0], width, stem), nn.BatchNorm2d(width), nn.ReLU(), *stem_pool(stem)
        )
        self.stages = nn.Sequential(
            _stage(width, width, 1, extra_relu),
            _stage(width, 2 * width, 2, extra_relu),
            _stage(2 * width, 4 * width, 2, extra_relu),
            _stage(4 * width, 8 * width, 2, extra_relu),
        )
        self.linear = nn.Linear(8 * width, num_classes)
        if stem == "imagenet":
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Images) -> Logits:
        features = self.stages(self.stem(x))
        logits: Tensor = self.linear(features.mean((2, 3)))
        return logits


def _stage(c_in: int, c_out: int, stride: int, extra_relu: bool) -> nn.Sequential:
    return nn.Sequential(
        BasicBlock(c_in, c_out, stride, extra_relu=extra_relu),
        BasicBlock(c_out, c_out, 1, extra_relu=extra_relu),
    )

"""ResNets (arXiv:1512.03385) as the papers train them on small images, three of them with a stem for large ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, Literal, TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn

from toughen.core.types import Images, Logits
from toughen.models.parts import (
    ACTIVATIONS,
    Activation,
    Shape,
    Stem,
    require_positive,
    stem_convolution,
    stem_pool,
)

Block: TypeAlias = Callable[[int, int, int], nn.Module]  # channels in, channels out, stride


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; the first one strides."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        stride: int,
        *,
        extra_relu: bool = False,
        projection: bool = True,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        act = ACTIVATIONS[activation]
        self.residual = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(c_out), act(),
            nn.Conv2d(c_out, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out),
            *([act()] if extra_relu else []),
        )  # fmt: skip
        self.shortcut = _projection(c_in, c_out, stride) if projection else Padded(c_out - c_in, stride)
        self.activation = act()

    def forward(self, x: Tensor) -> Tensor:
        activated: Tensor = self.activation(self.residual(x) + self.shortcut(x))
        return activated


class Bottleneck(nn.Module):
    """Convolutions of 1x1, 3x3 and 1x1 beside a shortcut; the one of 3x3 strides and has a quarter of the channels."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        inner = c_out // 4
        self.residual = nn.Sequential(
            nn.Conv2d(c_in, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(),
            nn.Conv2d(inner, inner, 3, stride, padding=1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(),
            nn.Conv2d(inner, c_out, 1, bias=False), nn.BatchNorm2d(c_out),
        )  # fmt: skip
        self.shortcut = _projection(c_in, c_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.shortcut(x))


class Padded(nn.Module):
    """A shortcut without weights: every ``stride``-th row and column, and channels of zeros behind those that came."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.channels))


class ResNet(nn.Module):
    """What the residual nets share: a stem, stages of blocks, and one linear layer on the mean of the last map."""

    def __init__(
        self,
        num_classes: int,
        channels: int,
        stem: Stem,
        first: int,
        stages: Sequence[tuple[int, int]],
        block: Block,
        activation: Activation = "relu",
    ) -> None:
        """``first`` is the stem's channels; ``stages`` each one's channels and blocks, all but the first stride."""
        super().__init__()
        self.stem = nn.Sequential(
            stem_convolution(channels, first, stem),
            nn.BatchNorm2d(first),
            ACTIVATIONS[activation](),
            *stem_pool(stem),
        )
        self.stages, c_in = nn.Sequential(), first
        for place, (c_out, blocks) in enumerate(stages):
            further = (block(c_out, c_out, 1) for _ in range(blocks - 1))
            self.stages.append(nn.Sequential(block(c_in, c_out, 1 if place == 0 else 2), *further))
            c_in = c_out
        self.linear = nn.Linear(c_in, num_classes)
        if stem == "imagenet":
            _start_kaiming(self, "fan_out")

    def forward(self, x: Images) -> Logits:
        features = self.stages(self.stem(x))
        logits: Tensor = self.linear(features.mean((2, 3)))
        return logits


class ResNet18(ResNet):
    """ResNet-18, as in TRADES and, with extra_relu, in NuAT and GAT.

    Any image size works: the last map is averaged whole. With the stem for small images the initialisation is torch's,
    as in those papers' code; with the one for large images it is torchvision's (Kaiming-normal over the fan out).

    Args:
        num_classes: number of outputs.
        shape: one image's [c, h, w].
        width: channels of the first stage; the others have 2, 4 and 8 times as many.
        stem: "cifar" 3x3, or "imagenet" 7x7 and a pool, which divide each side by 4.
        extra_relu: one more activation at the end of the residual branch, before the addition, as NuAT's authors have
            it.
        activation: "relu" as in the papers, "silu" or "gelu".

    Raises:
        ValueError: width is below 1.
    """

    blocks: ClassVar = (2, 2, 2, 2)

    def __init__(
        self,
        num_classes: int,
        shape: Shape,
        *,
        width: int = 64,
        stem: Stem = "cifar",
        extra_relu: bool = False,
        activation: Activation = "relu",
    ) -> None:
        require_positive(type(self).__name__.lower(), width=width)
        block = partial(BasicBlock, extra_relu=extra_relu, activation=activation)
        stages = zip((width, 2 * width, 4 * width, 8 * width), self.blocks, strict=True)
        super().__init__(num_classes, shape[0], stem, width, list(stages), block, activation)


class ResNet34(ResNet18):
    """ResNet-34, the net for CIFAR-10 of R-MGM and of its ensembles: ResNet-18 with 3, 4, 6 and 3 blocks a stage."""

    blocks: ClassVar = (3, 4, 6, 3)


class ResNet50(ResNet):
    """ResNet-50, the net for CIFAR-100 of DAT; its bottlenecks stride in their 3x3 convolution, as is usual today.

    Args:
        num_classes: number of outputs.
        shape: one image's [c, h, w].
        width: channels of the stem; the stages put out 4, 8, 16 and 32 times as many.
        stem: "cifar" 3x3, or "imagenet" 7x7 and a pool, which divide each side by 4.

    Raises:
        ValueError: width is below 1.
    """

    def __init__(self, num_classes: int, shape: Shape, *, width: int = 64, stem: Stem = "cifar") -> None:
        require_positive("resnet50", width=width)
        stages = [(4 * width, 3), (8 * width, 4), (16 * width, 6), (32 * width, 3)]
        super().__init__(num_classes, shape[0], stem, width, stages, Bottleneck)


class ResNet56(ResNet):
    """ResNet-56, the 6 n + 2 net for CIFAR-10, which eFGSM's authors attack from; shortcuts have no weights.

    Convolutions start Kaiming-normal over the fan in, as the source says.

    Args:
        num_classes: number of outputs.
        shape: one image's [c, h, w].
        width: channels of the first stage; the others have 2 and 4 times as many.

    Raises:
        ValueError: width is below 1.
    """

    def __init__(self, num_classes: int, shape: Shape, *, width: int = 16) -> None:
        require_positive("resnet56", width=width)
        stages = [(width, 9), (2 * width, 9), (4 * width, 9)]
        super().__init__(num_classes, shape[0], "cifar", width, stages, partial(BasicBlock, projection=False))
        _start_kaiming(self, "fan_in")


def _projection(c_in: int, c_out: int, stride: int) -> nn.Sequential:
    """A shortcut that is an identity where it can be."""
    if stride == 1 and c_in == c_out:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))


def _start_kaiming(net: nn.Module, mode: Literal["fan_in", "fan_out"]) -> None:
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu")

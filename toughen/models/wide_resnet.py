"""Wide ResNets (arXiv:1605.07146) in the two forms that the papers' code uses."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn

from toughen.core.types import Images, Logits
from toughen.models.parts import Shape, Stem, require_positive, stem_convolution, stem_pool

Variant: TypeAlias = Literal["trades", "val-iisc"]


class TradesBlock(nn.Module):
    """No biases, the first convolution strides; where the width changes, the shortcut too takes relu(norm(x))."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.ready = nn.Sequential(nn.BatchNorm2d(c_in), nn.ReLU())
        self.residual = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(),
            nn.Conv2d(c_out, c_out, 3, padding=1, bias=False),
        )  # fmt: skip
        self.shortcut = None if c_in == c_out else nn.Conv2d(c_in, c_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        ready = self.ready(x)
        out: Tensor = self.residual(ready) + (x if self.shortcut is None else self.shortcut(ready))
        return out


class ValIiscBlock(nn.Module):
    """Convolutions with biases, the second one strides; the shortcut takes x as it came."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.BatchNorm2d(c_in), nn.ReLU(), nn.Conv2d(c_in, c_out, 3, padding=1),
            nn.BatchNorm2d(c_out), nn.ReLU(), nn.Conv2d(c_out, c_out, 3, stride, padding=1),
        )  # fmt: skip
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Conv2d(c_in, c_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.residual(x) + self.shortcut(x)
        return out


class WideResNet(nn.Module):
    """Wide ResNet of TRADES (arXiv:1901.08573) or of NuAT's authors; also by the name wrn-DEPTH-WIDTH.

    Any image size works: the last map is averaged whole. "trades" starts convolutions at N(0, 2 / (k^2 c_out)) and the
    last bias at zero; "val-iisc" has torch's initialisation and a last batch norm of momentum 0.9.

    Args:
        num_classes: number of outputs.
        shape: one image's [c, h, w].
        depth: number of layers, 6 n + 4.
        width: the stages have 16, 32 and 64 times as many channels.
        stem: "cifar" 3x3, or "imagenet" 7x7 and a pool, which divide each side by 4.
        variant: "trades" or "val-iisc" (NuAT, GAT), which differ in biases, strides, shortcuts and initialisation.

    Raises:
        ValueError: the depth is not 6 n + 4, or the width is below 1.
    """

    def __init__(
        self,
        num_classes: int,
        shape: Shape,
        *,
        depth: int = 34,
        width: int = 10,
        stem: Stem = "cifar",
        variant: Variant = "trades",
    ) -> None:
        require_positive("a wide ResNet", width=width)
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"depth={depth} of a wide ResNet must be 6 n + 4: 10, 16, 22, 28, 34, ...")
        super().__init__()
        trades = variant == "trades"
        self.stem = nn.Sequential(stem_convolution(shape[0], 16, stem, bias=not trades), *stem_pool(stem))
        self.stages = nn.Sequential(
            _stage(variant, depth, 16, 16 * width, 1),
            _stage(variant, depth, 16 * width, 32 * width, 2),
            _stage(variant, depth, 32 * width, 64 * width, 2),
        )
        self.norm = nn.BatchNorm2d(64 * width, momentum=0.1 if trades else 0.9)
        self.linear = nn.Linear(64 * width, num_classes)
        if trades:
            start_as_trades(self)
            nn.init.zeros_(self.linear.bias)

    def forward(self, x: Images) -> Logits:
        features = F.relu(self.norm(self.stages(self.stem(x))))
        logits: Tensor = self.linear(features.mean((2, 3)))
        return logits


def _stage(variant: Variant, depth: int, c_in: int, c_out: int, stride: int) -> nn.Sequential:
    block = TradesBlock if variant == "trades" else ValIiscBlock
    further = (depth - 4) // 6 - 1
    return nn.Sequential(block(c_in, c_out, stride), *(block(c_out, c_out, 1) for _ in range(further)))


def start_as_trades(net: nn.Module) -> None:
    """Draw a net's convolutions from N(0, 2 / (k^2 c_out))."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            rows, columns = layer.kernel_size
            nn.init.normal_(layer.weight, std=math.sqrt(2 / (rows * columns * layer.out_channels)))

"""Pre-activation ResNet-18 (arXiv:1603.05027) in the form that the single-step papers train on small images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from toughen.core.types import Images, Logits
from toughen.models.parts import Shape, Stem, require_positive, stem_convolution, stem_pool


class PreActBlock(nn.Module):
    """Batch norm and ReLU come before each 3x3 convolution; the first one strides.

    The shortcut is an identity, or a 1x1 convolution of the block's input as it came, before batch norm and ReLU.
    """

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.BatchNorm2d(c_in), nn.ReLU(), nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(c_out), nn.ReLU(), nn.Conv2d(c_out, c_out, 3, padding=1, bias=False),
        )  # fmt: skip
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Conv2d(c_in, c_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.residual(x) + self.shortcut(x)
        return out


class PreActResNet18(nn.Module):
    """Pre-activation ResNet-18 of FBF (arXiv:2001.03994) and of robust overfitting (arXiv:2002.11569).

    Any image size works: the last map is averaged whole. Torch's initialisation.

    Args:
        num_classes: number of outputs.
        shape: one image's [c, h, w].
        width: channels of the first stage; the others have 2, 4 and 8 times as many.
        stem: "cifar" 3x3, or "imagenet" 7x7 and a pool, which divide each side by 4.

    Raises:
        ValueError: width is below 1.
    """

    def __init__(self, num_classes: int, shape: Shape, *, width: int = 64, stem: Stem = "cifar") -> None:
        require_positive("preact-resnet18", width=width)
        super().__init__()
        self.stem = nn.Sequential(stem_convolution(shape[0], width, stem), *stem_pool(stem))
        self.blocks = nn.Sequential(
            PreActBlock(width, width, 1), PreActBlock(width, width, 1),
            PreActBlock(width, 2 * width, 2), PreActBlock(2 * width, 2 * width, 1),
            PreActBlock(2 * width, 4 * width, 2), PreActBlock(4 * width, 4 * width, 1),
            PreActBlock(4 * width, 8 * width, 2), PreActBlock(8 * width, 8 * width, 1),
        )  # fmt: skip
        self.norm = nn.BatchNorm2d(8 * width)
        self.linear = nn.Linear(8 * width, num_classes)

    def forward(self, x: Images) -> Logits:
        features = F.relu(self.norm(self.blocks(self.stem(x))))
        logits: Tensor = self.linear(features.mean((2, 3)))
        return logits

"""Random resized crops, as in ImageNet training: a random part of the image, resized to one size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from toughen.core.rng import derive_seed
from toughen.data.decode import Box

TRIES = 10  # attempts to draw a part that fits into the image
AREA = (0.08, 1.0)  # of the part, relative to the image
RATIO = (3 / 4, 4 / 3)  # of width to height


@dataclass(frozen=True)
class ResizedCrop:
    """torchvision's ``RandomResizedCrop`` with its defaults, drawn for an image by (seed, epoch, index)."""

    seed: int
    epoch: int
    index: int

    def __call__(self, width: int, height: int) -> Box:
        """The part of an image of this size, in pixels."""
        generator = torch.Generator().manual_seed(derive_seed("resized crop", self.seed, self.epoch, self.index))
        return box(width, height, torch.rand(TRIES, 4, generator=generator, dtype=torch.float64).tolist())


def box(width: int, height: int, draws: list[list[float]]) -> Box:
    """The first drawn part that fits; if none fits, the largest centre crop with an allowed ratio.

    Args:
        width, height: the image's, in pixels.
        draws: for each attempt four numbers in [0, 1): for area, ratio (uniform in its logarithm), left and top.
    """
    for area, ratio, left, top in draws:
        pixels = width * height * (AREA[0] + area * (AREA[1] - AREA[0]))
        shape = math.exp(math.log(RATIO[0]) + ratio * (math.log(RATIO[1]) - math.log(RATIO[0])))
        w, h = round(math.sqrt(pixels * shape)), round(math.sqrt(pixels / shape))
        if 0 < w <= width and 0 < h <= height:
            x, y = int(left * (width - w + 1)), int(top * (height - h + 1))
            return x, y, x + w, y + h
    shape = min(max(width / height, RATIO[0]), RATIO[1])
    w, h = min(width, round(height * shape)), min(height, round(width / shape))
    x, y = (width - w) // 2, (height - h) // 2
    return x, y, x + w, y + h

"""Random crops and flips of a whole batch at once, on the batch's device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from toughen.core.rng import Noise
from toughen.core.types import Images, Mask


@dataclass(frozen=True, kw_only=True)
class Augment:
    """A random crop, then a random flip, drawn independently for each image.

    Args:
        pad: pixels of padding on each side before the crop, so that the content moves by at most as many; 0: no crop.
        padding: the padding's content: "zero" black, "reflect" the image mirrored at its edge pixel.
        flip: flip left to right with probability one half.

    Raises:
        ValueError: ``pad`` is negative, ``padding`` unknown.
    """

    pad: int = 0
    padding: Literal["zero", "reflect"] = "zero"
    flip: bool = False

    def __post_init__(self) -> None:
        if self.pad < 0:
            raise ValueError(f"pad {self.pad} must be 0 or more pixels")
        if self.padding not in ("zero", "reflect"):
            raise ValueError(f'padding {self.padding!r} is unknown: use "zero" or "reflect"')

    def __call__(self, images: Images, noise: Noise | None) -> tuple[Images, Tensor, Mask]:
        """Augmented images, with the shift and the flip of each, as ``Batch`` takes them.

        Returns:
            the images, [n, c, h, w]; the shift, int64 [n, 2], rows down and columns right; the flip, bool [n].

        Raises:
            ValueError: as ``check``.
        """
        noise = noise or Noise()
        count, _, height, width = images.shape
        self.check(height, width)
        like = images.new_empty((count, 1, 1, 1), dtype=torch.float32)
        shift = torch.zeros(count, 2, dtype=torch.int64, device=images.device)
        flip = torch.zeros(count, dtype=torch.bool, device=images.device)
        if self.pad:
            shift = torch.stack([self._shift(like, noise), self._shift(like, noise)], dim=1)
        if self.flip:
            flip = noise.uniform(like).flatten() < 0
        return (self._move(images, shift, flip) if self.pad or self.flip else images), shift, flip

    def check(self, height: int, width: int) -> None:
        """Check that images of this size can be augmented with these settings.

        Raises:
            ValueError: ``pad`` is more than the height or the width; with reflection, it is not less.
        """
        side = min(height, width)
        if self.padding == "reflect" and self.pad >= side:
            raise ValueError(
                f"padding by reflection must be below the image's {side} pixels, not {self.pad}: lower --crop, or use "
                "--padding zero"
            )
        if self.pad > side:
            raise ValueError(
                f"crop {self.pad} exceeds the image's {side} pixels, so a crop could contain only padding: lower --crop"
            )

    def _shift(self, like: Tensor, noise: Noise) -> Tensor:
        """Whole pixels, uniform over -pad..pad, one per image."""
        share = noise.uniform(like).flatten().add(1).div(2)
        return share.mul(2 * self.pad + 1).floor().long() - self.pad

    def _move(self, images: Images, shift: Tensor, flip: Mask) -> Images:
        """Every image shifted, then flipped where ``flip`` is true, by one gather from the padded batch."""
        height, width = images.shape[2:]
        padded = F.pad(images, [self.pad] * 4, mode="constant" if self.padding == "zero" else "reflect")
        column = torch.arange(width, device=images.device)
        columns = torch.where(flip[:, None], width - 1 - column, column) + self.pad - shift[:, 1:]
        rows = torch.arange(height, device=images.device) + self.pad - shift[:, :1]
        places = (rows[:, :, None] * padded.shape[3] + columns[:, None, :]).flatten(1)
        moved = padded.flatten(2).gather(2, places[:, None].expand(-1, images.shape[1], -1))
        return moved.view(images.shape)

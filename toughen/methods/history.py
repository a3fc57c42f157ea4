"""Maps state kept per image between the coordinates of the stored image and of its cropped and flipped view."""

from __future__ import annotations

import torch

from toughen.core.types import Batch, Images


def to_view(history: Images, batch: Batch | None) -> Images:
    """From the data set's coordinates to the batch's: shifted, then mirrored, zero where the crop shows padding."""
    return _moved(history, batch, back=False)


def to_image(perturbation: Images, batch: Batch | None) -> Images:
    """From the batch's coordinates to the data set's, the way back: zero where the crop did not show the image.

    Of ones it gives the mask of what was seen.
    """
    return _moved(perturbation, batch, back=True)


def _moved(values: Images, batch: Batch | None, *, back: bool) -> Images:
    """Invert or apply the shift and flip of ``Augment``; a batch without both changes nothing."""
    if batch is None or (batch.shift is None and batch.flip is None):
        return values
    n, _, height, width = values.shape
    row, column = (torch.arange(size, device=values.device).expand(n, size) for size in (height, width))
    sign = 1 if back else -1
    if batch.flip is not None and not back:
        column = torch.where(batch.flip[:, None], width - 1 - column, column)
    if batch.shift is not None:
        row, column = row + sign * batch.shift[:, :1], column + sign * batch.shift[:, 1:]
    if batch.flip is not None and back:
        column = torch.where(batch.flip[:, None], width - 1 - column, column)
    inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None, :]
    places = (row.clamp(0, height - 1)[:, :, None] * width + column.clamp(0, width - 1)[:, None, :]).flatten(1)
    moved = values.flatten(2).gather(2, places[:, None].expand(-1, values.shape[1], -1)).view(values.shape)
    return moved * inside[:, None]

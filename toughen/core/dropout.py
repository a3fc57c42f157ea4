"""Dropout with the same mask for pairs of rows in a batch, so that their outputs differ by the images alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_DROPOUTS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d)


class SharedDropout(TorchFunctionMode):
    """Within the block, the last ``pairs`` rows of a batch get the dropout masks of the ``pairs`` rows before them.

    All other rows draw their own masks from torch's generator. Inputs with another number of rows are not changed, and
    neither are other kinds of noise, such as alpha dropout.

    Args:
        rows: images in the batch.
        pairs: the number of pairs; their second rows are the last rows of the batch.
    """

    def __init__(self, rows: int, pairs: int) -> None:
        super().__init__()
        self.rows, self.pairs = rows, pairs

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DROPOUTS:
            return self._drop(func, *args, **kwargs)
        return func(*args, **kwargs)

    def _drop(
        self, func: Callable[..., Any], x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Any:
        if not training or not self.pairs or len(x) != self.rows:
            return func(x, p, training, inplace)
        mask = func(torch.ones_like(x[: -self.pairs]), p)
        return x * torch.cat([mask, mask[-self.pairs :]])

"""A layer's receptive field: which outputs depend on a window of its input, and which inputs an output depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch.nn.functional as F
from torch import Tensor

from toughen.core.window import Window


@dataclass(frozen=True)
class ReceptiveField:
    """A layer's receptive field, each setting for (rows, columns); pixels beyond the map have ``padding_value``."""

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    padding_value: float = 0.0

    @cached_property
    def extent(self) -> tuple[int, int]:
        """Rows and columns from the first to the last input of an output."""
        return (self.kernel[0] - 1) * self.dilation[0], (self.kernel[1] - 1) * self.dilation[1]

    @property
    def pointwise(self) -> bool:
        """Whether an output depends on the input at its own place alone."""
        return self.extent == (0, 0) and self.stride == (1, 1) and self.padding == (0, 0)

    def max_outputs(self, sides: tuple[int, int]) -> tuple[int, int]:
        """How many rows and columns of outputs can depend on a window of these sides."""
        down, across = (
            (side - 1 + extent) // stride + 1
            for side, extent, stride in zip(sides, self.extent, self.stride, strict=True)
        )
        return down, across

    def affected_outputs(self, window: Window, size: Sequence[int]) -> Window:
        """The outputs that depend on the window, in a map of this size; an empty window where the stride skips it."""
        if window.empty:
            return window
        ends: list[int] = []
        for axis in (0, 1):
            first, last = window[2 * axis], window[2 * axis + 1] - 1
            low = max(0, -((self.extent[axis] - first - self.padding[axis]) // self.stride[axis]))
            high = min(size[axis], (last + self.padding[axis]) // self.stride[axis] + 1)
            ends += [min(low, high), high]
        return Window(*ends)

    def needed_inputs(self, window: Window) -> Window:
        """The inputs that a window of outputs depends on; it may reach beyond the map."""
        ends: list[int] = []
        for axis in (0, 1):
            first, last = window[2 * axis], window[2 * axis + 1] - 1
            start, stride = -self.padding[axis], self.stride[axis]
            ends += [start + first * stride, start + last * stride + self.extent[axis] + 1]
        return Window(*ends)

    def crop_inputs(self, maps: Tensor, outputs: Window) -> Tensor:
        """The inputs, [n, c, rows, columns], that these outputs depend on, padded where they reach beyond the map."""
        top, bottom, left, right = self.needed_inputs(outputs)
        h, w = maps.shape[2:]
        inside = Window(max(top, 0), min(bottom, h), max(left, 0), min(right, w)).of(maps)
        beyond = (max(-left, 0), max(right - w, 0), max(-top, 0), max(bottom - h, 0))
        return F.pad(inside, beyond, value=self.padding_value) if any(beyond) else inside

"""How far a layer looks: which outputs see a window of its input, and which inputs these see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch.nn.functional as F
from torch import Tensor

from toughen.core.window import Window


@dataclass(frozen=True)
class ReceptiveField:
    """How far a layer looks, along rows and along columns; pixels outside of a map count as ``outside``."""

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    outside: float = 0.0

    @cached_property
    def tail(self) -> tuple[int, int]:
        """How many rows and columns further than its first input an output looks."""
        return (self.kernel[0] - 1) * self.dilation[0], (self.kernel[1] - 1) * self.dilation[1]

    @property
    def pointwise(self) -> bool:
        """Whether an output sees the input of its own place alone."""
        return self.tail == (0, 0) and self.stride == (1, 1) and self.padding == (0, 0)

    def most(self, sides: tuple[int, int]) -> tuple[int, int]:
        """How many rows and columns of outputs a window of these sides can touch."""
        down, across = (
            (side - 1 + tail) // stride + 1 for side, tail, stride in zip(sides, self.tail, self.stride, strict=True)
        )
        return down, across

    def touched(self, window: Window, size: Sequence[int]) -> Window:
        """The outputs, of a map of this size, that see some of the window; none, where strides step over it."""
        if window.empty:
            return window
        ends: list[int] = []
        for axis in (0, 1):
            first, last = window[2 * axis], window[2 * axis + 1] - 1
            low = max(0, -((self.tail[axis] - first - self.padding[axis]) // self.stride[axis]))
            high = min(size[axis], (last + self.padding[axis]) // self.stride[axis] + 1)
            ends += [min(low, high), high]
        return Window(*ends)

    def seen(self, window: Window) -> Window:
        """The inputs that these outputs see; some may lie outside of the map."""
        ends: list[int] = []
        for axis in (0, 1):
            first, last = window[2 * axis], window[2 * axis + 1] - 1
            start, stride = -self.padding[axis], self.stride[axis]
            ends += [start + first * stride, start + last * stride + self.tail[axis] + 1]
        return Window(*ends)

    def cut(self, maps: Tensor, outputs: Window) -> Tensor:
        """The inputs that these outputs see, with what lies outside of the map put beside it."""
        top, bottom, left, right = self.seen(outputs)
        h, w = maps.shape[2:]
        inside = Window(max(top, 0), min(bottom, h), max(left, 0), min(right, w)).of(maps)
        beyond = (max(-left, 0), max(right - w, 0), max(-top, 0), max(bottom - h, 0))
        return F.pad(inside, beyond, value=self.outside) if any(beyond) else inside

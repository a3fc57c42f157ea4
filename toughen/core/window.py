"""A rectangle of pixels."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Window(NamedTuple):
    """A rectangle of pixels: rows ``top`` to ``bottom``, columns ``left`` to ``right``, ends not included."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def empty(self) -> bool:
        """Whether it contains no pixel."""
        return self.top >= self.bottom or self.left >= self.right

    def of(self, maps: Tensor) -> Tensor:
        """A view of these pixels in each map, [n, c, rows, columns], of maps [n, c, h, w]."""
        return maps[:, :, self.top : self.bottom, self.left : self.right]

    def union(self, other: Window) -> Window:
        """The smallest window that contains both."""
        if self.empty or other.empty:
            return other if self.empty else self
        (top, bottom, left, right), (above, below, west, east) = self, other
        return Window(min(top, above), max(bottom, below), min(left, west), max(right, east))

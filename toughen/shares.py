"""What a share of images says: as text, and of the images that were not looked at."""

from __future__ import annotations

import math


def percent(share: float) -> str:
    """A share, 0..1, as it stands in tables and sentences."""
    return f"{100 * share:.1f} %"


def interval(accuracy: float, n: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy measured on ``n`` sampled images (Wilson, 1927)."""
    z = 1.959963984540054
    middle = (accuracy + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(accuracy * (1 - accuracy) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)

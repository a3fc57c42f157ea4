"""What the checks may cost: a time, measured once and turned into passes, so that the clock decides nothing after."""

from __future__ import annotations

import time

from toughen.core.gradients import input_gradient, mode
from toughen.core.objectives import cross_entropy
from toughen.core.types import Images, Labels
from toughen.engine.fixed_batch import FixedBatchModel

LEAST = 20.0  # seconds that the checks of a cheap verdict may always take
AIM = 0.9  # of the time, that is filled: one measurement of a pass is not the pass
EXACT = 1.25  # a forward of the model itself, in blocks of 8 at most, against one in the attacks' blocks
DOUBLE = 12.0  # one in float64, on a processor
QUERY = 1.25  # one of Square, with what finding out which places a window reaches costs


def passes_within(blocks: FixedBatchModel, x: Images, y: Labels, seconds: float) -> int:
    """How many forwards of one image a time has room for, a gradient being as long as a forward.

    Args:
        blocks: the model as the checks ask it.
        x, y: a few images, to measure a pass with; fewer than a block are filled up.
        seconds: the time.
    """
    with mode(blocks, "eval"):
        for _ in range(2):  # the first one chooses kernels
            started = time.perf_counter()
            float(input_gradient(blocks, x[: blocks.size], y[: blocks.size], cross_entropy).value.sum())
            took = time.perf_counter() - started
    return int(AIM * seconds / (took / (2 * blocks.size)))


def allowed_seconds(attacks: float) -> float:
    """How long the checks of a cheap verdict may take after attacks of so many seconds."""
    return max(attacks, LEAST)

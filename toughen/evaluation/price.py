"""The budget of the checks: a time, turned into forward passes once, so that results don't depend on the clock."""

from __future__ import annotations

import time
from statistics import fmean

from toughen.core.gradients import input_gradient, mode
from toughen.core.objectives import cross_entropy
from toughen.core.types import Images, Labels
from toughen.engine.fixed_batch import FixedBatchModel

LEAST = 20.0  # seconds that the checks of a cheap verdict may always take
AIM = 0.9  # the share of the time that is planned for, since the measured passes are only a sample
CALLS, SECONDS = 20, 0.5  # how long passes are timed: where other programs share the cores, they differ tenfold
EXACT = 1.25  # a forward pass in float32, in blocks of at most 8, against one in the attacks' blocks
DOUBLE = 12.0  # one in float64 on a CPU
QUERY = 1.25  # one of Square, including the work that finds which outputs a window reaches


def passes_within(model: FixedBatchModel, x: Images, y: Labels, seconds: float) -> int:
    """How many forward passes of one image fit into a time; a gradient counts as one more.

    Args:
        model: the model as the checks run it.
        x, y: a few images to time; fewer than a block are filled up.
        seconds: the time.
    """
    taken: list[float] = []
    with mode(model, "eval"):
        while len(taken) <= CALLS and sum(taken[1:]) < SECONDS:
            started = time.perf_counter()
            float(input_gradient(model, x[: model.size], y[: model.size], cross_entropy).value.sum())
            taken.append(time.perf_counter() - started)
    return int(AIM * seconds * 2 * model.size / fmean(taken[1:]))  # the first one warms up


def allowed_seconds(attacks: float) -> float:
    """How long the checks of a cheap verdict may take after attacks of so many seconds."""
    return max(attacks, LEAST)

"""The budget of the checks: a time is converted to forward passes once, so that results don't depend on the clock."""

from __future__ import annotations

import time
from statistics import fmean

from toughen.core.gradients import input_gradient, mode
from toughen.core.objectives import cross_entropy
from toughen.core.types import Images, Labels
from toughen.engine.fixed_batch import FixedBatchModel

LEAST = 20.0  # seconds that the checks of a cheap verdict may always take
AIM = 0.9  # the share of the time that is planned for, because the timed passes are only a sample
CALLS, SECONDS = 20, 0.5  # limits of the timing: passes differ by a factor of ten if other programs use the cores
# costs per image, as multiples of a forward pass in the attacks' batches:
EXACT = 1.25  # a forward pass in float32, in batches of at most 8
DOUBLE = 12.0  # a forward pass in float64 on a CPU
QUERY = 1.25  # a query of Square, including the search for the outputs that a window changes


def passes_within(model: FixedBatchModel, x: Images, y: Labels, seconds: float) -> int:
    """How many forward passes of one image fit into a time. A pass with a gradient counts as two.

    Args:
        model: the model as the checks run it.
        x, y: images and classes to time it with; at most one batch is used.
        seconds: the time.
    """
    times: list[float] = []
    with mode(model, "eval"):
        while len(times) <= CALLS and sum(times[1:]) < SECONDS:
            started = time.perf_counter()
            float(input_gradient(model, x[: model.size], y[: model.size], cross_entropy).value.sum())
            times.append(time.perf_counter() - started)
    return int(AIM * seconds * 2 * model.size / fmean(times[1:]))  # without the first, a warm-up


def allowed_seconds(attacks: float) -> float:
    """How many seconds the checks of a cheap verdict may take, given the seconds of the attacks."""
    return max(attacks, LEAST)

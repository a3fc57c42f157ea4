"""Writes a run's state to its directory, as long as it is finite."""

from __future__ import annotations

import math
from dataclasses import replace

from toughen import runs
from toughen.core.distributed import world
from toughen.runs.files import finite
from toughen.training import checkpoint
from toughen.training.training_state import TrainingState


class Diverged(RuntimeError):
    """The loss or the weights are no longer finite."""


def check_finite(state: TrainingState, loss: float | None = None) -> None:
    """Check that loss and weights are finite.

    Args:
        state: the run; synchronises with its device.
        loss: the epoch's; None means the sum so far.

    Raises:
        Diverged: they are not.
    """
    loss = float(state.totals.sums.get("loss", 0.0)) if loss is None else loss
    lost, broken = world().any(not math.isfinite(loss), not finite(state.model.state_dict()))
    if lost:
        raise Diverged("the loss became " + (str(loss) if not math.isfinite(loss) else "NaN or infinite"))
    if broken:
        raise Diverged("a weight is no longer finite")


def save(state: TrainingState) -> None:
    """Write a checkpoint, if loss and weights are finite."""
    check_finite(state)
    state.spent = state.total_spent
    checkpoint.save(state)
    if state.healthy == state.step:
        world().on_main(checkpoint.keep, state.folder, checkpoint.HEALTHY)
    world().barrier()


def write_model(state: TrainingState, epoch: int, validation: dict[str, float]) -> None:
    """Write the weights to keep, with their validation accuracies."""
    record = replace(state.record, epoch=epoch, validation=validation)
    world().on_main(runs.write_model, state.folder, record, state.kept_model)

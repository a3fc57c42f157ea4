"""Writes a run's state to its directory and reads it back."""

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
    write_checkpoint(state)
    if state.healthy == state.step:
        world().on_main(checkpoint.keep, state.folder, checkpoint.HEALTHY)
    world().barrier()


def write_checkpoint(state: TrainingState, name: str = checkpoint.NAME) -> None:
    """Gather the per-process state, and write the checkpoint in the main process."""
    state.distributed_step.sync_image_buffers()
    totals = world().all_gather(state.totals.plain())
    own = world().all_gather_tensors(checkpoint.own_state(state.modules))
    world().on_main(checkpoint.check_names, state.modules, state.kept_names)
    world().on_main(
        checkpoint.save,
        state.folder,
        state,
        state.modules,
        state.optimizer,
        name,
        callbacks=state.callbacks,
        totals=totals,
        own=own,
    )


def write_model(state: TrainingState, epoch: int, validation: dict[str, float]) -> None:
    """Write the weights to keep, with their validation accuracies."""
    record = replace(state.record, epoch=epoch, validation=validation)
    world().on_main(runs.write_model, state.folder, record, state.kept_model)


def go_back(state: TrainingState) -> None:
    """Return to the last healthy state.

    Raises:
        ValueError: its file is gone or damaged.
    """
    checkpoint.go_back(state.folder, state.modules, state.optimizer)
    state.distributed_step.forget_images()


def resume(state: TrainingState) -> bool:
    """Load the run directory's checkpoint; False where there is none yet."""
    parts = (state.modules, state.optimizer, state.callbacks, state.device)
    with world().main_first():  # it sets a damaged file aside
        restarted = checkpoint.load(state.folder, state, *parts)
    if restarted is None:
        return False
    state.restarted, state.spent_before = restarted, state.spent
    return True

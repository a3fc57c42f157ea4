"""A trainer's state into its run directory and back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from toughen.core import distributed
from toughen.runs.files import finite
from toughen.training import checkpoint

if TYPE_CHECKING:
    from toughen.training.trainer import Trainer


class Diverged(RuntimeError):
    """The loss or the weights are no longer finite."""


def check_finite(trainer: Trainer) -> None:
    """See that training is still about numbers.

    Raises:
        Diverged: it isn't.
    """
    loss = float(trainer.state.tally.totals.get("loss", 0.0))
    lost, broken = distributed.any_of(not math.isfinite(loss), not finite(trainer.model.state_dict()))
    if lost:
        raise Diverged("the loss became " + (str(loss) if not math.isfinite(loss) else "NaN or infinite"))
    if broken:
        raise Diverged("a weight is no longer finite")


def save(trainer: Trainer, *, healthy: bool = False) -> None:
    """Write a checkpoint, unless its weights would be useless; a healthy one is kept to go back to."""
    check_finite(trainer)
    if healthy:
        trainer.state.healthy = trainer.state.step
    trainer.state.spent = trainer.spent
    write_checkpoint(trainer)
    if healthy and distributed.is_main_process():
        checkpoint.keep(trainer.folder, checkpoint.HEALTHY)
    distributed.barrier()


def write_checkpoint(trainer: Trainer, name: str = checkpoint.NAME) -> None:
    """Collect what each process has of its own, and write it with the rest."""
    trainer.together.bring_memories_together()
    tallies = distributed.gather(trainer.state.tally.plain())
    own = distributed.gather_tensors(checkpoint.own_state(trainer.modules)) if distributed.count() > 1 else []
    if distributed.is_main_process():
        checkpoint.check_names(trainer.modules, trainer.state_names)
        checkpoint.save(
            trainer.folder, trainer.state, trainer.modules, trainer.optimizer, name, tallies=tallies, own=own
        )


def go_back(trainer: Trainer) -> None:
    """Return to the last healthy state.

    Raises:
        ValueError: its file is gone or damaged.
    """
    checkpoint.go_back(trainer.folder, trainer.modules, trainer.optimizer)
    trainer.together.touched = None


def resume(trainer: Trainer) -> bool:
    """Continue where the run directory's checkpoint stands; False where there is none yet."""
    with distributed.first_before_others():  # it sets a damaged file aside
        found = checkpoint.load(trainer.folder, trainer.modules, trainer.optimizer, trainer.device)
    if found is None:
        return False
    trainer.state, trainer.started_anew = found
    trainer.spent_before = trainer.state.spent
    return True

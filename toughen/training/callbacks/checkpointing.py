"""Writes checkpoints and the weights of the moments that ``keep_at`` names."""

from __future__ import annotations

import time
from typing import Any

from toughen import runs
from toughen.core.distributed import world
from toughen.core.types import Step
from toughen.data.feed import Unreadable
from toughen.runs.files import finite
from toughen.training import checkpoint
from toughen.training.callbacks.base import Callback
from toughen.training.divergence import Diverged, check_finite
from toughen.training.training_state import TrainingState
from toughen.utils.signals import Stopped


class Checkpointing(Callback):
    """Writes checkpoints, and metrics.jsonl after each epoch's checkpoint.

    At intervals, after each epoch, and when a signal or an unreadable image ends the session.

    Args:
        seconds: between two checkpoints inside an epoch.
    """

    def __init__(self, seconds: float | int) -> None:
        self.seconds, self.saved, self.step = seconds, 0.0, -1

    def on_epoch_start(self, state: TrainingState) -> None:
        self.saved = time.perf_counter()

    def due(self, state: TrainingState) -> bool:
        return time.perf_counter() - self.saved >= self.seconds

    def on_due(self, state: TrainingState) -> None:
        state.count_seconds()
        self._save(state)

    def on_epoch_end(self, state: TrainingState, metrics: dict[str, Any]) -> None:
        self._save(state)
        world().on_main(runs.write_history, state.folder, state.history)

    def on_exception(self, state: TrainingState, error: BaseException) -> None:
        alone = not world().is_distributed  # after an error other than a signal, processes may be at different steps
        if self.step != state.step and (isinstance(error, Stopped) or isinstance(error, Unreadable) and alone):
            self.on_due(state)
        if isinstance(error, Diverged) and alone and state.step and finite(state.model.state_dict()):
            checkpoint.keep_weights(state, state.step)  # the last finite ones

    def _save(self, state: TrainingState) -> None:
        self.saved = time.perf_counter()
        check_finite(state)
        state.spent = state.total_spent
        checkpoint.save(state)
        if state.healthy == state.step:
            world().on_main(checkpoint.keep, state.folder, checkpoint.HEALTHY)
        world().barrier()
        self.step = state.step


class KeepWeights(Callback):
    """Writes the live weights of chosen steps and epochs to the run's folder "kept"."""

    def on_step_end(self, state: TrainingState, step: Step) -> None:
        self._keep(state, state.step)

    def on_epoch_end(self, state: TrainingState, metrics: dict[str, Any]) -> None:
        self._keep(state, f"epoch {metrics['epoch']}")

    def _keep(self, state: TrainingState, moment: int | str) -> None:
        if moment in state.recipe.keep_at:
            world().on_main(checkpoint.keep_weights, state, moment)

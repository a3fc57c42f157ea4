"""Keeps the weights of the moments that ``keep_at`` names."""

from __future__ import annotations

from typing import Any

from toughen.core.distributed import world
from toughen.core.types import Step
from toughen.training import checkpoint
from toughen.training.callbacks.base import Callback
from toughen.training.training_state import TrainingState


class KeepWeights(Callback):
    """Writes the live weights of chosen steps and epochs to the run's folder "kept"."""

    def on_step_end(self, state: TrainingState, step: Step) -> None:
        self._keep(state, state.step)

    def on_epoch_end(self, state: TrainingState, metrics: dict[str, Any]) -> None:
        self._keep(state, f"epoch {metrics['epoch']}")

    def _keep(self, state: TrainingState, moment: int | str) -> None:
        if moment in state.recipe.keep_at:
            world().on_main(checkpoint.keep_weights, state, moment)

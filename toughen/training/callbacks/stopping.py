"""Ends a run: where its loss or weights are no longer finite, and where its method wants no more."""

from __future__ import annotations

from typing import Any

from toughen.core.types import Step
from toughen.training.callbacks.base import Callback, check_metrics
from toughen.training.divergence import check_finite
from toughen.training.training_state import TrainingState

EVERY = 50  # steps between looks at the loss; each look waits for the device


class FiniteCheck(Callback):
    """Looks at loss and weights every 50 steps and as epochs end, and raises ``Diverged``."""

    def on_step_end(self, state: TrainingState, step: Step) -> None:
        if state.step % EVERY == 0:
            check_finite(state)

    def on_epoch_end(self, state: TrainingState, metrics: dict[str, Any]) -> None:
        check_finite(state, metrics["loss"])


class EarlyStop(Callback):
    """Tells the method of an epoch's figures, and ends the run where it then has a ``stop_reason``."""

    def on_epoch_end(self, state: TrainingState, metrics: dict[str, Any]) -> None:
        state.method.after_epoch(metrics)
        if state.method is not state.main:
            state.main.missed_epoch(metrics)
        check_metrics(metrics, state.method)
        if state.main.stop_reason:
            state.stop(state.main.stop_reason)

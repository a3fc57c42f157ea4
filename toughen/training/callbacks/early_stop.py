"""Tells the method of an epoch's figures, and ends the run where the method wants no more."""

from __future__ import annotations

from typing import Any

from toughen.training.callbacks.base import Callback
from toughen.training.training_state import TrainingState


class EarlyStop(Callback):
    """Calls the method's ``after_epoch``, and takes its ``stop_reason`` over."""

    def on_epoch_end(self, state: TrainingState, metrics: dict[str, Any]) -> None:
        state.method.after_epoch(metrics)
        if state.main.stop_reason:
            state.stop(state.main.stop_reason)

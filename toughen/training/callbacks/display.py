"""Shows how far a run is: the progress line, a line an epoch, and TensorBoard."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from toughen.core.distributed import world
from toughen.core.types import Step
from toughen.training.callbacks.base import Callback
from toughen.training.callbacks.finite import EVERY
from toughen.training.display import Display, Show
from toughen.training.training_state import TrainingState


class ShowProgress(Callback):
    """Tells a display what happens; the main process alone has one.

    Args:
        console: where to show it.
        show: makes the display; None means ``Display``.
    """

    def __init__(self, console: Console, show: Show | None = None) -> None:
        self.console, self.show = console, show or Display
        self.display: Display | None = None

    def on_fit_start(self, state: TrainingState) -> None:
        place = (state.folder, state.epochs, state.last_step, state.step)
        self.display = world().on_main(self.show, self.console, *place)

    def on_step_end(self, state: TrainingState, step: Step) -> None:
        if self.display is None:
            return
        self.display.step(state.step, (state.step - 1) // state.steps_per_epoch)
        if state.step % EVERY == 0:
            self.display.loss(state.step, float(step.loss.detach()))
        if "logit_distance" in state.scalars:
            self.display.signal(state.step, state.scalars["logit_distance"])

    def on_epoch_end(self, state: TrainingState, metrics: dict[str, Any]) -> None:
        if self.display is not None:
            self.display.epoch(metrics)
            self.display.length(state.epochs, state.last_step)

    def on_fit_end(self, state: TrainingState) -> None:
        if self.display is not None:
            self.display.close()

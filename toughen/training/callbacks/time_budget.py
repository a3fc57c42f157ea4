"""Keeps a run within its time budget: the number of remaining steps is updated during the run."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from toughen.core.distributed import world
from toughen.engine.device import synchronize
from toughen.training.callbacks.base import Callback
from toughen.training.training_state import TrainingState

SHARE = 0.04  # of the budget between two checks within an epoch
MUCH = 1.1  # factor by which the needed time may differ from the time left before the steps are planned anew
AIM = 0.97  # share of the budget that is filled: what comes after the last step takes time too


class TimeBudget(Callback):
    """Plans the rest of the run anew as epochs end, and within one whose steps have become much slower or faster.

    This holds for faster steps, too: a run of few epochs, whose steps were timed while another program was busy, would
    otherwise find time left when its learning rate is almost 0.

    Args:
        budget: the time, in seconds.

    Attributes:
        validation_seconds: as measured before the first step; None where it was not.
    """

    def __init__(self, budget: float | int) -> None:
        self.budget = budget
        self.validation_seconds: float | None = None
        self.timer = StepTimer(0)

    def on_epoch_start(self, state: TrainingState) -> None:
        self.timer = StepTimer(state.step)

    def due(self, state: TrainingState) -> bool:
        return self.timer.passed >= SHARE * self.budget

    def on_due(self, state: TrainingState) -> None:
        synchronize(state.device)  # until the steps that are counted are done
        step_seconds, left = self.timer.read(state.step), AIM * self.budget - state.total_spent
        epoch_end = last_validation(state.history) if state.history else self.validation_seconds or 0.0
        ends = math.ceil(state.planned / state.steps_per_epoch) - state.step // state.steps_per_epoch
        needed = (state.planned - state.step) * step_seconds + ends * epoch_end / state.recipe.validation_every
        known = bool(state.history) or self.validation_seconds is not None
        if world().broadcast(needed > MUCH * left or (known and MUCH * needed < left)):
            replan(state, self.budget, step_seconds, epoch_end)

    def on_epoch_end(self, state: TrainingState, metrics: dict[str, Any]) -> None:
        step_seconds = metrics["seconds_per_step"] * (1 + metrics["watch_seconds"] / metrics["seconds"])
        taken = time.perf_counter() - state.started  # since the last step
        replan(state, self.budget, step_seconds, taken if metrics["validation"] else last_validation(state.history))


class StepTimer:
    """Times steps: a method may become much slower within an epoch (Delayed).

    Args:
        step: where the run stands.
    """

    def __init__(self, step: int) -> None:
        self.step, self.began = step, time.perf_counter()

    @property
    def passed(self) -> float:
        """Seconds since the last reading."""
        return time.perf_counter() - self.began

    def read(self, step: int) -> float:
        """Seconds per step since the last reading."""
        taken = self.passed / max(1, step - self.step)
        self.step, self.began = step, time.perf_counter()
        return taken


def replan(state: TrainingState, budget: float, step_seconds: float, validation_seconds: float) -> None:
    """Set the number of remaining steps, and so the rest of the schedule, to what still fits.

    Args:
        state: where the run stands.
        budget: seconds of the whole run.
        step_seconds, validation_seconds: current time of a step and of a validation.
    """
    if state.step >= state.planned:
        return
    left = AIM * budget - state.total_spent
    state.warmed, state.warmed_at = state.eps_scale, state.adversarial_steps
    state.planned_at, state.planned_progress = state.step, state.progress(state.step)
    steps = steps_that_fit(state, left, step_seconds, validation_seconds)
    state.planned = state.step + max(1, world().broadcast(steps))
    for method in (state.main, *state.rescuers):
        method.start(state.plan)


def steps_that_fit(state: TrainingState, left: float, step: float, validation: float) -> int:
    """How many steps, with the validation that follows some epochs and the last one, fit into the seconds left."""
    per_epoch, every = state.steps_per_epoch, state.recipe.validation_every
    epoch_end, left = validation / every, left - validation * (1 - 1 / every)
    epochs = math.floor(max(0.0, left) / (per_epoch * step + epoch_end))
    rest = left - epochs * (per_epoch * step + epoch_end) - epoch_end
    return epochs * per_epoch + max(0, math.floor(rest / step))


def last_validation(history: Sequence[Mapping[str, Any]]) -> float:
    """Seconds that validation took where it last followed an epoch; 0 where it never did."""
    return next((float(line["validation_seconds"]) for line in reversed(history) if line["validation"]), 0.0)

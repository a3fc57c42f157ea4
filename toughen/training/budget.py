"""A run that ends within a time: how many steps fit is measured before the first, and again as the run goes on."""

from __future__ import annotations

import copy
import math
import time
from itertools import islice
from typing import TYPE_CHECKING

from toughen import ranks
from toughen.device import wait
from toughen.duration import seconds, spell
from toughen.types import Plan

if TYPE_CHECKING:
    from toughen.training.trainer import Trainer

WARM_STEPS, FEWEST_STEPS, SHARE = 3, 6, 0.04  # how long steps are tried: at least so many, up to a share of the budget
MUCH = 1.1  # so many times the time that is left is too long to wait for the epoch's end
AIM = 0.97  # share of the budget that is filled: what comes after the last step takes time too


def lay(trainer: Trainer) -> None:
    """Lay the schedule over as many steps as fit into the budget, counted from when the trainer was made.

    Raises:
        ValueError: not one epoch fits.
    """
    budget = seconds(str(trainer.recipe.time_budget))
    step, epoch_end = _tried(trainer, budget)
    steps = ranks.agreed(_fitting(trainer, AIM * budget - trainer.spent, step, epoch_end))
    if steps < trainer.steps_per_epoch:
        needed = (trainer.spent + trainer.steps_per_epoch * step + epoch_end) / AIM
        raise ValueError(
            f"--time-budget {trainer.recipe.time_budget} is too short: an epoch of {trainer.steps_per_epoch} steps "
            f"takes {spell(step * trainer.steps_per_epoch)} here; give at least {spell(1.05 * needed)}"
        )
    trainer.state.planned = steps


def revise(trainer: Trainer, step_seconds: float, epoch_end: float) -> None:
    """Lay the rest of the schedule over the steps that still fit.

    Args:
        trainer: its state says where the run stands.
        step_seconds: what a step took lately.
        epoch_end: what came after its last step.
    """
    state = trainer.state
    if state.step >= state.planned:
        return
    left = AIM * seconds(str(trainer.recipe.time_budget)) - trainer.spent
    state.laid_at, state.laid_progress = state.step, trainer.progress(state.step)
    state.planned = state.step + max(1, ranks.agreed(_fitting(trainer, left, step_seconds, epoch_end)))


class Pace:
    """How fast the steps of an epoch go, looked at within it: a method may become much dearer there (Delayed).

    Args:
        trainer: the run, at the epoch's beginning or where it goes on within one.
        now: seconds there.
    """

    def __init__(self, trainer: Trainer, now: float) -> None:
        budget = trainer.recipe.time_budget
        self.trainer, self.looked, self.step = trainer, now, trainer.state.step
        self.budget = math.inf if budget is None else seconds(budget)

    def due(self, now: float) -> bool:
        """Whether a share of the budget has gone by since the last look."""
        return now - self.looked >= SHARE * self.budget

    def look(self, now: float) -> None:
        """Lay the rest anew where at this pace it would take much longer than is left."""
        state, per_epoch = self.trainer.state, self.trainer.steps_per_epoch
        step_seconds = (now - self.looked) / max(1, state.step - self.step)
        self.looked, self.step = now, state.step
        epoch_end = state.history[-1]["validation_seconds"] if state.history else 0.0
        ends = math.ceil(state.planned / per_epoch) - state.step // per_epoch
        needed = (state.planned - state.step) * step_seconds + ends * epoch_end
        if ranks.agreed(needed > MUCH * (AIM * self.budget - self.trainer.spent)):
            revise(self.trainer, step_seconds, epoch_end)


def _fitting(trainer: Trainer, left: float, step: float, epoch_end: float) -> int:
    """How many steps, with what comes at the end of each epoch, fit into the seconds that are left."""
    per_epoch = trainer.steps_per_epoch
    epochs = math.floor(max(0.0, left) / (per_epoch * step + epoch_end))
    rest = left - epochs * (per_epoch * step + epoch_end) - epoch_end
    return epochs * per_epoch + max(0, math.floor(rest / step))


def _tried(trainer: Trainer, budget: float) -> tuple[float, float]:
    """Seconds of a step and of an epoch's end, tried on a copy that is then forgotten."""
    data = {id(part): part for part in (trainer.train, trainer.feed, trainer.validation, trainer.watch)}
    other = copy.deepcopy(trainer, data)
    plan = Plan(epochs=1, steps=other.steps_per_epoch, images=len(other.train), first_drop=None)
    other.method.start(plan)
    other.together.begin(other.image)
    other.model.train()
    taken: list[float] = []
    for x, y, batch in islice(other.epoch_batches(0), other.steps_per_epoch):
        started = time.perf_counter()
        other.add_up(other.step(x, y, batch), y)
        wait(other.device)
        other.state.step += 1
        taken.append(time.perf_counter() - started)
        if len(taken) >= WARM_STEPS + FEWEST_STEPS and ranks.agreed(sum(taken)) >= SHARE * budget:
            break
    started = time.perf_counter()
    other.validation(other.kept_model)
    if other.watch.on and other.average is not None:
        other.validation(other.model)
    steps = taken[WARM_STEPS:] or taken
    return sum(steps) / len(steps), time.perf_counter() - started

"""A run that ends within a time: how many steps fit is measured before the first, and again as the run goes on."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from toughen.core import distributed
from toughen.core.cost import PassCounter
from toughen.core.types import Plan
from toughen.engine.device import wait
from toughen.utils.duration import seconds, spell

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
    step, look, _ = tried(trainer, SHARE * budget)
    steps = distributed.broadcast(_fitting(trainer, AIM * budget - trainer.spent, step, look))
    if steps < trainer.steps_per_epoch:
        needed = (trainer.spent + trainer.steps_per_epoch * step + look) / AIM
        raise ValueError(
            f"--time-budget {trainer.recipe.time_budget} is too short: an epoch of {trainer.steps_per_epoch} steps "
            f"takes {spell(step * trainer.steps_per_epoch)} here; give at least {spell(1.05 * needed)}"
        )
    trainer.state.planned = steps


def revise(trainer: Trainer, step_seconds: float, look: float) -> None:
    """Lay the rest of the schedule over the steps that still fit.

    Args:
        trainer: its state says where the run stands.
        step_seconds: what a step took lately.
        look: what a validation took lately.
    """
    state = trainer.state
    if state.step >= state.planned:
        return
    left = AIM * seconds(str(trainer.recipe.time_budget)) - trainer.spent
    state.laid_at, state.laid_progress = state.step, trainer.progress(state.step)
    state.planned = state.step + max(1, distributed.broadcast(_fitting(trainer, left, step_seconds, look)))


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
        epoch_end = last_look(state.history)
        ends = math.ceil(state.planned / per_epoch) - state.step // per_epoch
        every = self.trainer.recipe.validation_every
        needed = (state.planned - state.step) * step_seconds + ends * epoch_end / every
        if distributed.broadcast(needed > MUCH * (AIM * self.budget - self.trainer.spent)):
            revise(self.trainer, step_seconds, epoch_end)


def last_look(history: Sequence[Mapping[str, Any]]) -> float:
    """Seconds that validation took where it last followed an epoch; 0 where it never did."""
    return next((float(line["validation_seconds"]) for line in reversed(history) if line["validation"]), 0.0)


def _fitting(trainer: Trainer, left: float, step: float, look: float) -> int:
    """How many steps, with the validation that follows some epochs and the last one, fit into the seconds left."""
    per_epoch = trainer.steps_per_epoch
    epoch_end, left = look / trainer.recipe.validation_every, left - look * (1 - 1 / trainer.recipe.validation_every)
    epochs = math.floor(max(0.0, left) / (per_epoch * step + epoch_end))
    rest = left - epochs * (per_epoch * step + epoch_end) - epoch_end
    return epochs * per_epoch + max(0, math.floor(rest / step))


class Tried(NamedTuple):
    """What steps on a copy took: seconds of a step and of a validation, and forward passes an image and step."""

    step: float
    look: float
    passes: float


def tried(trainer: Trainer, enough: float) -> Tried:
    """Try some steps, and what comes at an epoch's end, on a copy that is then forgotten.

    Args:
        trainer: the run, before its first step.
        enough: seconds after which no further step is tried, once a few are done.
    """
    data = {id(part): part for part in (trainer.train, trainer.feed, trainer.validation, trainer.watch)}
    other = copy.deepcopy(trainer, data)
    plan = Plan(epochs=1, steps=other.steps_per_epoch, images=len(other.train), first_drop=None)
    other.method.start(plan)
    other.together.begin(other.image)
    other.model.train()
    taken: list[float] = []
    for x, y, batch in islice(other.epoch_batches(0), other.steps_per_epoch):
        started = time.perf_counter()
        with PassCounter(other.model, other.method.companions(), other.image, other.costs) as passes:
            step = other.step(x, y, batch)
        other.add_up(step, y, passes)
        wait(other.device)
        other.state.step += 1
        taken.append(time.perf_counter() - started)
        if len(taken) >= WARM_STEPS + FEWEST_STEPS and distributed.broadcast(sum(taken)) >= enough:
            break
    started = time.perf_counter()
    other.validation(other.kept_model)
    if other.watch.on and other.average is not None:
        other.validation(other.model)
    steps = taken[WARM_STEPS:] or taken
    ended = time.perf_counter() - started
    return Tried(sum(steps) / len(steps), ended, other.state.tally.passes / other.state.tally.images)

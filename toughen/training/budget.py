"""A run that ends within a time: how many steps fit is measured before the first."""

from __future__ import annotations

import copy
import time
from itertools import islice
from typing import NamedTuple

from toughen.core.distributed import world
from toughen.core.types import Plan
from toughen.engine.device import synchronize
from toughen.training.callbacks.time_budget import AIM, SHARE, TimeBudget, fitting
from toughen.training.trainer import Trainer
from toughen.utils.duration import seconds, spell

WARM_STEPS, FEWEST_STEPS = 3, 6  # how long steps are tried: at least so many, up to a share of the budget
MOST = 2.5  # times that share, after which no more than one step beyond the first ones is tried


def plan_steps(trainer: Trainer) -> None:
    """Lay the schedule over as many steps as fit into the budget, counted from when the trainer was made.

    Raises:
        ValueError: not one epoch fits.
    """
    state, budget = trainer.state, seconds(str(trainer.recipe.time_budget))
    step, validation, _ = tried(trainer, SHARE * budget)
    steps = world().broadcast(fitting(state, AIM * budget - state.total_spent, step, validation))
    if steps < state.steps_per_epoch:
        needed = (state.total_spent + state.steps_per_epoch * step + validation) / AIM
        raise ValueError(
            f"--time-budget {trainer.recipe.time_budget} is too short: an epoch of {state.steps_per_epoch} steps "
            f"takes {spell(step * state.steps_per_epoch)} here; give at least {spell(1.05 * needed)}"
        )
    state.planned = steps
    for callback in trainer.callbacks:
        if isinstance(callback, TimeBudget):
            callback.validation_seconds = validation


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
    shared = (trainer.train, trainer.feed, trainer.detector, trainer.state.validation, *trainer.callbacks)
    other = copy.deepcopy(trainer, {id(part): part for part in shared})
    state = other.state
    plan = Plan(epochs=1, steps=state.steps_per_epoch, images=state.images, first_drop=None)
    state.main.start(plan)
    state.distributed_step.begin(other.image)
    other.train_mode()
    taken: list[float] = []
    for x, y, batch in islice(other.epoch_batches(0), state.steps_per_epoch):
        started = time.perf_counter()
        other.counted_step(x, y, batch)
        synchronize(state.device)
        taken.append(time.perf_counter() - started)
        if len(taken) <= WARM_STEPS:
            continue
        if world().broadcast(sum(taken)) >= (enough if len(taken) >= WARM_STEPS + FEWEST_STEPS else MOST * enough):
            break
    started = time.perf_counter()
    state.validation(state.kept_model)
    if trainer.detector.on and state.average is not None:
        state.validation(state.model)
    steps = taken[WARM_STEPS:] or taken
    ended = time.perf_counter() - started
    return Tried(sum(steps) / len(steps), ended, state.totals.passes / max(1, state.totals.images))

"""Time budgets: before its first step, measure how many steps of a run fit into the given time."""

from __future__ import annotations

import copy
import time
from itertools import islice
from typing import NamedTuple

from toughen.core.distributed import world
from toughen.core.types import Plan
from toughen.engine.device import synchronize
from toughen.training.callbacks.time_budget import AIM, SHARE, TimeBudget, steps_that_fit
from toughen.training.trainer import Trainer
from toughen.utils.units import format_duration

WARM_STEPS, FEWEST_STEPS = 3, 6  # steps for warm-up, and timed steps at least; timing takes a share of the budget
MOST = 2.5  # times that share: a longer measurement ends after fewer steps


def plan_steps(trainer: Trainer) -> None:
    """Set the number of steps, and so the schedule, to what fits into the budget, counted from the trainer's creation.

    Raises:
        ValueError: not one epoch fits.
    """
    state = trainer.state
    callback = next(each for each in trainer.callbacks if isinstance(each, TimeBudget))
    step, validation, _ = measure(trainer, SHARE * callback.budget)
    steps = world().broadcast(steps_that_fit(state, AIM * callback.budget - state.total_spent, step, validation))
    if steps < state.steps_per_epoch:
        needed = (state.total_spent + state.steps_per_epoch * step + validation) / AIM
        raise ValueError(
            f"--time-budget {trainer.recipe.time_budget} is too short: an epoch of {state.steps_per_epoch} steps "
            f"takes {format_duration(step * state.steps_per_epoch)} here; give at least "
            f"{format_duration(1.05 * needed)}"
        )
    state.planned, callback.validation_seconds = steps, validation


class StepCost(NamedTuple):
    """What steps cost.

    Attributes:
        step, validation: seconds of a step and of a validation.
        passes: forward passes per image and step.
    """

    step: float
    validation: float
    passes: float


def measure(trainer: Trainer, enough: float) -> StepCost:
    """Time some steps and a validation on a copy of the trainer, which is then dropped.

    Args:
        trainer: the run, before its first step.
        enough: seconds after which the measurement ends, if enough steps are timed.
    """
    shared = [trainer.train, trainer.feed, trainer.detector, trainer.state.validation, *trainer.callbacks]
    if trainer.transform is not None:
        try:
            copy.deepcopy(trainer.transform.function)
        except Exception:  # it may hold a lock or an open file, and then has to be shared, too
            shared.append(trainer.transform.function)
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
    return StepCost(sum(steps) / len(steps), ended, state.totals.passes / max(1, state.totals.images))

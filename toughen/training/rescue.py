"""What the watch sets off: a look within the epoch, and the way back from a collapse."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from toughen.core import distributed
from toughen.engine.device import wait
from toughen.training import saving
from toughen.training.display import Display
from toughen.utils.statistics import percent

if TYPE_CHECKING:
    from toughen.methods.base import Method
    from toughen.training.trainer import Trainer

HALF, EPOCHS = 0.5, 8  # so much of the run, and at least so long, against the threat: what does not stand yet will not
TO_THE_END = 2**53  # a step that no run reaches


def look_inside(trainer: Trainer, display: Display) -> float:
    """The watch's cheap signal within an epoch, and a real look where it jumps; the seconds that they took."""
    wait(trainer.device)  # what the look gives are numbers, so that it is over where it ends
    state, begun = trainer.state, time.perf_counter()
    distance = distributed.broadcast(trainer.watch.signal(trainer.model, state.step))
    display.signal(state.step, distance)
    if trainer.watch.jumped(state, distance) and state.step % trainer.steps_per_epoch:
        answer(trainer, trainer.validation(trainer.model))
    took = time.perf_counter() - begun
    state.watched += took
    return took


def rescuers(method: Method) -> list[Method]:
    """What trains after a collapse of this method, then what does after one of that, and so on to the last."""
    found: list[Method] = []
    following = method.rescue()
    while following is not None and repr(following) not in map(repr, found):
        found.append(following)
        following = following.rescue()
    return found


def answer(trainer: Trainer, found: dict[str, float]) -> bool:
    """Whether the live model is ill; if so it is said, and rescued where the recipe wants that.

    Args:
        trainer: the run.
        found: what validation found of its live model.
    """
    state, judge = trainer.state, trainer.watch.judge
    if judge.collapsed(state, found):
        _answer_collapse(trainer, found)
        return True
    late = state.threatened >= max(HALF * trainer.steps, EPOCHS * trainer.steps_per_epoch)
    if late and not state.never_stood and not trainer.rescued_at(state.step) and judge.never_stood(state, found):
        _answer_never_stood(trainer, found)
        return True
    return False


def _answer_collapse(trainer: Trainer, found: dict[str, float]) -> None:
    """Go back to a state that stood, and on with a rescue; after a collapse of that one with the next."""
    state = trainer.state
    state.collapses += 1
    event, text = {"event": "collapse", "step": state.step, **found}, f"collapse: {_seen(found)}"
    if trainer.rescuer is not None:
        if trainer.rescued_at(state.step - 1):
            state.rescuer = min(state.rescuer + 1, len(trainer.rescuers) - 1)
        saving.go_back(trainer)
        shortest = max(trainer.recipe.watch_epochs, trainer.recipe.validation_every)  # so that a look sees its end
        epochs = min(shortest * 2 ** (state.collapses - 1), trainer.epochs)
        until = (math.ceil(state.step / trainer.steps_per_epoch) + epochs) * trainer.steps_per_epoch
        state.rescue_until, state.signals = max(state.rescue_until, until), []
        name = type(trainer.rescuer).__name__
        more = f"{name} for {epochs} epoch{'s' * (epochs > 1)}" if not trainer.finished else "where the run ends"
        text += f"; back to the state after step {state.healthy}, {more}"
        event |= {"back_to": state.healthy, "rescue": name, "until": state.rescue_until}
    state.events.append({**event, "text": text})


def _answer_never_stood(trainer: Trainer, found: dict[str, float]) -> None:
    """Begin anew with a rescue, and on to the end: nothing stood that there would be to go back to."""
    state = trainer.state
    state.never_stood = True
    event, best = {"event": "never stood", "step": state.step, **found}, percent(state.best_pgd)
    text = f"half of the training is over and nothing stands: {_seen(found)}, PGD never left more than {best}"
    if trainer.rescuer is not None and not trainer.finished:
        saving.go_back(trainer)
        state.rescue_until, state.signals = TO_THE_END, []
        name = type(trainer.rescuer).__name__
        text += f"; back to the state after step {state.healthy}, {name} to the end"
        event |= {"back_to": state.healthy, "rescue": name, "until": state.rescue_until}
    state.events.append({**event, "text": text})


def _seen(found: dict[str, float]) -> str:
    clean, fgsm, pgd = (percent(found[name]) for name in ("clean", "fgsm", "pgd"))
    return f"FGSM leaves {fgsm}, PGD {pgd}, of clean images {clean} are right"

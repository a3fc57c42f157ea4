"""What the watch sets off: a look within the epoch, and the way back from a collapse."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from toughen import ranks
from toughen.device import wait
from toughen.shares import percent
from toughen.training import saving
from toughen.training.display import Display

if TYPE_CHECKING:
    from toughen.training.trainer import Trainer


def look_inside(trainer: Trainer, display: Display) -> float:
    """The watch's cheap signal within an epoch, and a real look where it jumps; the seconds that they took."""
    wait(trainer.device)  # what the look gives are numbers, so that it is over where it ends
    state, begun = trainer.state, time.perf_counter()
    distance = ranks.agreed(trainer.watch.signal(trainer.model, state.step))
    display.signal(state.step, distance)
    if trainer.watch.jumped(state, distance) and state.step % trainer.steps_per_epoch:
        answer_collapse(trainer, trainer.validation(trainer.model))
    took = time.perf_counter() - begun
    state.watched += took
    return took


def answer_collapse(trainer: Trainer, found: dict[str, float]) -> bool:
    """Whether the live model has collapsed; if so it is said, and rescued where the recipe wants that."""
    state = trainer.state
    if not trainer.watch.collapsed(state, found, training=trainer.method_at(state.step - 1).threatened):
        return False
    state.collapses += 1
    event = {"event": "collapse", "step": state.step, **found}
    clean, fgsm, pgd = (percent(found[name]) for name in ("clean", "fgsm", "pgd"))
    text = f"collapse: FGSM leaves {fgsm}, PGD {pgd}, of clean images {clean} are right"
    if trainer.rescuer is not None:
        epochs = trainer.recipe.watch_epochs * 2 ** (state.collapses - 1)
        saving.go_back(trainer)
        state.rescue_until = (math.ceil(state.step / trainer.steps_per_epoch) + epochs) * trainer.steps_per_epoch
        state.signals, state.blind = [], False
        name = type(trainer.rescuer).__name__
        more = f"{name} for {epochs} epoch{'s' * (epochs > 1)}" if not trainer.finished else "where the run ends"
        text += f"; back to the state after step {state.healthy}, {more}"
        event |= {"back_to": state.healthy, "rescue": name, "until": state.rescue_until}
    state.events.append({**event, "text": text})
    return True

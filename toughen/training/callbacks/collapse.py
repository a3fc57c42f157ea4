"""Watches for a collapse of the model, and rescues it where the recipe wants that."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from typing import Any

from toughen.core.distributed import world
from toughen.core.types import Step
from toughen.engine.device import synchronize
from toughen.methods.base import Method
from toughen.training import checkpoint
from toughen.training.callbacks.base import Callback
from toughen.training.collapse import CollapseDetector, CollapseMemory
from toughen.training.training_state import TrainingState
from toughen.utils.statistics import percent

HALF, EPOCHS = 0.5, 8  # share of the run, and epochs at least, after which a model must be robust
TO_THE_END = 2**53  # as a step: no run reaches it


class CollapseWatch(Callback):
    """Checks the model every ``log_every`` steps and after validations, and goes back to a healthy state.

    It begins with the first step that trains against the threat model. While a method such as Delayed trains on clean
    images, a model may be robust at a small eps, and the first adversarial epochs would look like a collapse. The state
    at the end of that phase is the first one to go back to.

    Args:
        detector: says when to validate within an epoch, and judges what is found.
    """

    def __init__(self, detector: CollapseDetector) -> None:
        self.detector, self.memory = detector, CollapseMemory()

    def on_fit_start(self, state: TrainingState) -> None:
        if self._rescued(state):
            state.method = self._rescuer(state)
        if state.rescuers and state.healthy < 0:
            state.healthy = state.step  # before any: the beginning
            checkpoint.save(state, checkpoint.HEALTHY)

    def on_step_end(self, state: TrainingState, step: Step) -> None:
        if state.step % state.recipe.log_every:
            return
        synchronize(state.device)  # so that the time of earlier kernels is not counted as the check's
        begun = time.perf_counter()
        distance = world().broadcast(self.detector.signal(state.model, state.step))
        state.scalars["logit_distance"] = distance
        begun_to_attack = state.adversarial_steps > 0
        if begun_to_attack and self.detector.jumped(self.memory, distance) and state.step % state.steps_per_epoch:
            self.handle(state, state.validation(state.model))
        taken = time.perf_counter() - begun
        state.watched, state.started = state.watched + taken, state.started + taken

    def on_epoch_end(self, state: TrainingState, metrics: dict[str, Any]) -> None:
        begun = time.perf_counter()
        if not state.adversarial_steps:
            if state.rescuers and state.main.is_adversarial:  # from the next step on
                state.healthy = state.step
        elif metrics["validation"]:
            live = metrics["validation"] if state.average is None else state.validation(state.model)
            collapsed = self.handle(state, live)
            if collapsed and state.rescuers and state.recipe.weights == "last":  # over those that the rescue gave up
                checkpoint.write_model(state, metrics["epoch"], state.validation(state.kept_model))
            if not collapsed and state.rescuers and self.detector.criterion.is_restorable(self.memory, live):
                state.healthy = state.step
        if not self._rescued(state):
            state.method = state.main
        metrics["validation_seconds"] = round(metrics["validation_seconds"] + time.perf_counter() - begun, 3)

    def handle(self, state: TrainingState, accuracies: dict[str, float]) -> bool:
        """Whether the live model collapsed or was never robust; if so, report it, and rescue it if the recipe says so.

        Args:
            state: the run.
            accuracies: of its live model on the held-out images.
        """
        criterion, memory = self.detector.criterion, self.memory
        if criterion.collapsed(memory, accuracies):
            self._handle_collapse(state, accuracies)
            return True
        late = state.adversarial_steps >= max(HALF * state.steps, EPOCHS * state.steps_per_epoch)
        if (
            late
            and not memory.reported_never_robust
            and not self._rescued(state)
            and criterion.never_robust(memory, accuracies)
        ):
            self._handle_never_robust(state, accuracies)
            return True
        return False

    def state_dict(self) -> dict[str, Any]:
        return asdict(self.memory)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.memory = CollapseMemory.of(state)

    def _handle_collapse(self, state: TrainingState, accuracies: dict[str, float]) -> None:
        """Go back to a healthy state and train with a rescue method; after a collapse of that one, with the next."""
        memory = self.memory
        memory.collapses += 1
        more, text = dict[str, Any](), f"collapse: {_seen(accuracies)}"
        if state.rescuers:
            if state.method is not state.main:
                memory.rescuer = min(memory.rescuer + 1, len(state.rescuers) - 1)
            shortest = max(state.recipe.watch_epochs, state.recipe.validation_every)  # to validate its end
            epochs = min(shortest * 2 ** (memory.collapses - 1), state.epochs)
            until = (math.ceil(state.step / state.steps_per_epoch) + epochs) * state.steps_per_epoch
            more = self._go_back(state, max(memory.rescue_until, until))
            what = f"{more['rescue']} for {epochs} epoch{'s' * (epochs > 1)}"
            text += f"; back to step {state.healthy}, "
            text += "where the run ends" if state.finished else f"then {what}"
        state.note("collapse", text, **accuracies, **more)

    def _handle_never_robust(self, state: TrainingState, accuracies: dict[str, float]) -> None:
        """Go back to the beginning, as no state was robust, and train with a rescue method to the end."""
        self.memory.reported_never_robust = True
        more, best = dict[str, Any](), percent(self.memory.best_pgd)
        text = f"half of the training is over and the model is not robust: {_seen(accuracies)}; best under PGD {best}"
        if state.rescuers and not state.finished:
            more = self._go_back(state, TO_THE_END)
            text += f"; back to step {state.healthy}, then {more['rescue']} to the end"
        state.note("never robust", text, **accuracies, **more)

    def _go_back(self, state: TrainingState, until: int) -> dict[str, Any]:
        """Return to the last healthy state and train with the rescue up to a step; returns the event's fields."""
        checkpoint.go_back(state)
        self.memory.rescue_until, self.memory.signals = until, []
        state.method = self._rescuer(state)
        return {"back_to": state.healthy, "rescue": type(state.method).__name__, "until": until}

    def _rescued(self, state: TrainingState) -> bool:
        """Whether a rescue trains the next step."""
        return bool(state.rescuers) and state.step < self.memory.rescue_until

    def _rescuer(self, state: TrainingState) -> Method:
        """The rescue method to use: the next one after a collapse of one of them."""
        return state.rescuers[min(self.memory.rescuer, len(state.rescuers) - 1)]


def _seen(accuracies: dict[str, float]) -> str:
    clean, fgsm, pgd = (percent(accuracies[name]) for name in ("clean", "fgsm", "pgd"))
    return f"accuracy {fgsm} under FGSM, {pgd} under PGD, {clean} on clean images"

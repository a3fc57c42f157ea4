"""Measures the weights as epochs end, and keeps the best, or the last."""

from __future__ import annotations

import math
import time
from typing import Any

from toughen.training.callbacks.base import Callback
from toughen.training.checkpoint import write_model
from toughen.training.training_state import TrainingState
from toughen.utils.type_hints import first_mismatch


class BestWeights(Callback):
    """Fills in "validation", "kept" and "validation_seconds", and writes the weights that are to be kept.

    Attributes:
        best: the best validation score so far, and the clean accuracy that breaks ties.
    """

    def __init__(self) -> None:
        self.best = (-1.0, -1.0)

    def on_epoch_end(self, state: TrainingState, metrics: dict[str, Any]) -> None:
        started = time.perf_counter()
        metrics["kept"] = state.recipe.weights == "last" or state.recipe.validation == 0
        if metrics["epoch"] % state.recipe.validation_every == 0 or state.finished:
            accuracies = metrics["validation"] = state.validation(state.kept_model)
            metrics["kept"] |= score(accuracies) > self.best or not accuracies
            if metrics["kept"]:
                self.best = score(accuracies)
        metrics["validation_seconds"] = round(time.perf_counter() - started, 3)
        if metrics["kept"]:
            write_model(state, metrics["epoch"], metrics["validation"])

    def state_dict(self) -> dict[str, Any]:
        return {"best": list(self.best)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if first_mismatch(state, {"best": tuple[float, float]}):
            raise ValueError("the best validation score is not what toughen writes there")
        self.best = (state["best"][0], state["best"][1])


class ValidationAfterStop(Callback):
    """Validates the last epoch where the method or a callback ended the run in an epoch without validation.

    Args:
        best: the callback that validates; it was called before the run was ended.
    """

    def __init__(self, best: BestWeights) -> None:
        self.validate = best.on_epoch_end

    def on_epoch_end(self, state: TrainingState, metrics: dict[str, Any]) -> None:
        if state.finished and not metrics["validation"] and state.recipe.validation != 0:
            self.validate(state, metrics)


def score(accuracies: dict[str, float]) -> tuple[float, float]:
    """The key that ranks weights: PGD accuracy, then clean accuracy; infinite without validation images."""
    if not accuracies:
        return (math.inf, math.inf)
    return (accuracies.get("pgd", accuracies["clean"]), accuracies["clean"])

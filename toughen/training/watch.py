"""The watch over a run: whether the model has collapsed, and what is done about it.

Single-step training can lose all robustness within an epoch, while accuracy under the single step that it trains on
rises (catastrophic overfitting). What is seen of it: accuracy under FGSM stays or rises, accuracy under PGD falls.
And any training can lose everything within an epoch, where its rate is too high: clean accuracy falls, too.
"""

from __future__ import annotations

import statistics
from typing import Literal, TypeAlias

from torch import nn

from toughen.data import Split
from toughen.data.sets import stratified
from toughen.evaluation.harness import as_floats, dtype_of
from toughen.evaluation.logit_distance import logit_distance
from toughen.noise import StepNoise, key
from toughen.threat import Threat
from toughen.training.state import State

Watching: TypeAlias = Literal["off", "warn", "rescue"]

FALLEN = 0.2  # FGSM above PGD by so much, and PGD below half of its best: fallen
SLIGHT = 0.05  # so much is enough where PGD is below half of FGSM, too: at a large eps neither stands high
BLIND = 0.15  # FGSM above PGD by so much, and PGD below a third of FGSM, twice running and not rising: never stood
RISING = 0.02  # by so much at least
STOOD = 0.15  # accuracy under PGD from which a model counts as having stood: above the chance of ten classes
JUMP = 3.0  # the logits' distance against the median of the last ones: time for a look within the epoch
KEPT, LEAST = 20, 5  # how many distances make that median
SAMPLE = 64  # images that the distance is taken on


class Watch:
    """Judges what validation finds; its memory lies in the run's ``State``.

    Args:
        split: held-out images, on the run's device.
        threat: what is trained against, None for nothing.
        mode: "off", "warn" or "rescue".
        seed: the run's, for the noise of the signal.
    """

    def __init__(self, split: Split, threat: Threat | None, mode: Watching, seed: int) -> None:
        self.threat, self.mode, self.seed = threat, mode, seed
        places = stratified(split.labels, min(SAMPLE, len(split)), seed)  # held-out images lie class by class
        self.split = split.take(places.to(split.labels.device))

    @property
    def on(self) -> bool:
        """Whether there is something to watch, images to do it with, and the wish."""
        return self.mode != "off" and self.threat is not None and len(self.split) > 0

    def signal(self, model: nn.Module, step: int) -> float:
        """The mean L2 distance of FGSM and R-FGSM logits, which jumps when a model begins to collapse (R-MGM)."""
        assert self.threat is not None
        noise = StepNoise(key("signal", self.seed), step)
        x = as_floats(self.split.images).to(dtype_of(model))
        return float(logit_distance(model, x, self.split.labels, self.threat, noise))

    def jumped(self, state: State, distance: float) -> bool:
        """Whether a signal calls for a look at once; keeps it for the next ones."""
        before = state.signals[-KEPT:]
        state.signals = [*before, distance]
        return len(before) >= LEAST and distance > JUMP * statistics.median(before)

    def collapsed(self, state: State, found: dict[str, float], *, training: bool) -> bool:
        """Whether a model with these accuracies has collapsed; keeps what the next look needs.

        Args:
            state: the run's memory.
            found: accuracy "clean", and under "fgsm" and "pgd".
            training: whether the model is being trained against its threat in full now, so that it should stand.
        """
        fgsm, pgd = found["fgsm"], found["pgd"]
        apart = fgsm - pgd > (SLIGHT if pgd < fgsm / 2 else FALLEN)
        lost = found["clean"] < state.best_clean / 2
        fell = state.best_pgd >= STOOD and pgd < state.best_pgd / 2 and (apart or lost)
        blind = training and fgsm - pgd > BLIND and pgd < fgsm / 3
        collapsed = fell or (blind and state.blind and pgd < state.last_pgd + RISING)
        state.blind, state.last_pgd = blind, pgd
        state.best_pgd, state.best_clean = max(state.best_pgd, pgd), max(state.best_clean, found["clean"])
        return collapsed

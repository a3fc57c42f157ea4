"""Detects a collapse: a model that was robust and no longer is.

Single-step training can lose all robustness within an epoch, while accuracy under the single step that it trains on
rises (catastrophic overfitting). On held-out images, accuracy under PGD then falls far below the best of this run, and
accuracy under FGSM does not. Any training can also collapse where its learning rate is too high: the net then predicts
the same class for nearly every image, and clean accuracy falls to chance, too.

A low accuracy under PGD alone is no collapse. A run begins there, many methods stay there while their weights ramp up,
and a wide gap between FGSM and PGD comes before robustness as well as after it: NuAT on 3,600 digits left FGSM 30.5 %
and PGD 3.0 % in its sixth epoch, and PGD 86 % in the end. So nothing is called a collapse before the model was robust.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_type_hints

from torch import nn

from toughen.core.modules import dtype_of
from toughen.core.rng import StepNoise, derive_seed
from toughen.core.threat import Threat
from toughen.core.types import Labels
from toughen.data import Split
from toughen.data.sets import stratified
from toughen.evaluation.harness import as_floats
from toughen.evaluation.logit_distance import logit_distance
from toughen.methods.base import Method
from toughen.utils.type_hints import first_mismatch

Watching: TypeAlias = Literal["off", "warn", "rescue"]

JUMP = 3.0  # ratio of a logit distance to the median of the last ones, above which the model is validated at once
KEPT, LEAST = 20, 5  # distances in that median, at most and at least
SAMPLE = 64  # images that the distance is measured on
ABOVE_CHANCE = 0.05  # a model counts as robust if PGD accuracy is above chance by this
DEVIATIONS_ABOVE_CHANCE = 3.0  # and by so many standard deviations of chance accuracy, which matters with few images
FALLEN_PGD_RATIO = 0.5  # of the best PGD accuracy: below this share it has fallen; noise and dips stay above
GAP_GROWTH = 0.05  # of the gap between FGSM and PGD accuracy since the best epoch: FGSM accuracy did not fall as well
WIDE_GAP = 0.2  # a gap that is wide in any case; a smaller one is wide if FGSM accuracy is twice PGD accuracy
LOST_RATIO = 0.5  # of the best accuracy above chance: a net with less, both clean and under PGD, has collapsed
SOUND_PGD_RATIO = 0.9  # of the best PGD accuracy: a state with more is one to go back to


@dataclass
class CollapseMemory:
    """What the detector remembers of earlier validations.

    Attributes:
        signals: the latest logit distances measured within epochs.
        best_clean, best_pgd, best_gap: the best accuracies, clean and under PGD, and FGSM minus PGD accuracy at the
            latter.
        collapses: the number of collapses.
        rescue_until: the step up to which a rescue method trains.
        rescuer: its index, from 0: the number of rescue methods that collapsed themselves.
        reported_never_robust: whether the model was reported as never robust.
    """

    signals: list[float] = field(default_factory=list)
    best_clean: float = 0.0
    best_pgd: float = 0.0
    best_gap: float = 0.0
    collapses: int = 0
    rescue_until: int = 0
    rescuer: int = 0
    reported_never_robust: bool = False

    @classmethod
    def of(cls, plain: dict[str, Any]) -> CollapseMemory:
        """A memory from the fields of a file, which are checked.

        Raises:
            ValueError: they are others.
        """
        if wrong := first_mismatch(plain, get_type_hints(cls)):
            raise ValueError(f"the collapse watch's {wrong} is not what toughen writes there")
        return cls(**plain)


@dataclass(frozen=True)
class CollapseCriterion:
    """Judges the accuracies that validation measures.

    Attributes:
        chance: accuracy of a net that predicts the most frequent class for every image, which no attack changes.
        images: the number of images that accuracies are measured on.
    """

    chance: float
    images: int

    @classmethod
    def of(cls, labels: Labels) -> CollapseCriterion:
        """For held-out images with these labels; without images no model is ever robust."""
        return cls(float(labels.cpu().bincount().max()) / len(labels), len(labels)) if len(labels) else cls(1.0, 1)

    @property
    def deviation(self) -> float:
        """The standard deviation of chance accuracy."""
        return math.sqrt(self.chance * (1 - self.chance) / self.images)

    @property
    def robust_threshold(self) -> float:
        """Accuracy under PGD from which a model is robust: clearly above chance."""
        return self.chance + max(ABOVE_CHANCE, DEVIATIONS_ABOVE_CHANCE * self.deviation)

    def was_robust(self, memory: CollapseMemory) -> bool:
        """Whether the run has ever been clearly above chance under PGD."""
        return memory.best_pgd >= self.robust_threshold

    def collapsed(self, memory: CollapseMemory, accuracies: dict[str, float]) -> bool:
        """Whether a robust model no longer is; remembers the best.

        Args:
            memory: of earlier validations.
            accuracies: accuracy "clean", and under "fgsm" and "pgd".
        """
        clean, pgd, gap = accuracies["clean"], accuracies["pgd"], accuracies["fgsm"] - accuracies["pgd"]
        overfitted = gap > memory.best_gap + GAP_GROWTH and gap > min(WIDE_GAP, pgd)
        below_best = pgd < FALLEN_PGD_RATIO * memory.best_pgd and overfitted
        lost = self._lost(clean, memory.best_clean) and self._lost(pgd, memory.best_pgd)
        collapsed = self.was_robust(memory) and (below_best or lost)
        if pgd > memory.best_pgd:
            memory.best_pgd, memory.best_gap = pgd, gap
        memory.best_clean = max(memory.best_clean, clean)
        return collapsed

    def never_robust(self, memory: CollapseMemory, accuracies: dict[str, float]) -> bool:
        """Whether it was never robust and overfits to FGSM: its PGD accuracy is below that of a constant prediction."""
        pgd, gap = accuracies["pgd"], accuracies["fgsm"] - accuracies["pgd"]
        return not self.was_robust(memory) and pgd < self.chance and gap > max(GAP_GROWTH, min(WIDE_GAP, pgd))

    def is_restorable(self, memory: CollapseMemory, accuracies: dict[str, float]) -> bool:
        """Whether a state that has these accuracies is one to go back to: robust, near the best.

        Before the model was robust that is the beginning alone: weights that overfit to single steps, twenty epochs of
        FGSM's, fell to nothing under two-step PGD, and new ones rose to 33 % (FBF's net, Fashion-MNIST, eps 0.3).
        """
        return self.was_robust(memory) and accuracies["pgd"] >= SOUND_PGD_RATIO * memory.best_pgd

    def _lost(self, now: float, best: float) -> bool:
        return now - self.chance < LOST_RATIO * (best - self.chance)


class CollapseDetector:
    """Decides when to validate within an epoch, and judges the result.

    Args:
        split: held-out images, on the run's device.
        threat: what is trained against, None for nothing.
        mode: "off", "warn" or "rescue".
        seed: the run's, for the noise of the signal.
    """

    def __init__(self, split: Split, threat: Threat | None, mode: Watching, seed: int) -> None:
        self.threat, self.mode, self.seed = threat, mode, seed
        self.criterion = CollapseCriterion.of(split.labels)
        places = stratified(split.labels, min(SAMPLE, len(split)), seed)  # held-out images lie class by class
        self.split = split.take(places.to(split.labels.device))

    @property
    def on(self) -> bool:
        """Whether it is switched on, the method trains against a threat, and there are held-out images."""
        return self.mode != "off" and self.threat is not None and len(self.split) > 0

    def signal(self, model: nn.Module, step: int) -> float:
        """The mean L2 distance of FGSM and R-FGSM logits, which jumps when a model begins to collapse (R-MGM)."""
        assert self.threat is not None
        noise = StepNoise(derive_seed("signal", self.seed), step)
        x = as_floats(self.split.images).to(dtype_of(model))
        return float(logit_distance(model, x, self.split.labels, self.threat, noise))

    def jumped(self, memory: CollapseMemory, distance: float) -> bool:
        """Whether a distance is so high that the model should be validated at once; stores it for later calls."""
        before = memory.signals[-KEPT:]
        memory.signals = [*before, distance]
        return len(before) >= LEAST and distance > JUMP * statistics.median(before)


def rescuers(method: Method) -> list[Method]:
    """The rescue method of this method, the rescue method of that one, and so on."""
    chain: list[Method] = []
    following = method.rescue()
    while following is not None and repr(following) not in map(repr, chain):
        chain.append(following)
        following = following.rescue()
    return chain

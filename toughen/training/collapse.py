"""What a collapse is, a model was robust and is no longer, and when to check for one.

Single-step training can lose all robustness within an epoch, while accuracy under the single step that it trains on
rises (catastrophic overfitting). What is seen of it on held-out images: accuracy under PGD falls far below the best of
this run, and accuracy under FGSM does not fall along. Any training can also lose everything where its rate is too high:
the net then gives nearly every image the same class, and clean accuracy falls to chance, too.

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

from toughen.core.rng import StepNoise, derive_seed
from toughen.core.threat import Threat
from toughen.core.types import Labels
from toughen.data import Split
from toughen.data.sets import stratified
from toughen.evaluation.harness import as_floats, dtype_of
from toughen.evaluation.logit_distance import logit_distance
from toughen.runs.json_types import first_mismatch

Watching: TypeAlias = Literal["off", "warn", "rescue"]

JUMP = 3.0  # the logits' distance against the median of the last ones: time for a look within the epoch
KEPT, LEAST = 20, 5  # how many distances make that median
SAMPLE = 64  # images that the distance is taken on
ABOVE_CHANCE = 0.05  # above chance: so robust is a model, where there are images enough to tell
DEVIATIONS_ABOVE_CHANCE = 3.0  # standard deviations of chance that it must be, where there are few
FALLEN_PGD_RATIO = 0.5  # of the best: PGD accuracy below this share of it has fallen; noise and dips stay above
GAP_GROWTH = 0.05  # between FGSM and PGD, against the gap at the best: FGSM did not fall along
WIDE_GAP = 0.2  # a gap that is wide in any case; a smaller one is where FGSM accuracy is twice PGD's
LOST_RATIO = 0.5  # of what the best had above chance: with less than that clean and under PGD a net is on its way there
SOUND_PGD_RATIO = 0.9  # of the best: a state with this share of it under PGD is one to go back to


@dataclass
class CollapseMemory:
    """What must be known of earlier validations.

    Attributes:
        signals: the latest distances of logits that were measured inside epochs.
        best_clean, best_pgd, best_gap: the best accuracies, clean and under PGD, and by how much FGSM accuracy then
            was above PGD's.
        collapses: how often the model collapsed.
        rescue_until: the step up to which a rescue method trains.
        rescuer: which of them, from 0: how often one of them collapsed itself.
        never_stood: whether it was said that the model is not robust (a key in checkpoints).
    """

    signals: list[float] = field(default_factory=list)
    best_clean: float = 0.0
    best_pgd: float = 0.0
    best_gap: float = 0.0
    collapses: int = 0
    rescue_until: int = 0
    rescuer: int = 0
    never_stood: bool = False

    @classmethod
    def of(cls, plain: dict[str, Any]) -> CollapseMemory:
        """Back from its fields, out of a file that anyone may have changed.

        Raises:
            ValueError: they are others.
        """
        if wrong := first_mismatch(plain, get_type_hints(cls)):
            raise ValueError(f"the collapse watch's {wrong} is not what toughen writes there")
        return cls(**plain)


@dataclass(frozen=True)
class Judge:
    """Judges what validation finds.

    Attributes:
        chance: accuracy of a net that gives every image the same class, which no attack changes.
        images: how many the accuracies are measured on.
    """

    chance: float
    images: int

    @classmethod
    def of(cls, labels: Labels) -> Judge:
        """For held-out images of these classes; where there are none, no model is ever robust."""
        return cls(float(labels.cpu().bincount().max()) / len(labels), len(labels)) if len(labels) else cls(1.0, 1)

    @property
    def clear(self) -> float:
        """Accuracy under PGD from which a model is robust: clearly above chance."""
        deviation = math.sqrt(self.chance * (1 - self.chance) / self.images)
        return self.chance + max(ABOVE_CHANCE, DEVIATIONS_ABOVE_CHANCE * deviation)

    def was_robust(self, memory: CollapseMemory) -> bool:
        """Whether the run has ever been clearly above chance under PGD."""
        return memory.best_pgd >= self.clear

    def collapsed(self, memory: CollapseMemory, accuracies: dict[str, float]) -> bool:
        """Whether a robust model no longer is; remembers the best.

        Args:
            memory: of earlier validations.
            accuracies: accuracy "clean", and under "fgsm" and "pgd".
        """
        clean, pgd, gap = accuracies["clean"], accuracies["pgd"], accuracies["fgsm"] - accuracies["pgd"]
        overfitted = gap > memory.best_gap + GAP_GROWTH and gap > min(WIDE_GAP, pgd)
        fell = pgd < FALLEN_PGD_RATIO * memory.best_pgd and overfitted
        lost = self._lost(clean, memory.best_clean) and self._lost(pgd, memory.best_pgd)
        collapsed = self.was_robust(memory) and (fell or lost)
        if pgd > memory.best_pgd:
            memory.best_pgd, memory.best_gap = pgd, gap
        memory.best_clean = max(memory.best_clean, clean)
        return collapsed

    def never_robust(self, memory: CollapseMemory, accuracies: dict[str, float]) -> bool:
        """Whether it was never robust, and overfits to FGSM: under PGD any constant answer is more accurate."""
        pgd, gap = accuracies["pgd"], accuracies["fgsm"] - accuracies["pgd"]
        return not self.was_robust(memory) and pgd < self.chance and gap > max(GAP_GROWTH, min(WIDE_GAP, pgd))

    def sound(self, memory: CollapseMemory, accuracies: dict[str, float]) -> bool:
        """Whether a state that has these accuracies is one to go back to: robust, near the best.

        Before the model was robust that is the beginning alone: weights that overfit to single steps, twenty epochs of
        FGSM's, fell to nothing under two-step PGD, and new ones rose to 33 % (FBF's net, Fashion-MNIST, eps 0.3).
        """
        return self.was_robust(memory) and accuracies["pgd"] >= SOUND_PGD_RATIO * memory.best_pgd

    def _lost(self, now: float, best: float) -> bool:
        return now - self.chance < LOST_RATIO * (best - self.chance)


class CollapseDetector:
    """Notices what calls for a validation, and judges what validation finds.

    Args:
        split: held-out images, on the run's device.
        threat: what is trained against, None for nothing.
        mode: "off", "warn" or "rescue".
        seed: the run's, for the noise of the signal.
    """

    def __init__(self, split: Split, threat: Threat | None, mode: Watching, seed: int) -> None:
        self.threat, self.mode, self.seed = threat, mode, seed
        self.judge = Judge.of(split.labels)
        places = stratified(split.labels, min(SAMPLE, len(split)), seed)  # held-out images lie class by class
        self.split = split.take(places.to(split.labels.device))

    @property
    def on(self) -> bool:
        """Whether there is something to watch, images to do it with, and the wish."""
        return self.mode != "off" and self.threat is not None and len(self.split) > 0

    def signal(self, model: nn.Module, step: int) -> float:
        """The mean L2 distance of FGSM and R-FGSM logits, which jumps when a model begins to collapse (R-MGM)."""
        assert self.threat is not None
        noise = StepNoise(derive_seed("signal", self.seed), step)
        x = as_floats(self.split.images).to(dtype_of(model))
        return float(logit_distance(model, x, self.split.labels, self.threat, noise))

    def jumped(self, memory: CollapseMemory, distance: float) -> bool:
        """Whether a signal calls for a validation at once; keeps it for the next ones."""
        before = memory.signals[-KEPT:]
        memory.signals = [*before, distance]
        return len(before) >= LEAST and distance > JUMP * statistics.median(before)

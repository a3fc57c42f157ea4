"""What a collapse is: something stood, and it fell.

Single-step training can lose all robustness within an epoch, while accuracy under the single step that it trains on
rises (catastrophic overfitting). What is seen of it on held-out images: accuracy under PGD falls far below the best of
this run, and accuracy under FGSM does not fall along. Any training can also lose everything where its rate is too high:
the net then gives nearly every image the same class, and clean accuracy falls to chance, too.

A low accuracy under PGD alone is no collapse. A run begins there, many methods stay there while their weights ramp up,
and a wide gap between FGSM and PGD comes before robustness as well as after it: NuAT on 3,600 digits left FGSM 30.5 %
and PGD 3.0 % in its sixth epoch, and PGD 86 % in the end. So nothing is called a collapse before something stood.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from toughen.core.types import Labels
from toughen.training.state import State

CLEAR = 0.05  # above chance: so much stands, where there are images enough to tell
DEVIATIONS = 3.0  # standard deviations of chance that it must be, where there are few
FALLEN = 0.5  # of the best: PGD accuracy below this share of it has fallen; noise and dips stay above
WIDER = 0.05  # between FGSM and PGD, against the gap at the best: FGSM did not fall along
APART = 0.2  # a gap that is wide in any case; a smaller one is where FGSM stands at twice PGD
LOST = 0.5  # of what the best had above chance: with less than that clean and under PGD a net is on its way there
SOUND = 0.9  # of the best: a state with this share of it under PGD is one to go back to


@dataclass(frozen=True)
class Judge:
    """Judges what validation finds; what it must know of earlier looks lies in the run's ``State``.

    Attributes:
        chance: accuracy of a net that gives every image the same class, which no attack changes.
        images: how many the accuracies are measured on.
    """

    chance: float
    images: int

    @classmethod
    def of(cls, labels: Labels) -> Judge:
        """For held-out images of these classes; where there are none, nothing ever stands."""
        return cls(float(labels.cpu().bincount().max()) / len(labels), len(labels)) if len(labels) else cls(1.0, 1)

    @property
    def clear(self) -> float:
        """Accuracy under PGD from which something stands: clearly above chance."""
        deviation = math.sqrt(self.chance * (1 - self.chance) / self.images)
        return self.chance + max(CLEAR, DEVIATIONS * deviation)

    def stood(self, state: State) -> bool:
        """Whether the run has ever stood clearly above chance under PGD."""
        return state.best_pgd >= self.clear

    def collapsed(self, state: State, found: dict[str, float]) -> bool:
        """Whether what stood has fallen; remembers the best.

        Args:
            state: the run's memory.
            found: accuracy "clean", and under "fgsm" and "pgd".
        """
        clean, pgd, gap = found["clean"], found["pgd"], found["fgsm"] - found["pgd"]
        blind = gap > state.best_gap + WIDER and gap > min(APART, pgd)
        fell = pgd < FALLEN * state.best_pgd and blind
        lost = self._lost(clean, state.best_clean) and self._lost(pgd, state.best_pgd)
        collapsed = self.stood(state) and (fell or lost)
        if pgd > state.best_pgd:
            state.best_pgd, state.best_gap = pgd, gap
        state.best_clean = max(state.best_clean, clean)
        return collapsed

    def never_stood(self, state: State, found: dict[str, float]) -> bool:
        """Whether nothing ever stood, and the model is blind to FGSM: any constant answer holds better under PGD."""
        gap = found["fgsm"] - found["pgd"]
        return not self.stood(state) and found["pgd"] < self.chance and gap > max(WIDER, min(APART, found["pgd"]))

    def sound(self, state: State, found: dict[str, float]) -> bool:
        """Whether a state that has these accuracies is one to go back to: it stands, near the best.

        Before anything stood that is the beginning alone: weights that are blind to single steps, twenty epochs of
        FGSM's, fell to nothing under two-step PGD, and new ones rose to 33 % (FBF's net, Fashion-MNIST, eps 0.3).
        """
        return self.stood(state) and found["pgd"] >= SOUND * state.best_pgd

    def _lost(self, now: float, best: float) -> bool:
        return now - self.chance < LOST * (best - self.chance)

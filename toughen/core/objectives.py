"""What an attack raises: an objective maps logits and a target to one value per example, higher for a better attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from toughen.core.distances import kl_divergence, squared_distance
from toughen.core.nuclear_norm import nuclear_norm
from toughen.core.types import Labels, Logits, Mask, PerExample, Scalar


class Objective:
    """The base of all objectives; it holds no logic.

    ``batchwise`` says that the value is one scalar that couples the images of a batch: then restarts cannot be compared
    per image, and an attack refuses them.
    """

    batchwise: bool = False

    def __repr__(self) -> str:  # the same in every process; those with settings show them instead
        return f"{type(self).__name__}()"

    def select(self, rows: Labels) -> Objective:
        """The objective of some images of the batch; its own where it holds nothing per image."""
        return self

    def __call__(self, logits: Logits, target: Labels | Logits) -> PerExample | Scalar:
        raise NotImplementedError

    def fooled(self, logits: Logits, target: Labels | Logits) -> Mask:
        """Which images need no further work."""
        raise NotImplementedError


def margin(logits: Logits, y: Labels) -> PerExample:
    """The true logit minus the best other one: positive where the prediction is right."""
    true = logits.gather(1, y[:, None])[:, 0]
    other = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    return true - other


class CrossEntropy(Objective):
    """-log p_y, in nats; the target is the true label."""

    def __call__(self, logits: Logits, target: Labels) -> PerExample:
        return F.cross_entropy(logits, target, reduction="none")

    def fooled(self, logits: Logits, target: Labels) -> Mask:
        return logits.argmax(1) != target


@dataclass(frozen=True)
class SmoothedCrossEntropy(CrossEntropy):
    """Cross-entropy against a label of which ``share`` (0..1) is spread over all classes, in nats."""

    share: float

    def __call__(self, logits: Logits, target: Labels) -> PerExample:
        return F.cross_entropy(logits, target, reduction="none", label_smoothing=self.share)


class Margin(CrossEntropy):
    """The best other logit minus the true one (Carlini & Wagner, arXiv:1608.04644, without truncation)."""

    def __call__(self, logits: Logits, target: Labels) -> PerExample:
        return -margin(logits, target)


class Targeted(Objective):
    """log p_t, so that raising it moves the prediction to the target class t."""

    def __call__(self, logits: Logits, target: Labels) -> PerExample:
        return -F.cross_entropy(logits, target, reduction="none")

    def fooled(self, logits: Logits, target: Labels) -> Mask:
        return logits.argmax(1) == target


class KL(Objective):
    """KL(p_clean || p) (TRADES, arXiv:1901.08573); the target is the clean images' logits."""

    def __call__(self, logits: Logits, target: Logits) -> PerExample:
        return kl_divergence(logits, target)

    def fooled(self, logits: Logits, target: Logits) -> Mask:
        return logits.argmax(1) != target.argmax(1)


@dataclass(frozen=True)
class NuclearAscent(Objective):
    """Mean cross-entropy plus ``weight`` x the nuclear norm of f(x') - f(x) (NuAT, Eq. 1).

    Attributes:
        clean: logits of the clean images, detached; None leaves the cross-entropy alone.
        weight: lambda over the number of images; a tensor where it changes from step to step.
    """

    clean: Logits | None
    weight: float | Scalar
    batchwise = True

    def __call__(self, logits: Logits, target: Labels) -> Scalar:
        value = F.cross_entropy(logits, target)
        if self.clean is None:
            return value
        nuclear = nuclear_norm(logits - self.clean)
        return value + torch.as_tensor(self.weight, dtype=nuclear.dtype, device=nuclear.device) * nuclear

    def fooled(self, logits: Logits, target: Labels) -> Mask:
        return logits.argmax(1) != target


class PredictedCrossEntropy(CrossEntropy):
    """-log p of the class that the model itself predicts where it is attacked, so that no label can leak (EAT)."""

    def __call__(self, logits: Logits, target: Labels) -> PerExample:
        return F.cross_entropy(logits, logits.argmax(1), reduction="none")


@dataclass(frozen=True)
class GuidedAscent(CrossEntropy):
    """Cross-entropy plus ``weight`` x the squared distance between the softmax outputs at x' and at x (GAT).

    Attributes:
        clean: logits of the clean images, detached.
        weight: lambda; 0 leaves the cross-entropy alone.
    """

    clean: Logits
    weight: Scalar

    def select(self, rows: Labels) -> GuidedAscent:
        return GuidedAscent(self.clean[rows], self.weight)

    def __call__(self, logits: Logits, target: Labels) -> PerExample:
        return super().__call__(logits, target) + self.weight * squared_distance(logits, self.clean)


class DLR(CrossEntropy):
    """The margin loss over the distance from the highest logit to the third (Croce & Hein, arXiv:2003.01690).

    So its scale is free of the logits'. Two classes have no third logit: theirs is the plain margin loss.
    """

    def __call__(self, logits: Logits, target: Labels) -> PerExample:
        if logits.shape[1] < 3:
            return -margin(logits, target)
        top = logits.topk(3, dim=1).values
        return -margin(logits, target) / (top[:, 0] - top[:, 2] + 1e-12)


@dataclass(frozen=True)
class TargetedDLR(CrossEntropy):
    """The logit of one wrong class minus the true one, over the highest less the mean of the third and fourth.

    Two or three classes have no fourth logit: theirs is the plain margin towards that class. Any wrong prediction
    counts as success (Croce & Hein, arXiv:2003.01690).

    Attributes:
        towards: for each image the class to be predicted instead of the true one.
    """

    towards: Labels

    def select(self, rows: Labels) -> TargetedDLR:
        return TargetedDLR(self.towards[rows])

    def __call__(self, logits: Logits, target: Labels) -> PerExample:
        both = logits.gather(1, torch.stack([self.towards, target], 1))
        ahead = both[:, 0] - both[:, 1]
        if logits.shape[1] < 4:
            return ahead
        top = logits.topk(4, dim=1).values
        return ahead / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


@dataclass(frozen=True)
class LogitDifference(CrossEntropy):
    """The logit of one wrong class minus the true one: zero on the boundary between the two.

    Attributes:
        towards: for each image the wrong class.
        shift: what to add to each image's value, where the logits are known to be off; None means nothing.
    """

    towards: Labels
    shift: PerExample | None = None

    def select(self, rows: Labels) -> LogitDifference:
        return LogitDifference(self.towards[rows], None if self.shift is None else self.shift[rows])

    def __call__(self, logits: Logits, target: Labels) -> PerExample:
        both = logits.gather(1, torch.stack([self.towards, target], 1))
        ahead = both[:, 0] - both[:, 1]
        return ahead if self.shift is None else ahead + self.shift


cross_entropy = CrossEntropy()
predicted_cross_entropy = PredictedCrossEntropy()
margin_loss = Margin()
dlr = DLR()
targeted = Targeted()
kl = KL()


@dataclass(frozen=True)
class TowardsClass(CrossEntropy):
    """log p of a class chosen for each image; the target stays the true label, so that any other prediction counts.

    Attributes:
        classes: where each image is to be moved.
    """

    classes: Labels

    def select(self, rows: Labels) -> TowardsClass:
        return TowardsClass(self.classes[rows])

    def __call__(self, logits: Logits, target: Labels) -> PerExample:
        return targeted(logits, self.classes)


@dataclass(frozen=True)
class GuidedMargin(CrossEntropy):
    """The best other probability minus the true one, plus ``weight`` x the squared distance of probabilities (GAMA).

    Attributes:
        reference: logits that the distance is taken from, detached; None leaves it out.
        weight: of the squared distance.
    """

    reference: Logits | None
    weight: float | int

    def select(self, rows: Labels) -> GuidedMargin:
        return self if self.reference is None else GuidedMargin(self.reference[rows], self.weight)

    def __call__(self, logits: Logits, target: Labels) -> PerExample:
        value = -margin(F.softmax(logits, dim=1), target)
        if self.reference is None or self.weight == 0:
            return value
        return value + self.weight * squared_distance(logits, self.reference)


@dataclass(frozen=True)
class DivergenceAscent(CrossEntropy):
    """KL(p_clean || p) of ``KL``, with the true label as the target, so that it says which images are misclassified.

    Attributes:
        clean: logits of the clean images, detached.
    """

    clean: Logits

    def select(self, rows: Labels) -> DivergenceAscent:
        return DivergenceAscent(self.clean[rows])

    def __call__(self, logits: Logits, target: Labels) -> PerExample:
        return kl_divergence(logits, self.clean)


@dataclass(frozen=True)
class LogitNorm(Objective):
    """One norm of the matrix f(x') - f(x) of a batch, and nothing else (NuAT's comparison of attacks).

    Attributes:
        clean: logits of the clean images, detached.
        kind: "nuclear" or "frobenius".
    """

    clean: Logits
    kind: Literal["nuclear", "frobenius"]
    batchwise = True

    def __call__(self, logits: Logits, target: Labels) -> Scalar:
        moved = logits - self.clean
        return nuclear_norm(moved) if self.kind == "nuclear" else torch.linalg.matrix_norm(moved)

    def fooled(self, logits: Logits, target: Labels) -> Mask:
        return logits.argmax(1) != target

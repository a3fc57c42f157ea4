"""Objectives that attacks maximise: from logits [n, k] and a target to one value per image, [n]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from toughen.core.distances import kl_divergence, squared_distance
from toughen.core.labels import labels_explained
from toughen.core.nuclear_norm import nuclear_norm
from toughen.core.types import Labels, Logits, Mask, PerExample, Scalar


def misclassified(logits: Logits, y: Labels) -> Mask:
    """Which images are not predicted as ``y``; an image with a logit that is not finite counts among them."""
    return (logits.argmax(1) != y) | ~logits.isfinite().all(1)


class Objective:
    """The base of all objectives.

    Attributes:
        batchwise: the value is one scalar for the batch, which couples its images. Restarts cannot be compared per
            image then, and attacks refuse them.
    """

    batchwise: bool = False

    def __repr__(self) -> str:  # without an address, so that it is the same in every process
        return f"{type(self).__name__}()"

    def select(self, rows: Labels) -> Objective:
        """The objective for some images of the batch; the same one where it holds nothing per image."""
        return self

    def __call__(self, logits: Logits, target: Labels | Logits) -> PerExample | Scalar:
        raise NotImplementedError

    def fooled(self, logits: Logits, target: Labels | Logits) -> Mask:
        """Which images fool the model, so that the attack on them is done, [n]."""
        raise NotImplementedError


def margin(logits: Logits, y: Labels) -> PerExample:
    """The true logit minus the best other one: positive where the prediction is right."""
    with labels_explained(logits, y):
        true = logits.gather(1, y[:, None])[:, 0]
    other = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    return true - other


class CrossEntropy(Objective):
    """-log p_y, in nats; the target is the true label."""

    def __call__(self, logits: Logits, target: Labels) -> PerExample:
        return F.cross_entropy(logits, target, reduction="none")

    def fooled(self, logits: Logits, target: Labels) -> Mask:
        return misclassified(logits, target)


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
        return misclassified(logits, target.argmax(1))


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
        return misclassified(logits, target)


class PredictedCrossEntropy(CrossEntropy):
    """-log p of the class that the model predicts at the attacked point, so that no label leaks (EAT)."""

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

    So it does not depend on the scale of the logits. With two classes there is no third logit, and it is the plain
    margin loss.
    """

    def __call__(self, logits: Logits, target: Labels) -> PerExample:
        if logits.shape[1] < 3:
            return -margin(logits, target)
        top = logits.topk(3, dim=1).values
        return -margin(logits, target) / (top[:, 0] - top[:, 2] + 1e-12)


@dataclass(frozen=True)
class TargetedDLR(CrossEntropy):
    """The logit of one wrong class minus the true one, over the highest less the mean of the third and fourth.

    With two or three classes there is no fourth logit, and it is the plain difference of the two logits. Any wrong
    prediction counts as success (Croce & Hein, arXiv:2003.01690).

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
        shift: added to each image's value, [n], to correct logits of low precision; None adds nothing.
    """

    towards: Labels
    shift: PerExample | None = None

    def select(self, rows: Labels) -> LogitDifference:
        return LogitDifference(self.towards[rows], None if self.shift is None else self.shift[rows])

    def __call__(self, logits: Logits, target: Labels) -> PerExample:
        both = logits.gather(1, torch.stack([self.towards, target], 1))
        ahead = both[:, 0] - both[:, 1]
        return ahead if self.shift is None else ahead + self.shift


@dataclass(frozen=True)
class TowardsClass(CrossEntropy):
    """log p of a class chosen for each image; any prediction but the true label, the target, counts as success.

    Attributes:
        classes: the class towards which each image is moved, [n].
    """

    classes: Labels

    def select(self, rows: Labels) -> TowardsClass:
        return TowardsClass(self.classes[rows])

    def __call__(self, logits: Logits, target: Labels) -> PerExample:
        return -F.cross_entropy(logits, self.classes, reduction="none")


@dataclass(frozen=True)
class GuidedMargin(CrossEntropy):
    """The best other probability minus the true one, plus ``weight`` x the squared distance of probabilities (GAMA).

    Attributes:
        reference: logits that the distance is measured from, [n, k], detached; None leaves the distance out.
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
    """KL(p_clean || p) as ``KL``, but with the true label as the target, for ``fooled``.

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
    """The nuclear or the Frobenius norm of the matrix f(x') - f(x) of a batch (NuAT's comparison of attacks).

    Attributes:
        clean: logits of the clean images, detached.
        kind: "nuclear" or "frobenius".
    """

    clean: Logits
    kind: Literal["nuclear", "frobenius"]
    batchwise = True

    def __call__(self, logits: Logits, target: Labels) -> Scalar:
        moved = logits - self.clean
        moved = moved.nan_to_num()  # a NaN would end the decomposition with an error
        return nuclear_norm(moved) if self.kind == "nuclear" else torch.linalg.matrix_norm(moved)

    def fooled(self, logits: Logits, target: Labels) -> Mask:
        return misclassified(logits, target)


cross_entropy = CrossEntropy()
predicted_cross_entropy = PredictedCrossEntropy()
margin_loss = Margin()
dlr = DLR()
targeted = Targeted()
kl = KL()

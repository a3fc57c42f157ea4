"""What an attack raises: an objective maps logits and a target to one value per example, higher for a better attack."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from toughen.types import Labels, Logits, Mask, PerExample, Scalar


class Objective:
    """The base of all objectives; it holds no logic.

    ``batchwise`` says that the value is one scalar that couples the images of a batch: then restarts cannot be compared
    per image, and an attack refuses them.
    """

    batchwise: bool = False

    def take(self, rows: Labels) -> Objective:
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


def kl_divergence(logits: Logits, clean: Logits) -> PerExample:
    """KL(softmax(clean) || softmax(logits)), in nats."""
    log_clean = F.log_softmax(clean, dim=1)
    return (log_clean.exp() * (log_clean - F.log_softmax(logits, dim=1))).sum(1)


def squared_logit_distance(logits: Logits, other: Logits) -> PerExample:
    """The squared L2 distance between two logits of an image, of any size."""
    return (logits - other).square().sum(1)


class CrossEntropy(Objective):
    """-log p_y, in nats; the target is the true label."""

    def __call__(self, logits: Logits, target: Labels) -> PerExample:
        return F.cross_entropy(logits, target, reduction="none")

    def fooled(self, logits: Logits, target: Labels) -> Mask:
        return logits.argmax(1) != target


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


def nuclear_norm(matrix: Logits) -> Scalar:
    """The sum of the singular values of an [n, k] matrix; for a matrix of zeros (x_adv = x) the gradient is zero.

    There any matrix of norm 1 is a subgradient, and the one that the singular vectors happen to give means nothing.
    """
    norm = torch.linalg.matrix_norm(matrix, "nuc")
    return torch.where(matrix.any(), norm, torch.zeros_like(norm))


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


def squared_distance(logits: Logits, clean: Logits) -> PerExample:
    """The squared L2 distance between two softmax outputs, 0..2."""
    return (F.softmax(logits, dim=1) - F.softmax(clean, dim=1)).square().sum(1)


@dataclass(frozen=True)
class GuidedAscent(CrossEntropy):
    """Cross-entropy plus ``weight`` x the squared distance between the softmax outputs at x' and at x (GAT).

    Attributes:
        clean: logits of the clean images, detached.
        weight: lambda; 0 leaves the cross-entropy alone.
    """

    clean: Logits
    weight: Scalar

    def take(self, rows: Labels) -> GuidedAscent:
        return GuidedAscent(self.clean[rows], self.weight)

    def __call__(self, logits: Logits, target: Labels) -> PerExample:
        return super().__call__(logits, target) + self.weight * squared_distance(logits, self.clean)


cross_entropy = CrossEntropy()
predicted_cross_entropy = PredictedCrossEntropy()
margin_loss = Margin()
targeted = Targeted()
kl = KL()

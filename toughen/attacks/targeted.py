"""Targeted attacks: PGD towards one class per image, random or least likely."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from toughen.attacks.base import Attack, check_counts, check_not_negative, start_call, threat_of
from toughen.attacks.pgd import PGD
from toughen.core.gradients import logits, mode
from toughen.core.labels import labels_explained
from toughen.core.objectives import TowardsClass
from toughen.core.rng import Noise
from toughen.core.threat import Start
from toughen.core.types import Eps, Images, Labels, Logits, Norm, Real


@dataclass(frozen=True, kw_only=True)
class _TargetedPGD(Attack):
    """What PGD-R and PGD-LL share.

    Attributes:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        steps: gradient steps.
        step_size: length of a step, in the units of eps; None means 2.5 eps / steps.
        start: where it starts, as in PGD.
        stop_early: an image is returned as it was first misclassified, as any class; False goes on to the target.
    """

    eps: Eps | None = None
    norm: Norm = "linf"
    steps: int = 100
    step_size: Real | None = None
    start: Start = "uniform"
    stop_early: bool = True

    def __post_init__(self) -> None:
        threat_of(self)
        check_counts(steps=self.steps)
        if self.steps < 1:
            raise ValueError(f"steps ({self.steps}) must be at least 1")
        check_not_negative(step_size=self.step_size)

    def __call__(self, model: nn.Module, x: Images, target: Labels | Logits, noise: Noise | None = None) -> Images:
        threat, noise = start_call(self, x, noise, target)
        noise = noise.restart(0)
        x = x.detach()
        with mode(model, "eval"), torch.no_grad():
            objective = TowardsClass(self._classes(model, x, target, noise))
        attack = PGD(
            eps=threat.eps,
            norm=threat.norm,
            steps=self.steps,
            step_size=self.step_size,
            objective=objective,
            start=threat.start(x, self.start, noise),  # drawn here, after the classes
            stop_early=self.stop_early,
        )
        return attack(model, x, target, noise)

    def _classes(self, model: nn.Module, x: Images, y: Labels, noise: Noise) -> Labels:
        """The class that each image is moved to."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class PGDR(_TargetedPGD):
    """PGD-R: lowers the cross-entropy of a random class other than the true one (Vivek et al., CVPR Workshops 2020).

    Passes: ``steps`` forwards and as many gradients, and one image forward to see how many classes there are.
    """

    def _classes(self, model: nn.Module, x: Images, y: Labels, noise: Noise) -> Labels:
        others = logits(model, x[:1]).shape[1] - 1
        drawn = noise.uniform(x[:, :1, :1, :1])[:, 0, 0, 0].double().add(1).mul(others / 2).floor().long()
        drawn = drawn.clamp(max=others - 1)
        return drawn + (drawn >= y)


@dataclass(frozen=True, kw_only=True)
class PGDLL(_TargetedPGD):
    """PGD-LL: lowers the cross-entropy of the class least likely on the clean image (Vivek et al., CVPRW 2020).

    The true class is never the target. Passes: ``steps`` forwards and as many gradients, and one forward more.
    """

    def _classes(self, model: nn.Module, x: Images, y: Labels, noise: Noise) -> Labels:
        out = logits(model, x)
        with labels_explained(out, y):
            return out.scatter(1, y[:, None], torch.inf).argmin(1)

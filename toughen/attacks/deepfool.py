"""DeepFool: steps to the nearest boundary of the linearised model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from toughen.attacks.base import Attack, check_classes, check_counts, check_not_negative, start_call, threat_of
from toughen.core.gradients import InputGradient, fooled, logits, mode, nearest_gradient
from toughen.core.objectives import LogitDifference
from toughen.core.rng import Noise
from toughen.core.threat import Threat
from toughen.core.types import Eps, Images, Labels, Logits, Norm, PerExample, Real

EXTRA_STEP = 1e-4
"""Added to the length of each step, so that steps do not vanish before the boundary."""


@dataclass(frozen=True, kw_only=True)
class DeepFool(Attack):
    """Steps to the nearest boundary of a linearised model until the prediction changes (arXiv:1511.04599).

    It searches for the shortest perturbation that changes the predicted class. Here its result is projected onto the
    threat, so that an image counts only where it is broken within ``eps``. An image that is misclassified already comes
    back as it is.

    The authors allow pixels outside [0, 1]; here each iterate is clipped to it and evaluated after that.

    Passes: one forward of the clean images; then for each step of an image that is not broken two forwards and, with k
    candidates, k - 1 gradients. The second forward finds the broken images, which need no further gradients.

    Attributes:
        eps: radius, in the units of the images.
        norm: "linf" or "l2", in which the perturbation is measured and minimised.
        candidates: how many classes, those with the highest logits on the clean image, its own among them.
        steps: at most.
        overshoot: by what share of its length the perturbation is extended.
        minimise: return where the attack ends, however far: it may lie OUTSIDE the threat.

    Raises:
        ValueError: a setting outside its range.
    """

    eps: Eps | None = None
    norm: Norm = "linf"
    candidates: int = 10
    steps: int = 50
    overshoot: Real = 0.02
    minimise: bool = False

    def __post_init__(self) -> None:
        threat_of(self)
        check_counts(candidates=self.candidates, steps=self.steps)
        if self.candidates < 2 or self.steps < 1:
            raise ValueError(f"candidates ({self.candidates}) must be at least 2, and steps ({self.steps}) at least 1")
        check_not_negative(overshoot=self.overshoot)

    @torch.no_grad()
    def __call__(self, model: nn.Module, x: Images, target: Labels | Logits, noise: Noise | None = None) -> Images:
        threat, noise = start_call(self, x, noise, target)
        with mode(model, "eval"):
            out = logits(model, x)
            check_classes(target, out.shape[1])
            robust = (~fooled(model, x, target, out)).nonzero()[:, 0]
            result = x.clone()
            if len(robust):
                y = target[robust]
                others = out[robust].scatter(1, y[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)
                result[robust] = self._run(model, x[robust], y, others[:, :-1][:, : self.candidates - 1], threat)
        return result if self.minimise else threat.project(result, x)

    def _run(self, model: nn.Module, x: Images, y: Labels, others: Tensor, threat: Threat) -> Images:
        """The last iterates of images that are predicted as ``y``; ``others`` are the other candidates, [n, k - 1]."""

        def distance(outputs: InputGradient) -> PerExample:
            return outputs.value.abs() / threat.dual(outputs.gradient).clamp(min=1e-30)

        result, rows, total, x_adv = x.clone(), torch.arange(len(x), device=x.device), torch.zeros_like(x), x
        for _ in range(self.steps):
            outputs = nearest_gradient(
                model, x_adv, y[rows], [LogitDifference(each) for each in others[rows].unbind(1)], distance
            )
            # at most the largest distance in the box: where the gradient almost vanishes, the distance is huge
            reach = (distance(outputs) + EXTRA_STEP).clamp(max=float(x[0].numel()))
            total = total + reach.view(-1, 1, 1, 1) * threat.steepest(outputs.gradient)
            x_adv = (x[rows] + (1 + self.overshoot) * total).clamp(0, 1)
            result[rows] = x_adv
            robust = (~fooled(model, x_adv, y[rows], logits(model, x_adv))).nonzero()[:, 0]
            if not len(robust):
                break
            rows, total, x_adv = rows[robust], total[robust], x_adv[robust]
        return result

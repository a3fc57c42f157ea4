"""Gradient alignment."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from toughen.attacks.base import threat_of
from toughen.attacks.fgsm import FGSM
from toughen.core.gradients import input_gradient, logits, mode
from toughen.core.objectives import cross_entropy
from toughen.core.threat import Threat
from toughen.core.types import Batch, Crafted, Eps, Images, Labels, Mode, Norm, Real, Scalar, Step
from toughen.methods.base import Method, noise_of


class GradAlign(Method):
    """FGSM training that keeps gradients within the ball parallel (Andriushchenko & Flammarion, arXiv:2007.02617).

    Passes: 11, an attack of one step (2), an adversarial pass (3), the gradient at a random point (2) and the gradient
    of that gradient towards the weights (4).

    lam (1 - cos) is added to the adversarial cross-entropy, where cos is the cosine between the gradient at x and the
    gradient at x + eta, with eta uniform in the ball and not clipped to [0, 1]. As released, the gradient at x is the
    one that the attack took, a constant, and only the one at x + eta is differentiated. An image without gradient at
    one of the two points is left out of the mean.

    Args:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        lam: weight of the alignment; 0.2 is the paper's value for CIFAR-10 at 8/255, where 16/255 has 2.
        step_size: length of the attack's step, in the units of eps; None means 1.25 eps (as released), then projected.
        start: where the attack starts, "none" for the image itself, or "uniform" in the ball; the released code then
            compares the gradient there.
        both: differentiate the gradient at x too, as in the printed formula: it is then computed again.
        mode: the model's mode in attack and alignment, "eval" or "train" (as released).

    Raises:
        ValueError: eps is missing or none that the norm admits, or lam is below 0.
    """

    differentiates_twice = True
    graph_key = "the same in every step"

    def __init__(
        self,
        *,
        eps: Eps | None = None,
        norm: Norm = "linf",
        lam: float | int = 0.2,
        step_size: Real | None = None,
        start: Literal["none", "uniform"] = "none",
        both: bool = False,
        mode: Mode = "train",
    ) -> None:
        super().__init__()
        if not 0 <= lam < math.inf:
            raise ValueError(f"lam {lam} must be at least 0, and finite")
        self.eps, self.norm, self.lam, self.both = eps, norm, lam, both
        self.step_size = 1.25 * threat_of(self).eps if step_size is None else step_size
        self.attack = FGSM(eps=eps, norm=norm, step_size=self.step_size, start=start, mode=mode)

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        threat, noise = threat_of(self), noise_of(batch)
        threat.check(x)
        begin = threat.start(x, self.attack.start, noise)
        gradient = self._gradient(model, begin, y)
        x_adv = threat.project(begin + self.step_size * threat.steepest(gradient), x)
        near = x + threat.eps * threat.uniform(x, noise)
        return Crafted(x_adv=x_adv, extra={"begin": begin, "gradient": gradient, "near": near})

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        out = logits(model, crafted.x_adv)
        robust = self.cross_entropy(out, y)
        terms = {"robust": robust.detach()}
        if self.lam == 0:
            return Step(robust, out, terms)
        second = self._gradient(model, crafted.extra["near"], y, create_graph=True)
        first: Images = crafted.extra["gradient"]
        if self.both:
            first = self._gradient(model, crafted.extra["begin"], y, create_graph=True)
        alignment = cosine(first, second)
        return Step(robust + self.lam * (1 - alignment), out, {**terms, "alignment": alignment.detach()})

    def _gradient(self, model: nn.Module, x: Images, y: Labels, *, create_graph: bool = False) -> Images:
        with mode(model, self.attack.mode):
            return input_gradient(model, x, y, cross_entropy, create_graph=create_graph).gradient


def cosine(a: Tensor, b: Tensor) -> Scalar:
    """The mean cosine of the angle between two images' gradients over those that have both; 1 where none has.

    A gradient at the end of what its type can hold counts as none: its own slope would overflow.
    """
    unit, kind = Threat("l2", 1.0).steepest, torch.finfo(a.dtype)
    both = torch.minimum(a.abs().amax((1, 2, 3)), b.abs().amax((1, 2, 3))) > kind.tiny / kind.eps
    rows = both.view(-1, 1, 1, 1)
    cosines = (unit(torch.where(rows, a, 0)) * unit(torch.where(rows, b, 0))).sum((1, 2, 3))
    return torch.where(both.any(), cosines.sum() / both.sum().clamp(min=1), 1)

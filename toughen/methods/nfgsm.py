"""Noise-augmented single-step training."""

from __future__ import annotations

import math

from torch import nn

from toughen.attacks.base import threat_of
from toughen.core.gradients import input_gradient, mode
from toughen.core.objectives import cross_entropy
from toughen.core.threat import Threat
from toughen.core.types import Batch, Crafted, Eps, Images, Labels, Mode, Norm, Real, Step
from toughen.methods.base import Method, noise_of


class NFGSM(Method):
    """FGSM around an image with more noise than eps, without projection (de Jorge et al., arXiv:2202.01181).

    Passes: 5, an attack of one step (2) and the weights' gradient (3).

    The noise is part of the image rather than the start of an attack, so the images that are trained on lie up to
    start_size + step_size away, 3 eps by default. They are only clipped to [0, 1], after the noise and after the step.

    Args:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        start_size: how far the uniform noise goes, in the units of eps; None means 2 eps, as released.
        step_size: length of the step, in the units of eps; None means eps, as released.
        limit: largest radius of noise and step together, in the units of eps; None means no limit, as released.
        mode: the model's mode while attacking, "eval" or "train" (as released).

    Raises:
        ValueError: eps is missing or none that the norm admits, or a size is negative.
    """

    leaves_ball = True  # what it trains on may lie outside of the threat that it trains for
    graph_key = "the same in every step"

    def __init__(
        self,
        *,
        eps: Eps | None = None,
        norm: Norm = "linf",
        start_size: Eps | None = None,
        step_size: Real | None = None,
        limit: Eps | None = None,
        mode: Mode = "train",
    ) -> None:
        super().__init__()
        self.eps, self.norm, self.limit, self.mode = eps, norm, limit, mode
        radius = threat_of(self).eps
        self.start_size = 2 * radius if start_size is None else start_size
        self.step_size = radius if step_size is None else step_size
        if not (0 <= self.start_size < math.inf and 0 <= self.step_size < math.inf):
            raise ValueError(f"start_size ({start_size}) and step_size ({step_size}) must be finite and at least 0")
        if limit is not None:
            Threat(norm, limit)  # refuses what is no radius

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        threat = threat_of(self)
        threat.check(x)
        noisy = (x + self.start_size * threat.uniform(x, noise_of(batch))).clamp(0, 1)
        with mode(model, self.mode):
            gradient = input_gradient(model, noisy, y, cross_entropy).gradient
        x_adv = (noisy + self.step_size * threat.steepest(gradient)).clamp(0, 1)
        return Crafted(x_adv=x_adv if self.limit is None else Threat(self.norm, self.limit).project(x_adv, x))

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        return self.adversarial_cross_entropy(model, y, crafted)

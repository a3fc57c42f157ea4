"""R-MGM: logits of FGSM and R-FGSM images are kept together."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from toughen.attacks.base import threat_of
from toughen.core.distances import squared_logit_distance
from toughen.core.gradients import input_gradient, logits, mode
from toughen.core.objectives import cross_entropy
from toughen.core.types import Batch, Crafted, Eps, Images, Labels, Norm, Step
from toughen.methods.base import Method, noise_of


class RMGM(Method):
    """FGSM-AT plus lam x the squared L2 distance to the logits of R-FGSM (Vivek et al., CVPR Workshops 2019, Eq. 8).

    Passes: 10, two attacks of one step (4) and a pass over both batches at once (6), so that batch norm sees both.

    Batch norm's mode while attacking is not published, nor is the clipping to [0, 1]; ours are evaluation and at every
    step. Both attacks take their gradient in one pass, which changes nothing in that mode. The paper's two ablations
    are FGSM+R-FGSM, cross_entropy_on="both" with lam=0, and "lambda = 0", lam=0 alone: that keeps the joint pass, so it
    differs from FGSM-AT in what batch norm or dropout does. LeNet+ has neither: there it equals FGSM-AT, although the
    paper's rows differ (PGD-40 1.89 and 0.17 %).

    Args:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        lam: weight of the squared distance.
        start_size: how far R-FGSM's random start goes, in the units of eps; its step covers the rest. None means
            eps / 2 (Tramer et al., arXiv:1705.07204): the paper names no value.
        cross_entropy_on: "fgsm" images alone, or "both" sets, each image counting alike.

    Raises:
        ValueError: eps is missing or none that the norm admits; a setting is out of its range.
    """

    def __init__(
        self,
        *,
        eps: Eps | None = None,
        norm: Norm = "linf",
        lam: float | int = 5.0,
        start_size: Eps | None = None,
        cross_entropy_on: Literal["fgsm", "both"] = "fgsm",
    ) -> None:
        super().__init__()
        if not 0 <= lam < math.inf:
            raise ValueError(f"lam {lam} must be finite and at least 0")
        self.eps, self.norm, self.lam, self.cross_entropy_on = eps, norm, lam, cross_entropy_on
        radius = threat_of(self).eps
        self.start_size = radius / 2 if start_size is None else start_size
        if not 0 <= self.start_size <= radius:
            raise ValueError(f"start_size {start_size} must be between 0 and eps {eps}")

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        threat = threat_of(self)
        threat.check(x)
        start = threat.start(x, "bernoulli", noise_of(batch), self.start_size)
        with mode(model, "eval"):
            input_slope = input_gradient(model, torch.cat([x, start]), torch.cat([y, y]), cross_entropy)
        single, after_start = threat.steepest(input_slope.gradient).chunk(2)
        return Crafted(
            x_adv=threat.project(x + threat.eps * single, x),
            extra={"x_rfgsm": threat.project(start + (threat.eps - self.start_size) * after_start, x)},
            bases={"x_rfgsm": x},
        )

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        out = logits(model, torch.cat([crafted.x_adv, crafted.extra["x_rfgsm"]]))
        out_fgsm, out_rfgsm = out.chunk(2)
        both = self.cross_entropy_on == "both"
        robust = self.cross_entropy(out, torch.cat([y, y])) if both else self.cross_entropy(out_fgsm, y)
        distance = squared_logit_distance(out_fgsm, out_rfgsm).mean()
        terms = {"robust": robust.detach(), "squared_distance": distance.detach()}
        return Step(robust + self.lam * distance, out_fgsm, terms)

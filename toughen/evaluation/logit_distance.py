"""Cheap early signs that training is about to collapse."""

from __future__ import annotations

import torch
from torch import nn

from toughen.attacks.fgsm import FGSM
from toughen.core.gradients import logits, mode
from toughen.core.rng import Noise
from toughen.core.threat import Threat
from toughen.core.types import Images, Labels, Scalar


@torch.no_grad()
def logit_distance(model: nn.Module, x: Images, y: Labels, threat: Threat, noise: Noise | None = None) -> Scalar:
    """The mean L2 distance, not squared, between the logits of FGSM and of R-FGSM images (Vivek et al. 2019, Fig. 1-2).

    It leaps when single-step training begins to mask its gradients: on MNIST to 300-450, where it stays below 1.2 under
    PGD training. R-FGSM starts eps / 2 away, as RMGM does.

    Args:
        model: any mode; it is judged in evaluation mode and left as it was.
        x: clean images in [0, 1].
        y: their classes.
        threat: the norm and radius of both attacks.
        noise: source of R-FGSM's start; None means torch's global generator.
    """
    eps, norm = threat.eps, threat.norm
    with mode(model, "eval"):
        x_fgsm = FGSM(eps=eps, norm=norm)(model, x, y)
        x_rfgsm = FGSM(eps=eps, norm=norm, step_size=eps / 2, start="bernoulli", start_size=eps / 2)(model, x, y, noise)
        difference = logits(model, x_fgsm) - logits(model, x_rfgsm)
    return difference.double().square().sum(1).sqrt().mean()  # in double, a mean of parts is that of the whole

"""The distance between the logits of FGSM and of R-FGSM images: an early sign that training will collapse."""

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

    It rises sharply when single-step training begins to mask gradients: on MNIST to 300-450, while it is below 1.2 in
    PGD training. R-FGSM's random step has length eps / 2, as in RMGM.

    Args:
        model: in any mode; it is run in evaluation mode, and its mode is restored.
        x: [n, c, h, w], clean images in [0, 1].
        y: [n], their classes.
        threat: norm and radius of both attacks.
        noise: source of R-FGSM's random step; None means torch's global generator.
    """
    eps, norm = threat.eps, threat.norm
    with mode(model, "eval"):
        x_fgsm = FGSM(eps=eps, norm=norm)(model, x, y)
        x_rfgsm = FGSM(eps=eps, norm=norm, step_size=eps / 2, start="bernoulli", start_size=eps / 2)(model, x, y, noise)
        difference = logits(model, x_fgsm) - logits(model, x_rfgsm)
    return difference.double().square().sum(1).sqrt().mean()  # float64, so that means over parts can be combined

"""Random points of the ball, without any search: a baseline that gradient attacks must beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from toughen.attacks.base import Attack, check_counts, start_call, threat_of
from toughen.core.gradients import fooled, logits, mode
from toughen.core.objectives import margin
from toughen.core.rng import Noise
from toughen.core.types import Eps, Images, Labels, Logits, Norm


@dataclass(frozen=True, kw_only=True)
class RandomPoints(Attack):
    """Uniform points of the ball, of which the one with the lowest margin is kept (a check in arXiv:1802.00420).

    Points are clipped to [0, 1]. Where this breaks an image that a gradient attack could not, the gradient is masked.

    Passes: one forward for each point of an image, up to the first that breaks it.

    Attributes:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        points: how many are tried for an image.

    Raises:
        ValueError: a setting outside its range.
    """

    eps: Eps | None = None
    norm: Norm = "linf"
    points: int = 1000

    def __post_init__(self) -> None:
        threat_of(self)
        check_counts(points=self.points)
        if self.points < 1:
            raise ValueError(f"points ({self.points}) must be at least 1")

    @torch.no_grad()
    def __call__(self, model: nn.Module, x: Images, target: Labels | Logits, noise: Noise | None = None) -> Images:
        threat, noise = start_call(self, x, noise, target)
        noise = noise.restart(0)
        result, lowest = x.clone(), x.new_full((len(x),), torch.inf)
        rows = torch.arange(len(x), device=x.device)
        with mode(model, "eval"):
            for _ in range(self.points):
                if not len(rows):
                    break
                x_adv = threat.start(x[rows], "uniform", noise)
                out = logits(model, x_adv)
                value = margin(out, target[rows]).to(lowest)
                broken = fooled(model, x_adv, target[rows], out)
                keep = broken | (value < lowest[rows])
                result[rows[keep]], lowest[rows[keep]] = x_adv[keep], value[keep]
                if broken.any():
                    robust = (~broken).nonzero()[:, 0]
                    rows, noise = rows[robust], noise.take(robust)
        return result

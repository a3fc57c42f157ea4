"""Multi-step adversarial training."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from toughen.attacks.base import threat_of
from toughen.attacks.pgd import PGD
from toughen.core.types import Batch, Crafted, Eps, Images, Labels, Mode, Norm, Real, Step
from toughen.methods.base import Method, noise_of


class PGDAT(Method):
    """Training on PGD images alone (Madry et al., arXiv:1706.06083); DAT's slides call it RAT.

    Passes: 23, 3 and 2 for each step of the attack.

    Args:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        steps: gradient steps of the attack.
        step_size: length of a step, in the units of eps; None means 2.5 eps / steps.
        start: where the attack starts, "uniform" in the ball or "none" for the image itself.
        mode: the model's mode while attacking, "eval" or "train" (as released).
    """

    graph_key = "the same in every step"

    def __init__(
        self,
        *,
        eps: Eps | None = None,
        norm: Norm = "linf",
        steps: int = 10,
        step_size: Real | None = None,
        start: Literal["uniform", "none"] = "uniform",
        mode: Mode = "train",
    ) -> None:
        super().__init__()
        self.eps, self.norm = eps, norm
        self.attack = PGD(eps=threat_of(self).eps, norm=norm, steps=steps, step_size=step_size, start=start, mode=mode)

    def rescue_settings(self) -> dict[str, Any]:
        """Ten steps at least; two steps, what other methods are rescued by, can collapse, too."""
        return {"steps": max(10, self.attack.steps)}

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        return Crafted(x_adv=self.attack(model, x, y, noise_of(batch)))

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        return self.adversarial_cross_entropy(model, y, crafted)

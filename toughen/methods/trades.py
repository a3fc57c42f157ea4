"""TRADES."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import nn

from toughen.attacks.base import threat_of
from toughen.attacks.pgd import PGD
from toughen.core.distances import kl_divergence
from toughen.core.gradients import logits, mode
from toughen.core.objectives import kl
from toughen.core.types import Batch, Crafted, Eps, Images, Labels, Mode, Norm, Real, Step
from toughen.methods.base import Method, noise_of
from toughen.methods.craft_only import require_craft_only


class TRADES(Method):
    """Clean cross-entropy plus beta x KL(clean || adversarial) (Zhang et al., arXiv:1901.08573).

    Passes: 27, 7 and 2 for each step of the attack.

    The attack's target is a constant; the loss sends its gradient through both sides of the divergence. The clean
    images go forward once in the loss, where the released code lets them go twice. With EFGSM as ``crafter`` this is
    eFGSM + TRADES (Chen & Lee, ACCV 2020).

    Args:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        steps: gradient steps of the attack.
        step_size: length of a step, in the units of eps; None means 2.5 eps / steps.
        beta: weight of the divergence; larger is more robust and less accurate on clean images.
        mode: the model's mode for the attack and its target, "eval" (as released) or "train".
        crafter: another method whose images are taken in place of this attack's, such as EFGSM.

    Raises:
        ValueError: eps is missing or none that the norm admits, beta is below 0, the crafter's threat is another, or it
            works through its own loss.
    """

    reports_clean = True

    def __init__(
        self,
        *,
        eps: Eps | None = None,
        norm: Norm = "linf",
        steps: int = 10,
        step_size: Real | None = None,
        beta: float | int = 6.0,
        mode: Mode = "eval",
        crafter: Method | None = None,
    ) -> None:
        super().__init__()
        if not beta >= 0:
            raise ValueError(f"beta {beta} must be at least 0")
        self.eps, self.norm, self.beta = eps, norm, beta
        self.attack = PGD(
            eps=threat_of(self).eps,
            norm=norm,
            steps=steps,
            step_size=step_size,
            objective=kl,
            start="gaussian",
            mode=mode,
        )
        self.crafter = crafter
        if crafter is not None:
            if crafter.threat != threat_of(self):
                raise ValueError(
                    f"TRADES trains against {threat_of(self)}, its crafter against {crafter.threat}: give both the "
                    "same eps and norm"
                )
            self.replays = require_craft_only("TRADES", crafter).replays

    @property
    def graph_key(self) -> Hashable:
        return "its own images" if self.crafter is None else self.crafter.graph_key

    @property
    def is_adversarial(self) -> bool:
        return self.crafter is None or self.crafter.is_adversarial

    @property
    def adaptive(self) -> dict[str, Any] | None:
        return {"defence": "kl"}

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        if self.crafter is not None:
            crafted = self.crafter.craft(model, x, y, batch)
            return Crafted(x_adv=crafted.x_adv, terms=crafted.terms)
        with mode(model, self.attack.mode), torch.no_grad():
            target = logits(model, x)
        return Crafted(x_adv=self.attack(model, x, target, noise_of(batch)))

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        out, out_adv = logits(model, x), logits(model, crafted.x_adv)
        clean, robust = self.cross_entropy(out, y), kl_divergence(out_adv, out).mean()
        terms = {"clean": clean.detach(), "robust": robust.detach()}
        return Step(clean + self.beta * robust, out, terms | crafted.terms)

"""Guided adversarial training."""

from __future__ import annotations

from typing import Any

from torch import nn

from toughen.core.distances import squared_distance
from toughen.core.gradients import logits
from toughen.core.objectives import GuidedAscent, Objective
from toughen.core.types import Crafted, Eps, Images, Labels, Logits, Norm, Step
from toughen.methods.guided import _Guided


class GAT(_Guided):
    """Clean cross-entropy plus lam x the squared distance of softmax outputs (Sriramanan et al., NeurIPS 2020).

    Passes: 8, a clean pass (3) that attack and loss share, an attack of one step (2), an adversarial pass (3).

    Sriramanan et al., Guided Adversarial Attack for Evaluating and Enhancing Adversarial Defenses (NeurIPS 2020), as
    released (val-iisc/GAMA-GAT). The attack runs in evaluation mode, but the clean outputs it compares with come from a
    pass in training mode. With weight averaging in the trainer this is GAT-WA.

    Args:
        eps: radius, in the units of the images; the step is as long.
        norm: "linf" or "l2".
        lam: weight of the squared distance in attack and loss; larger is more robust and less accurate on clean images
            (10 on CIFAR-10, 15 on MNIST, 20 on ImageNet-100, as released).
        jump_at: share of training after which lam is multiplied by jump (after 86 of 100 epochs, as released); None
            means never. A loop that never sets ``progress`` trains with the multiplied lam throughout.
        jump: what lam is multiplied by then (4 on CIFAR-10, 3 on MNIST, 7 on ImageNet-100, as released).
        start_size: size of the Bernoulli start, in the units of eps; None means eps / 2 (4/255 at 8/255, as released;
            0.3 at 0.3 on MNIST); more than eps means eps.
        alternate: leave the distance out of the attack in every other batch, the first of an epoch among them; on MNIST
            the released code does not.
        share_clean: use one clean pass for attack and loss. False makes two, in the released order, so that batch-norm
            statistics move three times a step instead of twice.

    Raises:
        ValueError: eps is missing or none that the norm admits, or a weight is out of its range.
    """

    reports_clean = True
    graph_key = "the same in every step"

    def __init__(
        self,
        *,
        eps: Eps | None = None,
        norm: Norm = "linf",
        lam: float | int = 10.0,
        jump_at: float | int | None = 0.86,
        jump: float | int = 4.0,
        start_size: Eps | None = None,
        alternate: bool = True,
        share_clean: bool = True,
    ) -> None:
        super().__init__(eps=eps, norm=norm, start_size=start_size, alternate=alternate, share_clean=share_clean)
        if not (lam >= 0 and jump >= 0):
            raise ValueError(f"lam ({lam}) and jump ({jump}) must be at least 0")
        if jump_at is not None and not 0 <= jump_at <= 1:
            raise ValueError(f"jump_at {jump_at} must be a share of training, 0..1, or None for no jump")
        self.lam, self.jump_at, self.jump = lam, jump_at, jump
        self.progress = 1.0

    def lam_at(self, progress: float) -> float:
        jumped = self.jump_at is not None and progress >= self.jump_at - 1e-9
        return float(self.lam * self.jump if jumped else self.lam)

    @property
    def adaptive(self) -> dict[str, Any] | None:
        return {"defence": "guided", "weight": self.lam_at(1.0)}

    def objective(self, clean: Logits) -> Objective:
        return GuidedAscent(clean, (self.lam_now * self.guides).to(clean.dtype))

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        out_adv = logits(model, crafted.x_adv)
        out: Logits = logits(model, x) if crafted.clean is None else crafted.clean
        clean, distance = self.cross_entropy(out, y), squared_distance(out_adv, out).mean()
        terms = {"clean": clean.detach(), "distance": distance.detach()}
        return Step(clean + self.lam_now.to(distance.dtype) * distance, out, terms)

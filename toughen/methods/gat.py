"""Guided adversarial training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toughen.attacks.base import threat_of
from toughen.attacks.fgsm import FGSM
from toughen.gradients import logits
from toughen.methods.base import Method, noise_of
from toughen.objectives import GuidedAscent, squared_distance
from toughen.types import Batch, Crafted, Eps, Images, Labels, Logits, Norm, Step


class GAT(Method):
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
    weight: Tensor
    attack_weight: Tensor

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
        super().__init__()
        if not (lam >= 0 and jump >= 0):
            raise ValueError(f"lam ({lam}) and jump ({jump}) must be at least 0")
        if jump_at is not None and not 0 <= jump_at <= 1:
            raise ValueError(f"jump_at {jump_at} must be a share of training, 0..1, or None for no jump")
        self.eps, self.norm, self.lam, self.jump_at, self.jump = eps, norm, lam, jump_at, jump
        self.start_size = threat_of(self).eps / 2 if start_size is None else start_size
        self.attack = FGSM(eps=eps, norm=norm, start="bernoulli", start_size=self.start_size)
        self.alternate, self.share_clean = alternate, share_clean
        self.iteration = 0  # steps since the epoch began
        for name in ("weight", "attack_weight"):  # tensors, so that a compiled step stays the same one when they change
            self.register_buffer(name, torch.zeros(()), persistent=False)
        self._weigh()

    @property
    def progress(self) -> float:
        return self._progress

    @progress.setter
    def progress(self, value: float | int) -> None:
        self._progress = float(value)
        self._weigh()

    def _weigh(self) -> None:
        """Set what multiplies the distance in the loss and in the attack of the next step."""
        jumped = self.jump_at is not None and self.progress >= self.jump_at - 1e-9
        lam = float(self.lam * self.jump if jumped else self.lam)
        self.weight.fill_(lam)
        self.attack_weight.fill_(lam if self.iteration % 2 == 1 or not self.alternate else 0.0)

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        with torch.set_grad_enabled(self.share_clean and torch.is_grad_enabled()):
            clean = logits(model, x)
        attack = replace(self.attack, objective=GuidedAscent(clean.detach(), self.attack_weight))
        return Crafted(
            x_adv=attack(model, x, y, noise_of(batch)),
            clean=clean if self.share_clean else None,
        )

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        out_adv = logits(model, crafted.x_adv)
        out: Logits = logits(model, x) if crafted.clean is None else crafted.clean
        clean, distance = F.cross_entropy(out, y), squared_distance(out_adv, out).mean()
        terms = {"clean": clean.detach(), "distance": distance.detach()}
        return Step(clean + self.weight * distance, out, terms)

    def after_step(self, model: nn.Module) -> None:
        self.iteration += 1
        self._weigh()

    def after_epoch(self, metrics: dict[str, Any]) -> None:
        self.iteration = 0
        self._weigh()

    def get_extra_state(self) -> dict[str, int]:
        return {"iteration": self.iteration}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.iteration = state["iteration"]
        self._weigh()

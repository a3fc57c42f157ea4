"""Nuclear-norm adversarial training."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toughen.attacks.base import threat_of
from toughen.attacks.fgsm import FGSM
from toughen.gradients import logits
from toughen.methods.base import Method, noise_of
from toughen.objectives import NuclearAscent, nuclear_norm
from toughen.types import Batch, Crafted, Eps, Images, Labels, Logits, Norm, Plan, Step


class NuAT(Method):
    """Clean cross-entropy plus lam x the nuclear norm of f(x_adv) - f(x) (Sriramanan et al., NeurIPS 2021).

    Passes: 8, a clean pass (3) that attack and loss share, an attack of one step (2), an adversarial pass (3).

    Towards Efficient and Effective Adversarial Training, Algorithm 1, as released: the step raises the same, and where
    Eq. 2 prints f(x_adv) in the cross-entropy, the algorithm and the released code have f(x). The attack runs in
    evaluation mode, but the clean logits it compares with come from a pass in training mode. With weight averaging in
    the trainer this is NuAT-WA.

    Args:
        eps: radius, in the units of the images; the step is as long.
        norm: "linf" or "l2".
        lam: weight of the nuclear norm at the end of its ramp; larger is more robust and less accurate on clean images.
            Without a ramp (a loop that never sets ``progress``) a large one at a large eps can hold a new net at equal
            logits for all images: at 0.3 on MNIST 1 learns, 2 does not.
        ramp: share of training over which lam rises linearly from 0.
        ramp_by: "step" raises lam at every step, "epoch" once an epoch, as released.
        start_size: size of the Bernoulli start, in the units of eps; None means eps / 2 (4/255 at 8/255, as released);
            more than eps means eps.
        alternate: leave the nuclear norm out of the attack in every other batch, the first of an epoch among them.
        cross_entropy_on: "clean", as released, or "adversarial", as Eq. 2 is printed.
        divisor: what the nuclear norm is divided by; None means the batch's size, the released code has 64.
        share_clean: use one clean pass for attack and loss. False makes two, in the released order, so that batch-norm
            statistics move three times a step instead of twice.

    Raises:
        ValueError: eps is missing or none that the norm admits, or a weight is out of its range.
    """

    lam_now: Tensor
    attack_nuclear: Tensor

    def __init__(
        self,
        *,
        eps: Eps | None = None,
        norm: Norm = "linf",
        lam: float | int = 4.0,
        ramp: float | int = 0.9,
        ramp_by: Literal["step", "epoch"] = "step",
        start_size: Eps | None = None,
        alternate: bool = True,
        cross_entropy_on: Literal["clean", "adversarial"] = "clean",
        divisor: int | None = None,
        share_clean: bool = True,
    ) -> None:
        super().__init__()
        if not (lam >= 0 and ramp >= 0) or (divisor is not None and divisor < 1):
            raise ValueError(f"lam ({lam}) and ramp ({ramp}) must be at least 0, divisor ({divisor}) at least 1")
        self.eps, self.norm, self.lam, self.ramp, self.ramp_by = eps, norm, lam, ramp, ramp_by
        self.start_size = threat_of(self).eps / 2 if start_size is None else start_size
        self.attack = FGSM(eps=eps, norm=norm, start="bernoulli", start_size=self.start_size)
        self.alternate, self.divisor, self.share_clean = alternate, divisor, share_clean
        self.cross_entropy_on = cross_entropy_on
        self.reports_clean = cross_entropy_on == "clean"
        # what changes by step is a tensor, so that compiled steps need not be compiled again
        self.register_buffer("lam_now", torch.zeros((), dtype=torch.float64), persistent=False)
        self.register_buffer("attack_nuclear", torch.zeros((), dtype=torch.float64), persistent=False)
        self.epochs = 1
        self.iteration = 0
        self.progress = 1.0

    @property
    def progress(self) -> float:
        return self._progress

    @progress.setter
    def progress(self, value: float | int) -> None:
        self._progress = float(value)
        reached = self._progress
        if self.ramp_by == "epoch" and reached < 1:
            reached = math.floor(reached * self.epochs + 1e-9) / self.epochs
        self.lam_now.fill_(self.lam * (min(1.0, reached / self.ramp) if self.ramp > 0 else 1.0))

    @property
    def iteration(self) -> int:
        """Steps since the epoch began."""
        return self._iteration

    @iteration.setter
    def iteration(self, value: int) -> None:
        self._iteration = value
        self.attack_nuclear.fill_(not (self.alternate and value % 2 == 0))

    def weight(self, n: int) -> Tensor:
        """What multiplies the nuclear norm of ``n`` images now."""
        return self.lam_now / (self.divisor or n)

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        with torch.set_grad_enabled(self.share_clean and torch.is_grad_enabled()):
            clean = logits(model, x)
        objective = NuclearAscent(clean.detach(), self.weight(len(x)) * self.attack_nuclear)
        attack = replace(self.attack, objective=objective)
        return Crafted(
            x_adv=attack(model, x, y, noise_of(batch)),
            clean=clean if self.share_clean else None,
        )

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        out_adv = logits(model, crafted.x_adv)
        out: Logits = logits(model, x) if crafted.clean is None else crafted.clean
        judged = out if self.cross_entropy_on == "clean" else out_adv
        cross_entropy, nuclear = F.cross_entropy(judged, y), nuclear_norm(out_adv - out)
        terms = {self.cross_entropy_on: cross_entropy, "nuclear": nuclear / (self.divisor or len(x))}
        loss = cross_entropy + self.weight(len(x)).to(nuclear.dtype) * nuclear
        return Step(loss, judged, {name: term.detach() for name, term in terms.items()})

    def start(self, plan: Plan) -> None:
        self.epochs = plan.epochs
        self.progress = self._progress

    def after_step(self, model: nn.Module) -> None:
        self.iteration += 1

    def after_epoch(self, metrics: dict[str, Any]) -> None:
        self.iteration = 0

    def rescue(self) -> Method | None:
        """NuAT2 with the same settings, whose second step the collapsed net cannot be blind to."""
        from toughen.methods.nuat2 import NuAT2  # built on this class, so it cannot be imported above

        return NuAT2(
            eps=self.eps,
            norm=self.norm,
            lam=self.lam,
            ramp=self.ramp,
            ramp_by=self.ramp_by,
            start_size=self.start_size,
            cross_entropy_on=self.cross_entropy_on,
            divisor=self.divisor,
        )

    def get_extra_state(self) -> dict[str, int]:
        return {"iteration": self.iteration}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.iteration = state["iteration"]

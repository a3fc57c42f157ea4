"""The base of GAT and NuAT, which add the same term to the attack's objective and to the loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from toughen.attacks.base import threat_of
from toughen.attacks.fgsm import FGSM
from toughen.core.gradients import logits
from toughen.core.objectives import Objective
from toughen.core.types import Batch, Crafted, Eps, Images, Labels, Logits, Norm
from toughen.methods.base import Method, noise_of


class _Guided(Method):
    """One step from a Bernoulli start that raises the cross-entropy plus a guide, a distance from the clean output.

    With ``alternate`` the attack has the guide in every other batch only. Numbers that change between steps are tensors
    filled in place, so that compiled or recorded steps stay valid.

    Attributes:
        lam_now: the guide's weight in this step.
        guides: whether the attack has the guide in this step, 0 or 1.
    """

    lam_now: Tensor
    guides: Tensor

    def __init__(
        self, *, eps: Eps | None, norm: Norm, start_size: Eps | None, alternate: bool, share_clean: bool
    ) -> None:
        super().__init__()
        self.eps, self.norm = eps, norm
        self.start_size = threat_of(self).eps / 2 if start_size is None else start_size
        self.attack = FGSM(eps=eps, norm=norm, start="bernoulli", start_size=self.start_size)
        self.alternate, self.share_clean = alternate, share_clean
        self.register_buffer("lam_now", torch.zeros((), dtype=torch.float64), persistent=False)
        self.register_buffer("guides", torch.zeros((), dtype=torch.float64), persistent=False)
        self.iteration = 0

    @property
    def progress(self) -> float:
        return self._progress

    @progress.setter
    def progress(self, value: float | int) -> None:
        self._progress = float(value)
        self.lam_now.fill_(self.lam_at(self._progress))

    def lam_at(self, progress: float) -> float:
        """The guide's weight at this share of training."""
        raise NotImplementedError(f"{type(self).__name__} has no lam_at: define it")

    @property
    def iteration(self) -> int:
        """Steps since the epoch began."""
        return self._iteration

    @iteration.setter
    def iteration(self, value: int) -> None:
        self._iteration = value
        self.guides.fill_(not (self.alternate and value % 2 == 0))

    def forget(self) -> None:
        super().forget()
        self.iteration = 0

    def objective(self, clean: Logits) -> Objective:
        """The attack's objective, given the logits of the clean images."""
        raise NotImplementedError(f"{type(self).__name__} has no objective: define it")

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        with torch.set_grad_enabled(self.share_clean and torch.is_grad_enabled()):
            clean = logits(model, x)
        attack = replace(self.attack, objective=self.objective(clean.detach()))
        x_adv = attack(model, x, y, noise_of(batch))
        return Crafted(x_adv=x_adv, clean=clean if self.share_clean else None)

    def after_step(self, model: nn.Module) -> None:
        self.iteration += 1

    def after_epoch(self, metrics: dict[str, Any]) -> None:
        self.iteration = 0

    def get_extra_state(self) -> dict[str, Any]:
        return {"iteration": self.iteration}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.iteration = state["iteration"]

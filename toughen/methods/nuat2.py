"""Nuclear-norm adversarial training with a two-step attack."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

from toughen.core.gradients import logits, mode
from toughen.core.modules import frozen_copy
from toughen.core.objectives import NuclearAscent
from toughen.core.types import Batch, Crafted, Eps, Images, Labels, Norm, Real
from toughen.methods.base import Method, noise_of
from toughen.methods.nuat import NuAT

TAU = 0.99  # share of the average kept at each step; the average that is reported is another, the trainer's


class NuAT2(NuAT):
    """NuAT's loss against two steps, the first of which raises the nuclear norm too (Sriramanan et al., NeurIPS 2021).

    Passes: 11, a clean pass for the attack (1), its two steps (4), clean and adversarial passes of the loss (6).

    As released the second step raises the cross-entropy alone, and the whole attack runs in evaluation mode on detached
    clean logits. Batches don't alternate. With ``first_step`` "average" and weight averaging in the trainer this is
    NuAT2-WA.

    Args:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        lam: weight of the nuclear norm at the end of its ramp; larger is more robust and less accurate on clean images.
        ramp: share of training over which lam rises linearly from 0.
        ramp_by: "step" raises lam at every step, "epoch" once an epoch, as released.
        start_size: size of the Bernoulli start, in the units of eps; None means eps / 2 (4/255 at 8/255, as released).
        step_size: length of each of the two steps, in the units of eps; None means eps, as released.
        first_step: whose gradient the first step follows: the "live" model's, or that of an "average" of its weights
            and statistics, of which 0.99 is kept at each step. The average takes over once an epoch is complete: a loop
            that never calls ``after_epoch`` stays with the live model.
        cross_entropy_on: "clean", as released, or "adversarial", as Eq. 2 is printed.
        divisor: what the loss divides the nuclear norm by; None means the batch's size, the released code has 64. The
            attack always divides by the batch's size.

    Raises:
        ValueError: eps is missing or none that the norm admits, or a weight is out of its range.
    """

    rescued_by = "PGDAT"

    def __init__(
        self,
        *,
        eps: Eps | None = None,
        norm: Norm = "linf",
        lam: float | int = 4.0,
        ramp: float | int = 0.9,
        ramp_by: Literal["step", "epoch"] = "step",
        start_size: Eps | None = None,
        step_size: Real | None = None,
        first_step: Literal["live", "average"] = "live",
        cross_entropy_on: Literal["clean", "adversarial"] = "clean",
        divisor: int | None = None,
    ) -> None:
        super().__init__(
            eps=eps,
            norm=norm,
            lam=lam,
            ramp=ramp,
            ramp_by=ramp_by,
            start_size=start_size,
            alternate=False,
            cross_entropy_on=cross_entropy_on,
            divisor=divisor,
            share_clean=False,
        )
        self.attack = replace(self.attack, step_size=step_size)
        self.first_step = first_step
        self.average: nn.Module | None = None
        self.averaged = False  # whether the average has seen a step
        self.use_average = False

    @property
    def graph_key(self) -> Hashable:
        return self.use_average

    def prepare(self, model: nn.Module, shape: tuple[int, int, int], classes: int, images: int | None = None) -> None:
        super().prepare(model, shape, classes, images)
        if self.first_step == "average":
            self.average = frozen_copy(model)

    def companions(self) -> list[nn.Module]:
        return [] if self.average is None else [self.average]

    @property
    def adaptive(self) -> dict[str, Any] | None:
        return {"defence": "nuclear", "weight": self.lam_at(1.0)}  # the attack knows no divisor

    def forget(self) -> None:
        super().forget()
        self.averaged = self.use_average = False

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        leader = self.average if self.average is not None and self.use_average else model
        with mode(leader, "eval"), torch.no_grad():
            clean = logits(leader, x)
        first = replace(self.attack, objective=NuclearAscent(clean, self.lam_now / len(x)))
        noise = noise_of(batch)
        second = replace(self.attack, start=first(leader, x, y, noise))
        return Crafted(x_adv=second(model, x, y, noise))

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        super().after_step(model)
        if self.average is None:
            return
        live, share = model.state_dict(), 1 - TAU if self.averaged else 1.0
        for name, kept in self.average.state_dict().items():
            if kept.is_floating_point():
                kept.lerp_(live[name], share)
            else:
                kept.copy_(live[name])
        self.averaged = True

    def after_epoch(self, metrics: dict[str, Any]) -> None:
        super().after_epoch(metrics)
        self.use_average = self.averaged

    def missed_epoch(self, metrics: dict[str, Any]) -> None:
        super().missed_epoch(metrics)
        self.averaged = self.use_average = False  # the average is of weights before the rescue: as in the first epoch

    def rescue_settings(self) -> dict[str, Any]:
        """Two steps of PGD, as for any method."""
        return Method.rescue_settings(self)

    def get_extra_state(self) -> dict[str, Any]:
        return {**super().get_extra_state(), "averaged": self.averaged, "use_average": self.use_average}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        super().set_extra_state(state)
        self.averaged, self.use_average = state["averaged"], state["use_average"]

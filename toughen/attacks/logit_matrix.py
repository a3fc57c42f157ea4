"""Attacks that raise a norm of the matrix of a batch's logit differences, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from toughen.attacks.base import Attack, check_counts, check_not_negative, start_call, threat_of
from toughen.attacks.pgd import PGD
from toughen.core.gradients import logits, mode
from toughen.core.objectives import LogitNorm
from toughen.core.rng import Noise
from toughen.core.threat import Start
from toughen.core.types import Eps, Images, Labels, Logits, Norm, Real


@dataclass(frozen=True, kw_only=True)
class LogitMatrix(Attack):
    """Raises the nuclear or the Frobenius norm of f(x') - f(x) over a batch (NuAT; Sriramanan et al., NeurIPS 2021).

    It uses no labels. It shows how each norm spreads a batch's predictions; use images of one class. The result of an
    image depends on the others, so there are no restarts, and no image is finished early.

    Passes: one forward, and ``steps`` forwards with as many gradients.

    Attributes:
        eps: radius, in the units of the images.
        norm: "linf" or "l2", of the threat.
        kind: which norm of the matrix is raised, "nuclear" or "frobenius".
        steps: gradient steps.
        step_size: length of a step, in the units of eps; None means 2.5 eps / steps.
        start: where it starts, as in PGD; at the images themselves there is no gradient.
        batchwise: the images of a batch are coupled.
    """

    eps: Eps | None = None
    norm: Norm = "linf"
    kind: Literal["nuclear", "frobenius"] = "nuclear"
    steps: int = 20
    step_size: Real | None = None
    start: Start = "uniform"
    batchwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        threat_of(self)
        if self.kind not in ("nuclear", "frobenius"):
            raise ValueError(f'kind {self.kind!r} is unknown: use "nuclear" or "frobenius"')
        check_counts(steps=self.steps)
        if self.steps < 1:
            raise ValueError(f"steps ({self.steps}) must be at least 1")
        check_not_negative(step_size=self.step_size)
        if isinstance(self.start, str) and self.start == "none":
            raise ValueError("there is no gradient at the images themselves: give a random start, such as uniform")

    def __call__(self, model: nn.Module, x: Images, target: Labels | Logits, noise: Noise | None = None) -> Images:
        threat, noise = start_call(self, x, noise, target)
        x = x.detach()
        with mode(model, "eval"), torch.no_grad():
            objective = LogitNorm(logits(model, x), self.kind)
        attack = PGD(
            eps=threat.eps,
            norm=threat.norm,
            steps=self.steps,
            step_size=self.step_size,
            objective=objective,
            start=self.start,
        )
        return attack(model, x, target, noise)

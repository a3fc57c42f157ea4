"""The adaptive attack: many steps on the objective that a defence was trained with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from toughen.attacks.base import Attack, check_counts, check_not_negative, start_call, threat_of
from toughen.attacks.pgd import PGD
from toughen.core.gradients import confirmed, input_gradient, logits, mode
from toughen.core.objectives import DivergenceAscent, GuidedAscent, NuclearAscent, Objective, misclassified
from toughen.core.rng import Noise
from toughen.core.threat import Start, Threat
from toughen.core.types import Eps, Images, Labels, Logits, Norm, Real


@dataclass(frozen=True, kw_only=True)
class Adaptive(Attack):
    """Multi-step PGD on the defence's own objective: NuAT's, GAT's or TRADES' (Tramer et al., arXiv:2002.08347).

    An image is returned as it was first misclassified, or else after the last step.

    Passes: one forward, and ``steps`` forwards with as many gradients; a broken image costs no more, but for "nuclear",
    where the others depend on it.

    Attributes:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        defence: "nuclear" raises the cross-entropy plus weight x the nuclear norm of f(x') - f(x) over the number of
            images (NuAT); "guided" the cross-entropy plus weight x the squared distance of probabilities (GAT); "kl"
            the divergence from the clean prediction alone (TRADES).
        weight: of the defence's own term; "kl" has no other and no use for it.
        divisor: what the nuclear norm is divided by; None means the images of a group.
        group: how many images the nuclear norm couples, in the order of the batch; of no other effect.
        steps: gradient steps.
        step_size: length of a step, in the units of eps; None means 2.5 eps / steps.
        start: where it starts, as in PGD; the defence's own term has no gradient at the images themselves.
    """

    eps: Eps | None = None
    norm: Norm = "linf"
    defence: Literal["nuclear", "guided", "kl"] = "guided"
    weight: float | int = 1.0
    divisor: int | None = None
    group: int = 64
    steps: int = 100
    step_size: Real | None = None
    start: Start = "uniform"

    def __post_init__(self) -> None:
        threat_of(self)
        if self.defence not in ("nuclear", "guided", "kl"):
            raise ValueError(f'defence {self.defence!r} is unknown: use "nuclear", "guided" or "kl"')
        check_counts(steps=self.steps, group=self.group, divisor=self.divisor)
        if self.steps < 1 or self.group < 1 or (self.divisor is not None and self.divisor < 1):
            raise ValueError(f"steps ({self.steps}), group ({self.group}), divisor ({self.divisor}) must be at least 1")
        check_not_negative(weight=self.weight, step_size=self.step_size)
        if self.defence == "kl" and isinstance(self.start, str) and self.start == "none":
            raise ValueError("the divergence has no gradient at the images themselves: give a random start")

    @property
    def batchwise(self) -> bool:
        """Whether the objective couples the images of a batch."""
        return self.defence == "nuclear"

    def objective(self, clean: Logits) -> Objective:
        """The objective for images with these clean logits, [n, k]; its target is the true label."""
        if self.defence == "nuclear":
            return NuclearAscent(clean, self.weight / (self.divisor or len(clean)))
        if self.defence == "guided":
            return GuidedAscent(clean, torch.as_tensor(self.weight, dtype=clean.dtype, device=clean.device))
        return DivergenceAscent(clean)

    def __call__(self, model: nn.Module, x: Images, target: Labels | Logits, noise: Noise | None = None) -> Images:
        threat, noise = start_call(self, x, noise, target)
        noise = noise.restart(0)
        x = x.detach()
        begin = threat.start(x, self.start, noise).detach()
        with mode(model, "eval"), torch.no_grad():
            clean = logits(model, x)
        step_size = 2.5 * threat.eps / self.steps if self.step_size is None else self.step_size
        if not self.batchwise:
            attack = PGD(
                eps=threat.eps,
                norm=threat.norm,
                steps=self.steps,
                step_size=step_size,
                objective=self.objective(clean),
                start=begin,
                stop_early=True,
            )
            return attack(model, x, target, noise)
        groups = []
        with mode(model, "eval"):
            for some in torch.arange(len(x), device=x.device).split(self.group):
                part = (x[some], target[some], begin[some], clean[some])
                groups.append(self._coupled(model, *part, threat, step_size))
        return torch.cat(groups)

    def _coupled(
        self, model: nn.Module, x: Images, y: Labels, x_adv: Images, clean: Logits, threat: Threat, step_size: Real
    ) -> Images:
        """One group: all its images take all steps; each is returned as it was first misclassified."""
        objective, result = self.objective(clean), x_adv
        broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for step in range(self.steps):
            outputs = input_gradient(model, x_adv, y, objective)
            fooled = misclassified(outputs.logits, y) & ~broken
            if step == 0:
                fooled = fooled & threat.contains(x_adv, x)  # a start may lie outside
            newly_broken = confirmed(model, x_adv, y, fooled)
            result = torch.where(newly_broken.view(-1, 1, 1, 1), threat.project(x_adv, x), result)
            broken |= newly_broken
            x_adv = threat.project(x_adv + step_size * threat.steepest(outputs.gradient), x)
        return torch.where(broken.view(-1, 1, 1, 1), result, x_adv)

"""PGD whose step size is searched at each step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from toughen.attacks.base import Attack, check_counts, start_call, threat_of
from toughen.core.gradients import confirmed, input_gradient, logits, mode
from toughen.core.objectives import Objective, cross_entropy
from toughen.core.rng import Noise
from toughen.core.threat import Start, Threat
from toughen.core.types import Eps, Images, Labels, Logits, Mask, Norm

SIZES = (1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64)


@dataclass(frozen=True, kw_only=True)
class PGDADP(Attack):
    """PGD-ADP: PGD that takes, at each step and for each image, the best of several step sizes (Chen & Lee, ACCV 2020).

    The paper says only that the step size is searched at each of 100 steps. Ours: each size of ``sizes`` is
    tried along the step's direction, and the one with the highest objective is taken, even if it is lower than before;
    an image is finished as soon as one of them is misclassified.

    Passes: ``steps x (1 + len(sizes))`` forwards and ``steps`` gradients.

    Attributes:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        steps: gradient steps.
        sizes: the step sizes that are tried, as shares of eps.
        objective: what is maximised, the cross-entropy or the margin for example; per image.
        start: where it starts, as in PGD, projected onto the ball and clipped to [0, 1].
    """

    eps: Eps | None = None
    norm: Norm = "linf"
    steps: int = 100
    sizes: tuple[float | int, ...] = SIZES
    objective: Objective = cross_entropy
    start: Start = "uniform"

    def __post_init__(self) -> None:
        threat_of(self)
        check_counts(steps=self.steps)
        if self.steps < 1:
            raise ValueError(f"steps ({self.steps}) must be at least 1")
        if not self.sizes or not all(0 < size <= 2 for size in self.sizes):
            raise ValueError(f"sizes {self.sizes} must be shares of eps, one or more, above 0 and at most 2")
        if self.objective.batchwise:
            raise ValueError("this objective couples the images of a batch, so none can choose a step: use another")

    def __call__(self, model: nn.Module, x: Images, target: Labels | Logits, noise: Noise | None = None) -> Images:
        threat, noise = start_call(self, x, noise, target)
        noise = noise.restart(0)
        x = x.detach()
        x_adv, objective = threat.project(threat.start(x, self.start, noise).detach(), x), self.objective
        result, rows = x_adv, torch.arange(len(x), device=x.device)
        with mode(model, "eval"):
            for step in range(self.steps):
                outputs = input_gradient(model, x_adv, target, objective)
                broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
                if step == 0:
                    broken = confirmed(model, x_adv, target, objective.fooled(outputs.logits, target))
                moved, later = self._search(
                    model, x, x_adv, threat.steepest(outputs.gradient), target, objective, threat
                )
                x_adv, broken = torch.where(broken.view(-1, 1, 1, 1), x_adv, moved), broken | later
                result = result.index_copy(0, rows, x_adv)
                if broken.any():
                    going = (~broken).nonzero()[:, 0]
                    rows, x, x_adv, target = rows[going], x[going], x_adv[going], target[going]
                    objective = objective.select(going)
                if not len(rows):
                    break
        return result

    @torch.no_grad()
    def _search(
        self,
        model: nn.Module,
        x: Images,
        x_adv: Images,
        direction: Images,
        y: Labels,
        objective: Objective,
        threat: Threat,
    ) -> tuple[Images, Mask]:
        """The best step in this direction, and which images it breaks; a step that breaks an image is the best."""
        best, value = x_adv, x_adv.new_full((len(x),), -torch.inf)
        for size in self.sizes:
            candidate = threat.project(x_adv + size * threat.eps * direction, x)
            out = logits(model, candidate)
            new = objective(out, y).to(value.dtype).clamp(max=torch.finfo(value.dtype).max)
            is_fooled = confirmed(model, candidate, y, objective.fooled(out, y))
            new = torch.where(is_fooled, torch.inf, new)
            best = torch.where((new > value).view(-1, 1, 1, 1), candidate, best)
            value = torch.fmax(new, value)
        return best, value == torch.inf

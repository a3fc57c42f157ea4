"""GAMA: attacks on the margin in probabilities, guided by a distance from the prediction at the start."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from toughen.attacks.base import Attack, check_counts, check_not_negative, start_call, threat_of
from toughen.core.gradients import fooled, input_gradient, logits, mode
from toughen.core.objectives import GuidedMargin
from toughen.core.rng import Noise
from toughen.core.threat import Start, Threat
from toughen.core.types import Eps, Images, Labels, Logits, Mask, Norm, Real


@dataclass(frozen=True, kw_only=True)
class _GAMA(Attack):
    """What GAMA-PGD and GAMA-FW share.

    Attributes:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        steps: gradient steps per restart.
        restarts: random starts; an image that is broken in one is not attacked in the next.
        weight: of the squared distance at the first step, from where it falls linearly.
        span: share of the steps after which that weight is 0.
        drops: shares of the steps at which steps become shorter.
        drop_factor: how many times shorter they become at each drop.
        start: "bernoulli" as released, or another random start as in PGD.
    """

    eps: Eps | None = None
    norm: Norm = "linf"
    steps: int = 100
    restarts: int = 1
    weight: float | int = 50.0
    span: float | int = 0.25
    drops: tuple[float | int, ...] = (0.6, 0.85)
    drop_factor: float | int = 10.0
    start: Start = "bernoulli"

    def __post_init__(self) -> None:
        threat_of(self)
        check_counts(steps=self.steps, restarts=self.restarts)
        if self.steps < 1 or self.restarts < 1:
            raise ValueError(f"steps ({self.steps}) and restarts ({self.restarts}) must be at least 1")
        if not 0 <= self.weight < math.inf or not 1 <= self.drop_factor < math.inf:
            raise ValueError(
                f"weight ({self.weight}) must be finite and at least 0, drop_factor ({self.drop_factor}) at least 1"
            )
        if not all(0 <= share <= 1 for share in (self.span, *self.drops)):
            raise ValueError(f"span ({self.span}) and drops {self.drops} must be shares of the steps, 0..1")

    def __call__(self, model: nn.Module, x: Images, target: Labels | Logits, noise: Noise | None = None) -> Images:
        threat, noise = start_call(self, x, noise, target)
        x = x.detach()
        with mode(model, "eval"):
            result = x
            rows = torch.arange(len(x), device=x.device)
            for restart in range(self.restarts):
                begin = threat.start(x, self.start, noise.restart(restart), clip=False).detach()
                x_adv, robust = self._run(model, x[rows], target[rows], begin[rows], threat)
                result = result.index_copy(0, rows, x_adv)
                rows = rows[robust]
                if not len(rows) or restart == self.restarts - 1:
                    break
                with torch.no_grad():
                    out = logits(model, result[rows])
                rows = rows[~fooled(model, result[rows], target[rows], out)]
                if not len(rows):
                    break
        return result

    def _run(self, model: nn.Module, x: Images, y: Labels, x_adv: Images, threat: Threat) -> tuple[Images, Mask]:
        """One restart: each image as first broken, else the last iterate; and which were not broken before that one."""
        result, rows = x_adv, torch.arange(len(x), device=x.device)
        robust = torch.ones_like(rows, dtype=torch.bool)
        reference: Logits | None = None
        for step in range(self.steps):
            outputs = input_gradient(model, x_adv, y, GuidedMargin(reference, self.weight_at(step)))
            x_next = threat.project(self._move(x, x_adv, threat, outputs.gradient, self.shrink(step)), x)
            if reference is None:
                reference = outputs.logits  # the start is not clipped to the box, so it is no result
            else:
                broken = fooled(model, x_adv, y, outputs.logits)
                if broken.any():
                    result, going = result.index_copy(0, rows[broken], x_adv[broken]), (~broken).nonzero()[:, 0]
                    robust[rows[broken]] = False
                    rows, x, y, x_next, reference = rows[going], x[going], y[going], x_next[going], reference[going]
                if not len(rows):
                    return result, robust
            x_adv = x_next
        return result.index_copy(0, rows, x_adv), robust

    def _move(self, x: Images, x_adv: Images, threat: Threat, gradient: Images, shrink: float) -> Images:
        """The next iterate before projection; the step is ``shrink`` times as long as the first one."""
        raise NotImplementedError

    def weight_at(self, step: int) -> float:
        """The weight of the squared distance at this step, counted from 0."""
        length = self.span * self.steps
        return float(self.weight * max(0.0, 1 - step / length)) if length > 0 else 0.0

    def shrink(self, step: int) -> float:
        """The length of this step, relative to the first."""
        done = sum(step >= share * self.steps - 1e-9 for share in self.drops)
        return float(self.drop_factor**-done)


@dataclass(frozen=True, kw_only=True)
class GAMAPGD(_GAMA):
    """GAMA-PGD: margin in probabilities plus a distance whose weight decays (Sriramanan et al., arXiv:2011.14969).

    The distance is taken, as released, from the prediction at the random start, which is not clipped to [0, 1]. On
    MNIST the authors use weight 5, span 0.5, steps of eps and drops at 0.5 and 0.75 (`gama-pgd-mnist` in an
    evaluation).

    Passes: ``restarts x steps`` forwards and as many gradients; with more than one restart one forward more for each
    but the last. The released code sends the start forward at every step again; its prediction never changes.

    Attributes:
        step_size: length of the first steps, in the units of eps; None means 2 eps.
    """

    step_size: Real | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(step_size=self.step_size)

    def _move(self, x: Images, x_adv: Images, threat: Threat, gradient: Images, shrink: float) -> Images:
        step_size = 2 * threat.eps if self.step_size is None else self.step_size
        return x_adv + shrink * step_size * threat.steepest(gradient)


@dataclass(frozen=True, kw_only=True)
class GAMAFW(_GAMA):
    """GAMA-PGD's objective; each step goes part of the way to the ball's best point (Frank-Wolfe; arXiv:2011.14969).

    Better than GAMA-PGD where steps are few, by the authors' account.

    Passes: as GAMA-PGD.

    Attributes:
        rate: share of the distance to that point that the first steps cover.
        drop_factor: how many times shorter steps become at each drop.
    """

    rate: float | int = 0.5
    drop_factor: float | int = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.rate <= 1:
            raise ValueError(f"rate {self.rate} must be a share of the distance, 0..1")

    def _move(self, x: Images, x_adv: Images, threat: Threat, gradient: Images, shrink: float) -> Images:
        rate = shrink * self.rate
        return x + (1 - rate) * (x_adv - x) + rate * threat.eps * threat.steepest(gradient)

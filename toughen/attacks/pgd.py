"""Iterated gradient attacks: PGD, and I-FGSM and MI-FGSM as settings of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from toughen.attacks.base import Attack, check_counts, check_not_negative, start_call, threat_of
from toughen.core.gradients import confirmed, input_gradient, logits, mode
from toughen.core.objectives import Objective, cross_entropy
from toughen.core.rng import Noise
from toughen.core.threat import Start, Threat
from toughen.core.types import Eps, Images, Labels, Logits, Mask, Mode, Norm, PerExample, Real


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Projected gradient ascent (Madry et al., arXiv:1706.06083).

    Costs ``restarts x steps`` forwards and as many gradients towards the input; with more than one restart one forward
    more for each.

    Attributes:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        steps: gradient steps per restart.
        step_size: length of a step, in the units of eps; None means 2.5 eps / steps.
        restarts: random starts; per image a result that fools the model is kept before others, of several the one
            with the highest objective.
        objective: what is maximised.
        start: "uniform", "bernoulli", "gaussian", "none", or images to start at.
        start_size: how far a random start goes, in the units of eps; None means eps (0.001 for "gaussian").
        decay: share of the accumulated gradient kept at each step (MI-FGSM, arXiv:1710.06081); 0 means none.
        mode: "eval" attacks the model in evaluation mode, "train" with each part in its own mode.
        stop_early: an image is returned as it was first misclassified; the attack ends when all are.

    Raises:
        ValueError: a setting outside its range; restarts of an objective that couples the images of a batch.
    """

    eps: Eps | None = None
    norm: Norm = "linf"
    steps: int = 10
    step_size: Real | None = None
    restarts: int = 1
    objective: Objective = cross_entropy
    start: Start = "uniform"
    start_size: Eps | None = None
    decay: float | int = 0.0
    mode: Mode = "eval"
    stop_early: bool = False

    def __post_init__(self) -> None:
        threat_of(self)
        check_counts(steps=self.steps, restarts=self.restarts)
        if self.steps < 1 or self.restarts < 1:
            raise ValueError(f"steps ({self.steps}) and restarts ({self.restarts}) must be at least 1")
        check_not_negative(step_size=self.step_size, start_size=self.start_size, decay=self.decay)
        if self.restarts > 1 and getattr(self.objective, "batchwise", False):
            raise ValueError("this objective couples the images of a batch, so restarts cannot be compared: use one")

    def __call__(self, model: nn.Module, x: Images, target: Labels | Logits, noise: Noise | None = None) -> Images:
        threat, noise = start_call(self, x, noise, target)
        x = x.detach()
        with mode(model, self.mode):
            best = self._run(model, x, target, threat, noise.restart(0))
            if self.restarts > 1:
                is_fooled, value = self._success(model, best, target)
            for number in range(1, self.restarts):
                x_adv = self._run(model, x, target, threat, noise.restart(number))
                new_fooled, new = self._success(model, x_adv, target)
                better = (new_fooled & ~is_fooled) | ((new_fooled == is_fooled) & (new > value))
                best = torch.where(better.view(-1, 1, 1, 1), x_adv, best)
                is_fooled, value = is_fooled | new_fooled, torch.where(better, new, value)
        return best

    def _run(self, model: nn.Module, x: Images, target: Labels | Logits, threat: Threat, noise: Noise) -> Images:
        """One restart."""
        step_size = 2.5 * threat.eps / self.steps if self.step_size is None else self.step_size
        x_adv = threat.start(x, self.start, noise, self.start_size).detach()
        result, rows, objective = x_adv, torch.arange(len(x), device=x.device), self.objective
        velocity: Tensor | None = None
        for step in range(self.steps):
            outputs = input_gradient(model, x_adv, target, objective)
            direction = outputs.gradient
            if self.decay:
                direction = direction / direction.abs().mean((1, 2, 3), keepdim=True).clamp(min=1e-30)
                velocity = direction = direction if velocity is None else self.decay * velocity + direction
            moved = threat.project(x_adv + step_size * threat.steepest(direction), x)
            if self.stop_early:
                is_fooled = objective.fooled(outputs.logits, target)
                if step == 0:
                    is_fooled = is_fooled & threat.contains(x_adv, x)  # a start may lie outside
                is_fooled = confirmed(model, x_adv, target, is_fooled)
                if is_fooled.any():
                    going = (~is_fooled).nonzero()[:, 0]
                    fooled_images = threat.project(x_adv[is_fooled], x[is_fooled])
                    result = result.index_copy(0, rows[is_fooled], fooled_images)
                    rows, x, target, moved = rows[going], x[going], target[going], moved[going]
                    objective = objective.select(going)
                    velocity = None if velocity is None else velocity[going]
                if not len(rows):
                    return result
            x_adv = moved
        return result.index_copy(0, rows, x_adv) if self.stop_early else x_adv

    @torch.no_grad()
    def _success(self, model: nn.Module, x_adv: Images, target: Labels | Logits) -> tuple[Mask, PerExample]:
        """Which images fool the model, and each one's objective."""
        out = logits(model, x_adv)
        is_fooled = confirmed(model, x_adv, target, self.objective.fooled(out, target))
        return is_fooled, self.objective(out, target)


@dataclass(frozen=True, kw_only=True)
class IFGSM(Attack):
    """Iterated FGSM: ``steps`` steps of eps / steps from the image itself (Kurakin et al., arXiv:1607.02533).

    Attributes:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        steps: gradient steps.
        objective: what is maximised.
        mode: "eval" attacks the model in evaluation mode, "train" with each part in its own mode.
    """

    eps: Eps | None = None
    norm: Norm = "linf"
    steps: int = 10
    objective: Objective = cross_entropy
    mode: Mode = "eval"

    def __post_init__(self) -> None:
        self._pgd()

    def _pgd(self) -> PGD:
        threat = threat_of(self)
        check_counts(steps=self.steps)
        if self.steps < 1:
            raise ValueError(f"steps ({self.steps}) must be at least 1")
        return PGD(
            eps=threat.eps,
            norm=threat.norm,
            steps=self.steps,
            step_size=threat.eps / self.steps,
            objective=self.objective,
            start="none",
            mode=self.mode,
        )

    def __call__(self, model: nn.Module, x: Images, target: Labels | Logits, noise: Noise | None = None) -> Images:
        return self._pgd()(model, x, target, noise)


@dataclass(frozen=True, kw_only=True)
class MIFGSM(IFGSM):
    """I-FGSM along an accumulated gradient, each one divided by its mean magnitude (Dong et al., arXiv:1710.06081).

    Attributes:
        decay: share of the accumulated gradient kept at each step.
    """

    decay: float | int = 1.0

    def _pgd(self) -> PGD:
        return replace(super()._pgd(), decay=self.decay)

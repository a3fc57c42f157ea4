"""Auto-PGD: gradient ascent that halves its own step size, and its targeted form."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from toughen.attacks.apgd_state import APGDState
from toughen.attacks.base import Attack, check_counts, start_call, threat_of
from toughen.core.gradients import InputGradient, confirmed, exact_logits, input_gradient, logits, mode
from toughen.core.labels import labels_explained
from toughen.core.objectives import Objective, TargetedDLR, cross_entropy
from toughen.core.rng import Noise
from toughen.core.threat import Threat
from toughen.core.types import Eps, Images, Labels, Logits, Mask, Norm, Real

_Round: TypeAlias = Callable[[Labels], tuple[Images, Mask]]
"""One round of an attack: from the rows to attack to their adversarial images and a mask of the robust ones."""


@dataclass(frozen=True, kw_only=True)
class APGD(Attack):
    """Gradient ascent with momentum, whose step is halved where it stalls (Auto-PGD; Croce & Hein, arXiv:2003.01690).

    Each image has its own step size, 2 eps at first. At a few checkpoints (``checkpoints``) it is halved, and the
    search goes back to the best point so far, where too few steps since the last checkpoint raised the objective, or
    where the best value is still the last checkpoint's and the step was not halved there. An image is finished as soon
    as it is misclassified, the random start included; one that never is ends at its best point.

    Passes: ``restarts x (steps + 1)`` forwards and ``restarts x steps`` gradients for an image that is not broken, the
    forwards and gradients of all but the last point ``eot`` times. The authors' program takes a gradient at the last
    point too, which nothing uses, carries broken images along to the end, and begins with a forward of the clean
    images. A step along an L2 gradient has its full length however small the gradient; theirs shrinks below 1e-12.

    Attributes:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        steps: gradient steps per restart.
        restarts: random starts, each for the images that are not broken yet.
        objective: what is maximised, per image: ``cross_entropy``, ``dlr`` or another.
        rho: the share of the steps between two checkpoints that must raise the objective, 0..1.
        eot: gradients averaged at each point, for a model with random outputs.

    Raises:
        ValueError: a setting outside its range; an objective that couples the images of a batch.
    """

    eps: Eps | None = None
    norm: Norm = "linf"
    steps: int = 100
    restarts: int = 1
    objective: Objective = cross_entropy
    rho: Real = 0.75
    eot: int = 1

    def __post_init__(self) -> None:
        threat_of(self)
        check_counts(steps=self.steps, restarts=self.restarts, eot=self.eot)
        if min(self.steps, self.restarts, self.eot) < 1:
            raise ValueError(
                f"steps ({self.steps}), restarts ({self.restarts}) and eot ({self.eot}) must be at least 1"
            )
        if not 0 <= self.rho <= 1:
            raise ValueError(f"rho {self.rho} is a share of steps: it must be in 0..1")
        if getattr(self.objective, "batchwise", False):
            raise ValueError("this objective couples the images of a batch: give APGD one with a value per image")

    def __call__(self, model: nn.Module, x: Images, target: Labels | Logits, noise: Noise | None = None) -> Images:
        threat, noise = start_call(self, x, noise, target)

        def once(number: int) -> _Round:
            own = noise.restart(number)
            return lambda rows: self.once(model, x[rows], target[rows], own.take(rows), self.objective.select(rows))

        with mode(model, "eval"):
            return _run_rounds(x, (once(number) for number in range(self.restarts)))

    @torch.no_grad()
    def once(self, model: nn.Module, x: Images, y: Labels, noise: Noise, objective: Objective) -> tuple[Images, Mask]:
        """One restart, on a model in evaluation mode: the resulting images, and a mask of those that are not broken."""
        threat, marks = threat_of(self), checkpoints(self.steps)
        state, result = APGDState.at(_start(x, threat, noise), x, y, 2 * threat.eps), torch.empty_like(x)
        robust = torch.ones(len(x), dtype=torch.bool, device=x.device)
        for number in range(self.steps + 1):
            if number:
                state.move(threat, keep=0.75 if number > 1 else 1.0)
            outputs = self._evaluate(model, state, objective, last=number == self.steps)
            broken = confirmed(model, state.x_adv, state.y, objective.fooled(outputs.logits, state.y))
            state.update(outputs, start=number == 0)
            if broken.any():
                out, going = state.rows[broken], (~broken).nonzero()[:, 0]
                result[out], robust[out] = state.x_adv[broken], False
                state, objective = state.take(going), objective.select(going)
                if not len(going):
                    break
            if number in marks:
                state.checkpoint(self.rho * marks[number])
        result[state.rows] = state.best
        return result, robust

    def _evaluate(self, model: nn.Module, state: APGDState, objective: Objective, last: bool) -> InputGradient:
        """Gradient (the mean of ``eot`` passes), value and logits (of the last pass) at the current points."""
        if last:
            out = logits(model, state.x_adv)
            return InputGradient(state.gradient, objective(out, state.y), out)
        total = torch.zeros_like(state.x_adv)
        for _ in range(self.eot):
            outputs = input_gradient(model, state.x_adv, state.y, objective)
            total += outputs.gradient
        # a NaN in the gradient would make an image of NaN
        return outputs._replace(gradient=(total / self.eot).nan_to_num())


@dataclass(frozen=True, kw_only=True)
class APGDT(Attack):
    """Auto-PGD towards one wrong class after the other, by the targeted DLR loss (Croce & Hein, arXiv:2003.01690).

    The classes are the wrong ones with the highest logits on the clean image, the highest first; each has its own
    random start, and only images that are not broken go on to the next. With two or three classes there is no fourth
    logit to scale by, and the plain margin towards the class takes the loss's place (``TargetedDLR``).

    Target number k of a full run is ``replace(attack, first=k, targets=1)`` with the same noise, which is keyed by k;
    so targets may be run and saved one by one.

    Passes: one forward of the clean images (exact where the model searches in low precision), then as APGD for each
    target. The authors' program repeats that forward before each target.

    Attributes:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        steps: gradient steps per target.
        targets: how many wrong classes are tried; all where there are fewer.
        first: the number of the first one, from 1, the class that is nearest to the true one by its logit.
        rho: the share of the steps between two checkpoints that must raise the objective, 0..1.
        eot: gradients averaged at each point, for a model with random outputs.

    Raises:
        ValueError: a setting outside its range.
    """

    eps: Eps | None = None
    norm: Norm = "linf"
    steps: int = 100
    targets: int = 9
    first: int = 1
    rho: Real = 0.75
    eot: int = 1

    def __post_init__(self) -> None:
        self._apgd()
        check_counts(targets=self.targets, first=self.first)
        if min(self.targets, self.first) < 1:
            raise ValueError(f"targets ({self.targets}) and first ({self.first}) must be at least 1")

    def _apgd(self) -> APGD:
        threat = threat_of(self)
        return APGD(eps=threat.eps, norm=threat.norm, steps=self.steps, rho=self.rho, eot=self.eot)

    def __call__(self, model: nn.Module, x: Images, target: Labels | Logits, noise: Noise | None = None) -> Images:
        _, noise = start_call(self, x, noise, target)
        if not len(x):
            return x.detach().clone()
        apgd = self._apgd()
        with mode(model, "eval"):
            classes = wrong_classes(model, x, target)

            def once(number: int) -> _Round:
                own, towards = noise.restart(number), classes[:, number]
                return lambda rows: apgd.once(model, x[rows], target[rows], own.take(rows), TargetedDLR(towards[rows]))

            last = min(self.first - 1 + self.targets, classes.shape[1])
            return _run_rounds(x, (once(number) for number in range(self.first - 1, last)))


@torch.no_grad()
def wrong_classes(model: nn.Module, x: Images, y: Labels) -> Tensor:
    """For each image all classes but its own, [n, k - 1], the one with the highest logit first."""
    out = exact_logits(model, x)
    with labels_explained(out, y):
        order = out.scatter(1, y[:, None], -torch.inf).argsort(1).flip(1)
    return order[:, :-1]


def checkpoints(steps: int) -> dict[int, int]:
    """The checkpoints, and the steps since the one before: for 100 steps after 22, 41, 57, 70, 80, 87, ..."""
    interval, shrink, least = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    intervals, at = {}, interval
    while at < steps:  # no step follows the last point
        intervals[at] = interval
        interval = max(interval - shrink, least)
        at += interval
    return intervals


def _run_rounds(x: Images, rounds: Iterable[_Round]) -> Images:
    """The images after several rounds, each on those that the rounds before did not break."""
    x_adv, rows = x.detach().clone(), torch.arange(len(x), device=x.device)
    for attack in rounds:
        if not len(rows):
            break
        x_adv[rows], robust = attack(rows)
        rows = rows[robust]
    return x_adv


def _start(x: Images, threat: Threat, noise: Noise) -> Images:
    """A random point on the surface of the ball, cut to the box: uniform draws over their largest, or a direction."""
    if threat.norm == "l2":
        delta = threat.steepest(noise.normal(x))
    else:
        delta = noise.uniform(x)
        delta = delta / delta.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
    return threat.project(x + threat.eps * delta, x)

"""FAB: the smallest adversarial perturbation, by projections onto a linear approximation of the boundary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from toughen.attacks.apgd import wrong_classes
from toughen.attacks.base import Attack, check_counts, start_call, threat_of
from toughen.attacks.fab_state import FABState
from toughen.core.gradients import confirmed, low_precision, mode
from toughen.core.objectives import misclassified
from toughen.core.rng import Noise
from toughen.core.threat import Threat
from toughen.core.types import Eps, Images, Labels, Logits, Norm, Real


@dataclass(frozen=True, kw_only=True)
class FAB(Attack):
    """Searches the nearest adversarial image along the decision boundary (Croce & Hein, arXiv:1907.02044).

    Each step approximates the boundary by a plane, goes a little beyond the plane's nearest points to the iterate and
    to the clean image, mixed by their distances, and comes back towards the clean image where that crossed the
    boundary. Within a budget, an image is finished as soon as it is misclassified within eps; one that never is gets
    all steps of all rounds and ends at its last point within eps.

    Round number k of a full run, that is target k with all its restarts, or without targets restart k, is
    ``replace(attack, first=k, targets=1)`` or ``replace(attack, first=k, restarts=1)`` with the same noise, which is
    keyed by k; so rounds may be run and saved one by one.

    Passes: one forward of the clean images for the order of their classes (exact where the model searches in low
    precision), then for each target and restart ``steps + 1`` forwards and ``steps`` gradients (each k - 1 of them
    without targets, for k classes) if no step crosses the boundary. A step that does costs one forward more, since a
    point that came back is another one. A point that did not cross is where the next step starts, so one pass gives
    both its logits and its gradient. Whether a point crosses is predicted from the last three; a wrong prediction costs
    one gradient or one forward more. The authors' program has ``2 steps`` forwards and
    ``steps`` gradients (each k of them), with weight gradients, and three forwards around them. All iterates are the
    same, except that a search in bf16 evaluates the model in full precision where an image first comes close to the
    boundary in a round, and where it may be broken, and corrects its logits by that.

    Attributes:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        steps: per target and restart.
        restarts: the first one starts at the clean image, others at random, eps / 2 away from it.
        targets: how many wrong classes have their boundary sought, each by itself, the highest logit on the clean
            image first (FAB-T); all where there are fewer. None means the boundary that seems nearest at each step.
        first: the number of the first target, or without targets of the first restart, from 1.
        alpha_max: the largest share of the clean image's projection in the mix, 0..1.
        eta: how far to go, in distances to the plane; above 1 is beyond it.
        beta: the share of the perturbation that is kept after a step that crossed, 0..1.
        minimise: search on after success, and return for each image the nearest adversarial that was found, however
            far: it may lie OUTSIDE the threat, eps only measures random starts. An image without any returns as it was.

    Raises:
        ValueError: a setting outside its range.
    """

    eps: Eps | None = None
    norm: Norm = "linf"
    steps: int = 100
    restarts: int = 1
    targets: int | None = 9
    first: int = 1
    alpha_max: Real = 0.1
    eta: Real = 1.05
    beta: Real = 0.9
    minimise: bool = False

    def __post_init__(self) -> None:
        threat_of(self)
        check_counts(steps=self.steps, restarts=self.restarts, targets=self.targets, first=self.first)
        for name in ("steps", "restarts", "targets", "first"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} ({value}) must be at least 1")
        for name in ("alpha_max", "beta"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} is a share: it must lie in 0..1")
        if not 1 <= self.eta < float("inf"):
            raise ValueError(f"eta {self.eta} must be a finite number, not below 1, or no step reaches the boundary")

    @torch.no_grad()
    def __call__(self, model: nn.Module, x: Images, target: Labels | Logits, noise: Noise | None = None) -> Images:
        threat, noise = start_call(self, x, noise, target)
        if not len(x):
            return x.detach().clone()
        x_adv, best = x.detach().clone(), x.new_full((len(x),), torch.inf)
        with mode(model, "eval"):
            order = wrong_classes(model, x, target)
            correction = order.new_zeros((len(x), order.shape[1] + 1), dtype=x.dtype)
            for number, restart, classes in self._rounds(order):
                # images that are broken are done; with ``minimise``, those at distance 0
                rows = (best > 0 if self.minimise else best == torch.inf).nonzero()[:, 0]
                if not len(rows):
                    break
                start = _random(x[rows], threat, noise.restart(number).take(rows)) if restart else x[rows]
                state = FABState.at(
                    start, x[rows], target[rows], classes[rows], rows, x_adv[rows], best[rows], correction[rows]
                )
                for part in self._run(model, state, threat):
                    x_adv[part.rows], best[part.rows] = part.result, part.best_distance
        return x_adv

    def _rounds(self, classes: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        """For each round: its number, which keys its noise; its restart; and the classes it moves towards, [n, m]."""
        before = self.first - 1
        if self.targets is None:
            for restart in range(before, before + self.restarts):
                yield restart, restart, classes
            return
        for number in range(before, min(before + self.targets, classes.shape[1])):
            for restart in range(self.restarts):
                yield number * self.restarts + restart, restart, classes[:, number : number + 1]

    def _run(self, model: nn.Module, state: FABState, threat: Threat) -> Iterator[FABState]:
        """One round; yields the states of images that are done, and at the end those of the rest."""
        for number in range(self.steps + 1):
            if number:
                state.compute_planes(model, threat)
                state.x_adv = self._moved(state, threat)
            out = state.evaluate(model, threat, last=number == self.steps)
            seems = misclassified(out + state.correction, state.y)
            moved = threat.distance(state.x_adv, state.x)
            near = moved < state.best_distance if self.minimise else moved <= threat.eps
            if low_precision(model):
                seems = state.calibrate(model, out, seems, near)
                adversarial = seems & near
            else:
                adversarial = confirmed(model, state.x_adv, state.y, seems & near)
            crossed = seems & (adversarial | ~near)
            keep = adversarial if self.minimise else near & (adversarial | ~seems)
            state.result = torch.where(keep.view(-1, 1, 1, 1), state.x_adv, state.result)
            state.best_distance = torch.where(adversarial, moved, state.best_distance)
            if number:
                state.step_back(crossed, self.beta)
            done = adversarial & (state.best_distance == 0) if self.minimise else adversarial
            if done.any():
                yield state.take(done.nonzero()[:, 0])
                state = state.take((~done).nonzero()[:, 0])
            if not len(state.rows):
                return
        yield state

    def _moved(self, state: FABState, threat: Threat) -> Images:
        """The next iterates: a mix of iterate and clean image, each moved ``eta`` times its way to the plane."""
        x, x_adv, slope = state.x, state.x_adv, state.gradient
        at_x = state.value + (slope * (x - x_adv)).flatten(1).sum(1)  # the plane's function at the clean image
        both = threat.onto_plane(torch.cat([x_adv, x]), torch.cat([slope, slope]), torch.cat([state.value, at_x]))
        near, far = threat.length(both).clamp(min=1e-8).chunk(2)
        alpha = (near / (near + far)).clamp(max=self.alpha_max).view(-1, 1, 1, 1)
        here, clean = both.chunk(2)
        return ((x_adv + self.eta * here) * (1 - alpha) + (x + self.eta * clean) * alpha).clamp(0, 1)


def _random(x: Images, threat: Threat, noise: Noise) -> Images:
    """A point eps / 2 away from each image, then cut to the box."""
    delta = noise.uniform(x) if threat.norm == "linf" else noise.normal(x)
    return (x + threat.eps / 2 * delta / threat.length(delta).clamp(min=1e-12).view(-1, 1, 1, 1)).clamp(0, 1)

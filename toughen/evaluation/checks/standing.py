"""Whether the images that stand go on standing under attacks that the evaluation may not have run."""

from __future__ import annotations

from functools import cached_property

import torch

from toughen.attacks.apgd import APGDT
from toughen.attacks.base import Attack
from toughen.attacks.pgd import PGD
from toughen.attacks.random_points import RandomPoints
from toughen.attacks.square import Square
from toughen.attacks.transfer import Transfer
from toughen.evaluation.checks.base import DROP, Bench, Check, allowed, judge, not_made
from toughen.objectives import margin_loss
from toughen.types import Mask

HIDDEN = 0.10  # by which it cannot, unless an attack was kept from what it needs


class Probes:
    """The attacks, each run once on the sample of standing images, when the first check asks for it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def _broken(self, kind: type[Attack], name: str, **settings: object) -> Mask:
        threat = self.bench.threat
        attack = kind(eps=threat.eps, norm=threat.norm, **settings)  # type: ignore[call-arg]
        return self.bench.broken(attack, name, self.bench.standing)

    @cached_property
    def steps(self) -> Mask:
        return self._broken(PGD, "steps", steps=200, stop_early=True)

    @cached_property
    def restarts(self) -> Mask:
        found = torch.zeros_like(self.steps)
        for number in range(3):  # one by one, so that an image that fell early is kept as it fell
            found = found | self._broken(PGD, f"restart {number}", steps=40, stop_early=True)
        return found

    @cached_property
    def margin(self) -> Mask:
        return self._broken(PGD, "margin", steps=100, objective=margin_loss, stop_early=True)

    @cached_property
    def targets(self) -> Mask:
        return self._broken(APGDT, "targets", steps=100, targets=3)

    @cached_property
    def square(self) -> Mask:
        return self._broken(Square, "square", queries=500)

    @cached_property
    def random(self) -> Mask:
        return self._broken(RandomPoints, "random", points=200)

    @cached_property
    def transferred(self) -> Mask:
        return self._broken(Transfer, "transfer", source=self.bench.subject.source)

    @cached_property
    def pgd(self) -> Mask:
        """What PGD breaks."""
        return self.steps | self.restarts if self.bench.differentiable else torch.zeros_like(self.square)

    @cached_property
    def gradient(self) -> Mask:
        """What any gradient attack breaks."""
        return self.pgd | self.margin | self.targets if self.bench.differentiable else self.pgd

    def judge(self, name: str, broken: Mask, what: str, cause: str) -> Check:
        """Whether the number stays nearly where it is without the broken images."""
        number, n = self.bench.subject.robust_accuracy, len(broken)
        figure = number * float(broken.double().mean())
        threshold, clearly = (number * allowed(n, share / number) for share in (DROP, HIDDEN))
        found = f"{what} {int(broken.sum())} of {n} images that stand, {100 * figure:.1f} points of the number"
        return judge(name, figure, threshold, f"{found}.", f"{found}: {cause}.", masking=figure > clearly)


def stronger(probes: Probes, name: str) -> Check:
    """All of these attacks together break little."""
    broken = probes.square | probes.random | probes.gradient
    cause = "the number is from attacks too weak for this model; evaluate with AutoAttack"
    return probes.judge(name, broken, "PGD-200, PGD on the margin, APGD-T, Square and random points break", cause)


def steps_settle(probes: Probes, name: str) -> Check:
    """More steps break little."""
    return probes.judge(name, probes.steps, "PGD-200 breaks", "the attacks behind the number had too few steps")


def restarts_settle(probes: Probes, name: str) -> Check:
    """More random starts break little."""
    cause = "the attacks behind the number had too few restarts"
    return probes.judge(name, probes.restarts, "PGD-40 from 3 more starts breaks", cause)


def gradient_free(probes: Probes, name: str) -> Check:
    """Square breaks little that gradients can't."""
    cause = "gradients do not show the way to what is there"
    return probes.judge(name, probes.square & ~probes.gradient, "Square, and no gradient attack, breaks", cause)


def random_points(probes: Probes, name: str) -> Check:
    """200 uniform points break little that PGD can't."""
    cause = "gradients are worse than none"
    return probes.judge(name, probes.random & ~probes.pgd, "One of 200 random points, and not PGD, breaks", cause)


def black_box(probes: Probes, name: str) -> Check:
    """Images made on another model break little that the model's own gradients can't."""
    if probes.bench.subject.source is None:
        return not_made(name, "there is no other model to make images on; give one (--source RUN)")
    cause = "another model's gradients lead better than its own"
    broken = probes.transferred & ~probes.gradient
    return probes.judge(name, broken, "MI-FGSM on another model, and not its own gradients, breaks", cause)

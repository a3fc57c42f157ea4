"""Whether attacks on this model behave as attacks do: more room, more steps and a better aim break more images."""

from __future__ import annotations

import math

import torch

from toughen.attacks.apgd import APGD
from toughen.attacks.base import Attack
from toughen.attacks.fgsm import FGSM
from toughen.attacks.pgd import PGD
from toughen.attacks.targeted import PGDLL, PGDR
from toughen.core.objectives import margin_loss
from toughen.core.threat import Threat
from toughen.core.types import Labels, Mask
from toughen.evaluation.checks.base import Check, CheckContext, judge, percent
from toughen.evaluation.checks.chance import allowed
from toughen.evaluation.checks.probes import AttackCheck, HasRoom, Probe, ProbeResults

LOOSE = 0.03  # the share of images by which an order that holds may appear reversed
APART = 0.10  # by which the cross-entropy may be worse than the margin
FACTORS = (0.25, 0.5, 1, 2, 3)  # of the threat's radius
SINGLE, PLAIN, MARGIN, REACH = "FGSM", "PGD-20", "PGD-20 on the margin", "unbounded"
TOWARDS = {"PGD-R-20": PGDR, "PGD-LL-20": PGDLL}


def radii(context: CheckContext) -> dict[str, float]:
    """The radii at which PGD is tried, by the names of the attack runs."""
    eps = context.threat.eps
    distances = [min(factor * eps, context.diameter) for factor in FACTORS]
    return {PLAIN if radius == eps else f"{PLAIN} at {radius:.6g}": radius for radius in distances}


def probes(context: CheckContext) -> list[Probe]:
    """Attacks of 20 steps on images that are right while clean, and one without bounds."""
    eps, norm = context.threat.eps, context.threat.norm

    def probe(name: str, check: str, attack: Attack) -> Probe:
        def run(rows: Labels, has_room: HasRoom) -> Mask:
            return context.broken(attack, name, rows)

        return Probe(name, check, "correct", context.price(attack), run)

    plain = PGD(eps=eps, norm=norm, steps=20, stop_early=True)
    margin = PGD(eps=eps, norm=norm, steps=20, stop_early=True, objective=margin_loss)
    order, untrue, falls = "iterative beats single-step", "PGD beats PGD-R and PGD-LL", "accuracy falls with eps"
    return [
        probe(SINGLE, order, FGSM(eps=eps, norm=norm)),
        probe(PLAIN, order, plain),
        probe(MARGIN, "cross-entropy leads as well as the margin", margin),
        _without_bounds(context),
        *(probe(name, untrue, kind(eps=eps, norm=norm, steps=20)) for name, kind in TOWARDS.items()),
        *(
            probe(name, falls, PGD(eps=radius, norm=norm, steps=20, stop_early=True))
            for name, radius in radii(context).items()
            if name != PLAIN
        ),
    ]


def _without_bounds(context: CheckContext) -> Probe:
    """With the whole box to move in, or half its diameter: images that stay correct are not broken.

    The radius is doubled until it is there: a long step at once leads from the image to where nothing has a slope. Even
    small steps of one size do on sound nets (MNIST: NuAT, and within L2 balls all that were trained for L-inf), so
    APGD, which chooses its steps, has what PGD leaves.
    """
    threat, name = context.threat, "an unbounded attack reaches 0 %"
    diameter = furthest(context)

    def run(rows: Labels, has_room: HasRoom) -> Mask | None:
        eps, largest, places = threat.eps, diameter * (1 - 1e-9), rows
        while len(rows) and eps < largest:
            eps = min(2 * eps, diameter)
            for kind, attack in _reaching(threat, eps).items():
                if len(rows) and not has_room(_blocks(context, len(rows)) * (context.price(attack))):
                    return None
                if len(rows):
                    rows = rows[~context.broken(attack, f"{name} {kind} {eps:.6g}", rows)]
        return ~torch.isin(places, rows)

    each = [context.price(attack) for attack in _reaching(threat, threat.eps).values()]
    doubled = math.ceil(math.log2(max(diameter / threat.eps, 1)))
    return Probe(REACH, name, "correct", max(each), run, worst=sum(each) * doubled)


def furthest(context: CheckContext) -> float:
    """The radius of an attack without bounds."""
    return max(context.diameter / (1 if context.threat.norm == "linf" else 2), context.threat.eps)


def _blocks(context: CheckContext, n: int) -> int:
    """Images that go through the model where ``n`` are asked for."""
    return -(-n // context.model.size) * context.model.size


def _reaching(threat: Threat, eps: float) -> dict[str, Attack]:
    apgd = APGD(eps=eps, norm=threat.norm, steps=50)
    if threat.norm == "l2":
        return {"apgd": apgd}
    return {"pgd": PGD(eps=eps, steps=40, start_size=threat.eps, stop_early=True), "apgd": apgd}


def unbounded(results: ProbeResults, name: str) -> Check:
    """With the whole box to move in, or half its diameter, every image is broken."""
    (figure,) = results.accuracies([REACH])
    fact = f"{_of_right(percent(figure))} with eps doubled up to {furthest(results.context):.3g}"
    bad = f"{fact}, although almost any image is allowed there: gradient attacks do not work on this model."
    return judge(name, figure, _allowed(results, [REACH], LOOSE), f"{fact}.", bad, masking=True)


def falls_with_eps(results: ProbeResults, name: str) -> Check:
    """Accuracy under PGD does not rise with eps."""
    names = radii(results.context)
    robust = results.accuracies(list(names))
    figure = max(after - min(robust[: i + 1]) for i, after in enumerate(robust[1:]))
    shown = ", ".join(f"{each:.0%} at eps {radius:.3g}" for each, radius in zip(robust, names.values(), strict=True))
    fact = f"{_of_right(shown)} under PGD-20"
    bad = f"{fact}: a larger eps makes the attack weaker, so its gradients are misleading."
    return judge(name, figure, _allowed(results, list(names), LOOSE), f"{fact}.", bad, masking=True)


def iterative(results: ProbeResults, name: str) -> Check:
    """PGD breaks at least as many images as FGSM."""
    return _order(results, name, [SINGLE], LOOSE)


def untargeted(results: ProbeResults, name: str) -> Check:
    """PGD breaks at least as many images as PGD towards a random or the least likely class."""
    return _order(results, name, list(TOWARDS), LOOSE)


def cross_entropy_leads(results: ProbeResults, name: str) -> Check:
    """The cross-entropy leads PGD about as well as the margin, which does not depend on the logits' scale."""
    return _order(results, name, [MARGIN], APART)


def _order(results: ProbeResults, name: str, others: list[str], slack: float) -> Check:
    """PGD breaks hardly fewer images than the best of the other attacks."""
    pgd, *robust = results.accuracies([PLAIN, *others])
    least = min(robust)
    other = others[robust.index(least)]
    fact = f"{_of_right(percent(pgd))} under PGD-20 and {percent(least)} under {other}"
    bad = f"{fact}: the gradients that PGD-20 uses are misleading."
    return judge(name, pgd - least, _allowed(results, [PLAIN, *others], slack), f"{fact}.", bad, masking=True)


def _of_right(share: str) -> str:
    return f"Of the images that are right without an attack, {share} are still right"


def _allowed(results: ProbeResults, names: list[str], share: float) -> float:
    """What chance is allowed on the images that all of these attack runs had."""
    return allowed(min(results.count(name) for name in names), share)


CHECKS = (
    AttackCheck(name="iterative beats single-step", judge=iterative, probes=(SINGLE, PLAIN)),
    AttackCheck(name="PGD beats PGD-R and PGD-LL", judge=untargeted, probes=(PLAIN, *TOWARDS)),
    AttackCheck(name="cross-entropy leads as well as the margin", judge=cross_entropy_leads, probes=(PLAIN, MARGIN)),
    AttackCheck(name="accuracy falls with eps", judge=falls_with_eps, probes=radii),
    AttackCheck(name="an unbounded attack reaches 0 %", judge=unbounded, probes=(REACH,)),
)

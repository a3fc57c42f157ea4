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
from toughen.evaluation.checks.base import Bench, Check, allowed, judge, percent
from toughen.evaluation.checks.looks import AttackCheck, Fits, Look, Looks
from toughen.evaluation.plan import cost
from toughen.evaluation.price import EXACT

LOOSE = 0.03  # the share of images by which an order that holds may look turned
APART = 0.10  # by which the cross-entropy may be the worse guide
FACTORS = (0.25, 0.5, 1, 2, 3)  # of the threat's radius
SINGLE, PLAIN, MARGIN, REACH = "FGSM", "PGD-20", "PGD-20 on the margin", "unbounded"
TOWARDS = {"PGD-R-20": PGDR, "PGD-LL-20": PGDLL}


def radii(bench: Bench) -> dict[str, float]:
    """The radii at which PGD is tried, by the names of the looks."""
    eps = bench.threat.eps
    distances = [min(factor * eps, bench.reach) for factor in FACTORS]
    return {PLAIN if radius == eps else f"{PLAIN} at {radius:.6g}": radius for radius in distances}


def looks(bench: Bench) -> list[Look]:
    """Attacks of 20 steps on images that are right while clean, and one without bounds."""
    eps, norm = bench.threat.eps, bench.threat.norm

    def look(name: str, check: str, attack: Attack) -> Look:
        def run(rows: Labels, fits: Fits) -> Mask:
            return bench.broken(attack, name, rows)

        return Look(name, check, "right", cost(attack) + 3 * EXACT, run)

    plain = PGD(eps=eps, norm=norm, steps=20, stop_early=True)
    margin = PGD(eps=eps, norm=norm, steps=20, stop_early=True, objective=margin_loss)
    order, untrue, falls = "iterative beats single-step", "PGD beats PGD-R and PGD-LL", "accuracy falls with eps"
    return [
        look(SINGLE, order, FGSM(eps=eps, norm=norm)),
        look(PLAIN, order, plain),
        look(MARGIN, "cross-entropy leads as well as the margin", margin),
        _without_bounds(bench),
        *(look(name, untrue, kind(eps=eps, norm=norm, steps=20)) for name, kind in TOWARDS.items()),
        *(
            look(name, falls, PGD(eps=radius, norm=norm, steps=20, stop_early=True))
            for name, radius in radii(bench).items()
            if name != PLAIN
        ),
    ]


def _without_bounds(bench: Bench) -> Look:
    """With the whole box to move in, or half its diameter: what stands is not broken.

    The radius is doubled until it is there: a long step at once leads from the image to where nothing has a slope. Even
    small steps of one size do on sound nets (MNIST: NuAT, and within L2 balls all that were trained for L-inf), so
    APGD, which chooses its steps, has what PGD leaves.
    """
    threat, name = bench.threat, "an unbounded attack reaches 0 %"
    reach = furthest(bench)

    def run(rows: Labels, fits: Fits) -> Mask | None:
        eps, largest, places = threat.eps, reach * (1 - 1e-9), rows
        while len(rows) and eps < largest:
            eps = min(2 * eps, reach)
            for kind, attack in _reaching(threat, eps).items():
                if len(rows) and not fits(_blocks(bench, len(rows)) * (cost(attack) + 3 * EXACT)):
                    return None
                if len(rows):
                    rows = rows[~bench.broken(attack, f"{name} {kind} {eps:.6g}", rows)]
        return ~torch.isin(places, rows)

    each = [cost(attack) + 3 * EXACT for attack in _reaching(threat, threat.eps).values()]
    doubled = math.ceil(math.log2(max(reach / threat.eps, 1)))
    return Look(REACH, name, "right", max(each), run, worst=sum(each) * doubled)


def furthest(bench: Bench) -> float:
    """The radius of an attack without bounds."""
    return max(bench.reach / (1 if bench.threat.norm == "linf" else 2), bench.threat.eps)


def _blocks(bench: Bench, n: int) -> int:
    """Images that go through the model where ``n`` are asked for."""
    return -(-n // bench.model.size) * bench.model.size


def _reaching(threat: Threat, eps: float) -> dict[str, Attack]:
    apgd = APGD(eps=eps, norm=threat.norm, steps=50)
    if threat.norm == "l2":
        return {"apgd": apgd}
    return {"pgd": PGD(eps=eps, steps=40, start_size=threat.eps, stop_early=True), "apgd": apgd}


def unbounded(taken: Looks, name: str) -> Check:
    """With the whole box to move in, or half its diameter, no image stands."""
    (figure,) = taken.stands([REACH])
    fact = f"With eps doubled up to {furthest(taken.bench):.3g}, {percent(figure)} of the clean-right images stand"
    bad = f"{fact}, although an attack may show nearly any image: it is kept from finding what is there."
    return judge(name, figure, _allowed(taken, [REACH], LOOSE), f"{fact}.", bad, masking=True)


def falls_with_eps(taken: Looks, name: str) -> Check:
    """Accuracy under PGD does not rise with eps."""
    names = radii(taken.bench)
    stands = taken.stands(list(names))
    figure = max(after - min(stands[: i + 1]) for i, after in enumerate(stands[1:]))
    shown = ", ".join(f"{each:.0%} at {radius:.3g}" for each, radius in zip(stands, names.values(), strict=True))
    fact = f"Of the clean-right images {shown} stand under PGD-20"
    bad = f"{fact}: more room makes the attack weaker, so it is led astray."
    return judge(name, figure, _allowed(taken, list(names), LOOSE), f"{fact}.", bad, masking=True)


def iterative(taken: Looks, name: str) -> Check:
    """PGD breaks at least as many images as FGSM."""
    return _order(taken, name, [SINGLE], LOOSE)


def untargeted(taken: Looks, name: str) -> Check:
    """PGD breaks at least as many images as PGD towards a random or the least likely class."""
    return _order(taken, name, list(TOWARDS), LOOSE)


def cross_entropy_leads(taken: Looks, name: str) -> Check:
    """The cross-entropy leads PGD about as well as the margin, which does not depend on the logits' scale."""
    return _order(taken, name, [MARGIN], APART)


def _order(taken: Looks, name: str, others: list[str], slack: float) -> Check:
    """PGD leaves hardly more images standing than the best of the other attacks."""
    pgd, *stands = taken.stands([PLAIN, *others])
    least = min(stands)
    other = others[stands.index(least)]
    fact = f"Of the clean-right images {percent(pgd)} stand under PGD-20 and {percent(least)} under {other}"
    bad = f"{fact}: PGD is led astray."
    return judge(name, pgd - least, _allowed(taken, [PLAIN, *others], slack), f"{fact}.", bad, masking=True)


def _allowed(taken: Looks, names: list[str], share: float) -> float:
    """What chance is allowed on the images that all of these looks had."""
    return allowed(min(taken.count(name) for name in names), share)


CHECKS = (
    AttackCheck(name="iterative beats single-step", judge=iterative, needs=(SINGLE, PLAIN)),
    AttackCheck(name="PGD beats PGD-R and PGD-LL", judge=untargeted, needs=(PLAIN, *TOWARDS)),
    AttackCheck(name="cross-entropy leads as well as the margin", judge=cross_entropy_leads, needs=(PLAIN, MARGIN)),
    AttackCheck(name="accuracy falls with eps", judge=falls_with_eps, needs=radii),
    AttackCheck(name="an unbounded attack reaches 0 %", judge=unbounded, needs=(REACH,)),
)

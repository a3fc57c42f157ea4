"""Checks that stronger attacks break more images: a larger eps, more steps, untargeted instead of targeted."""

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
from toughen.evaluation.checks.base import Check, CheckContext, judge
from toughen.evaluation.checks.chance import allowed
from toughen.evaluation.checks.probes import AttackCheck, HasRoom, Probe, ProbeResults
from toughen.utils.statistics import percent

LOOSE = 0.03  # share of images by which the weaker attack may be better
APART = 0.10  # share of images by which the cross-entropy may be worse than the margin loss
FACTORS = (0.25, 0.5, 1, 2, 3)  # of the threat's radius
SINGLE, PLAIN, MARGIN, UNBOUNDED = "FGSM", "PGD-20", "PGD-20 on the margin", "unbounded"  # names of probes
TARGETED = {"PGD-R-20": PGDR, "PGD-LL-20": PGDLL}


def radii(context: CheckContext) -> dict[str, float]:
    """The radii of the PGD probes, by the probes' names."""
    eps = context.threat.eps
    distances = [min(factor * eps, context.diameter) for factor in FACTORS]
    return {PLAIN if radius == eps else f"{PLAIN} at {radius:.6g}": radius for radius in distances}


def probes(context: CheckContext) -> list[Probe]:
    """FGSM, attacks of 20 steps and an unbounded attack, on images that are classified correctly."""
    eps, norm = context.threat.eps, context.threat.norm

    def probe(name: str, check: str, attack: Attack) -> Probe:
        def run(rows: Labels, has_room: HasRoom) -> Mask:
            return context.broken(attack, name, rows)

        return Probe(name, check, "correct", context.price(attack), run)

    plain = PGD(eps=eps, norm=norm, steps=20, stop_early=True)
    margin = PGD(eps=eps, norm=norm, steps=20, stop_early=True, objective=margin_loss)
    order, targeted, falls = "iterative beats single-step", "PGD beats PGD-R and PGD-LL", "accuracy falls with eps"
    return [
        probe(SINGLE, order, FGSM(eps=eps, norm=norm)),
        probe(PLAIN, order, plain),
        probe(MARGIN, "cross-entropy leads as well as the margin", margin),
        _unbounded_probe(context),
        *(probe(name, targeted, kind(eps=eps, norm=norm, steps=20)) for name, kind in TARGETED.items()),
        *(
            probe(name, falls, PGD(eps=radius, norm=norm, steps=20, stop_early=True))
            for name, radius in radii(context).items()
            if name != PLAIN
        ),
    ]


def _unbounded_probe(context: CheckContext) -> Probe:
    """Attacks with a radius of 1 for L-inf, of half the images' diameter for L2.

    The radius is doubled until it is as large: one long step may lead to where the gradient is zero. On some sound
    models even small steps of a fixed size do (on MNIST that of NuAT, and for L2 all that were trained for L-inf). So
    APGD, which adapts its step size, attacks the images that PGD did not break.
    """
    threat, name = context.threat, "an unbounded attack reaches 0 %"
    largest = unbounded_eps(context)
    doublings = max(math.ceil(math.log2(largest / threat.eps) - 1e-9), 1)  # one where the threat itself is as large

    def run(rows: Labels, has_room: HasRoom) -> Mask | None:
        robust = rows
        for number in range(1, doublings + 1):
            eps = min(2**number * threat.eps, largest)
            for kind, attack in _unbounded_attacks(threat, eps).items():
                if len(robust) and not has_room(_padded(context, len(robust)) * context.price(attack)):
                    return None
                if len(robust):
                    robust = robust[~context.broken(attack, f"{name} {kind} {eps:.6g}", robust)]
        return ~torch.isin(rows, robust)

    costs = [context.price(attack) for attack in _unbounded_attacks(threat, threat.eps).values()]
    return Probe(UNBOUNDED, name, "correct", max(costs), run, worst=sum(costs) * doublings)


def unbounded_eps(context: CheckContext) -> float:
    """The radius of the unbounded attack."""
    return max(context.diameter / (1 if context.threat.norm == "linf" else 2), context.threat.eps)


def _padded(context: CheckContext, n: int) -> int:
    """How many images pass through the model for ``n`` images, in full batches."""
    return math.ceil(n / context.model.size) * context.model.size


def _unbounded_attacks(threat: Threat, eps: float) -> dict[str, Attack]:
    """The attacks at one radius, in turn."""
    apgd = APGD(eps=eps, norm=threat.norm, steps=50)
    if threat.norm == "l2":
        return {"apgd": apgd}
    return {"pgd": PGD(eps=eps, steps=40, start_size=threat.eps, stop_early=True), "apgd": apgd}


def unbounded(results: ProbeResults, name: str) -> Check:
    """The unbounded attack breaks every image.

    Fails if more than 3 % of the images, plus the allowance, are not broken at a very large eps, under PGD and then
    APGD.
    """
    (figure,) = results.accuracies([UNBOUNDED])
    fact = f"{_of_correct(percent(figure))} with eps doubled up to {unbounded_eps(results.context):.3g}"
    bad = f"{fact}, although almost any image is allowed there: gradient attacks do not work on this model."
    return judge(name, figure, _allowed(results, [UNBOUNDED], LOOSE), f"{fact}.", bad, masking=True)


def falls_with_eps(results: ProbeResults, name: str) -> Check:
    """Accuracy under PGD does not rise with eps.

    Fails if accuracy increases from one eps to a larger one by more than 3 points plus the allowance.
    """
    names = radii(results.context)
    robust = results.accuracies(list(names))
    figure = max(after - min(robust[: i + 1]) for i, after in enumerate(robust[1:]))
    shown = ", ".join(f"{each:.0%} at eps {radius:.3g}" for each, radius in zip(robust, names.values(), strict=True))
    fact = f"{_of_correct(shown)} under PGD-20"
    bad = f"{fact}: a larger eps makes the attack weaker, so its gradients are misleading."
    return judge(name, figure, _allowed(results, list(names), LOOSE), f"{fact}.", bad, masking=True)


def iterative(results: ProbeResults, name: str) -> Check:
    """PGD breaks at least as many images as FGSM.

    Fails if FGSM breaks more than PGD-20, by more than 3 points plus the allowance.
    """
    return _order(results, name, [SINGLE], LOOSE)


def untargeted(results: ProbeResults, name: str) -> Check:
    """PGD breaks at least as many images as PGD towards a random or the least likely class.

    Fails if a targeted attack breaks more, by more than 3 points plus the allowance.
    """
    return _order(results, name, list(TARGETED), LOOSE)


def cross_entropy_leads(results: ProbeResults, name: str) -> Check:
    """PGD on the cross-entropy is about as strong as on the margin loss, which large logits can't saturate.

    Fails if PGD on the margin loss breaks 10 points more.
    """
    return _order(results, name, [MARGIN], APART)


def _order(results: ProbeResults, name: str, others: list[str], slack: float) -> Check:
    """PGD breaks at least as many images as the best of the other attacks; ``slack`` is the share it may miss."""
    pgd, *robust = results.accuracies([PLAIN, *others])
    lowest = min(robust)
    best = others[robust.index(lowest)]
    fact = f"{_of_correct(percent(pgd))} under PGD-20 and {percent(lowest)} under {best}"
    bad = f"{fact}: the gradients that PGD-20 uses are misleading."
    return judge(name, pgd - lowest, _allowed(results, [PLAIN, *others], slack), f"{fact}.", bad, masking=True)


def _of_correct(share: str) -> str:
    """The beginning of a sentence about the accuracy under an attack."""
    return f"Of the images that are right without an attack, {share} are still right"


def _allowed(results: ProbeResults, names: list[str], share: float) -> float:
    """The threshold for a share, with the allowance for chance on the images that all of these probes were run on."""
    return allowed(min(results.count(name) for name in names), share)


CHECKS = (
    AttackCheck(name="iterative beats single-step", judge=iterative, probes=(SINGLE, PLAIN)),
    AttackCheck(name="PGD beats PGD-R and PGD-LL", judge=untargeted, probes=(PLAIN, *TARGETED)),
    AttackCheck(name="cross-entropy leads as well as the margin", judge=cross_entropy_leads, probes=(PLAIN, MARGIN)),
    AttackCheck(name="accuracy falls with eps", judge=falls_with_eps, probes=radii),
    AttackCheck(name="an unbounded attack reaches 0 %", judge=unbounded, probes=(UNBOUNDED,)),
)

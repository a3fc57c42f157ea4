"""Checks that stronger attacks, other than those of the evaluation, don't break many more images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from toughen.attacks.apgd import APGDT
from toughen.attacks.base import Attack
from toughen.attacks.pgd import MIFGSM, PGD
from toughen.attacks.random_points import RandomPoints
from toughen.attacks.square import Square
from toughen.attacks.transfer import Transfer
from toughen.core.objectives import margin_loss
from toughen.core.types import Labels, Mask
from toughen.evaluation.checks.base import QUERY, Check, CheckContext, judge
from toughen.evaluation.checks.chance import DROP, allowed
from toughen.evaluation.checks.probes import AttackCheck, HasRoom, Probe, ProbeResults
from toughen.evaluation.plan import cost

HIDDEN = 0.10  # a larger error of the robust accuracy shows that something hinders attacks
# names of probes:
STEPS, MARGIN, SQUARE, RANDOM, TRANSFER = "steps", "margin", "square", "random", "transfer"
RESTARTS = ("restart 0", "restart 1", "restart 2")
TARGETS = ("target 1", "target 2", "target 3")
PGDS = (STEPS, *RESTARTS)
GRADIENT = (*PGDS, MARGIN, *TARGETS)
EVERY = (*GRADIENT, SQUARE, RANDOM)
POINTS = 200
DESCRIPTIONS = {  # of the probes, in sentences
    "PGD-200": (STEPS,), "PGD on the margin": (MARGIN,), "APGD-T": TARGETS, "Square": (SQUARE,),
    "PGD-40 from other starts": RESTARTS, "random points": (RANDOM,),
}  # fmt: skip
NO_SOURCE = "it needs images made on another model; give one (--surrogate RUN)"


def probes(context: CheckContext) -> list[Probe]:
    """The attacks; the one that usually breaks most images per pass is first."""
    threat = context.threat

    def probe(name: str, check: str, kind: type[Attack], noise: str = "", **settings: object) -> Probe:
        attack = kind(eps=threat.eps, norm=threat.norm, **settings)  # type: ignore[call-arg]

        def run(rows: Labels, has_room: HasRoom) -> Mask:
            if name == TRANSFER:
                context.extra_cost += 2.0 * MIFGSM.steps * len(rows)  # passes of the source model
            return context.broken(attack, noise or name, rows)

        passes = {SQUARE: QUERY * cost(attack), RANDOM: float(POINTS), TRANSFER: 2.0 * MIFGSM.steps}.get(name)
        group = RESTARTS if name in RESTARTS else TARGETS if name in TARGETS else ()
        after = group[: group.index(name)] if group else ()
        factor = 3 if name == TARGETS[0] else 1
        return Probe(name, check, "robust", context.price(attack, passes), run, factor, after=after)

    strong, steps, more = "no stronger attack is found", "more steps change little", "more restarts change little"
    free = [
        probe(SQUARE, "gradient-free does not beat gradient", Square, queries=500),
        probe(RANDOM, "random does not beat PGD", RandomPoints, points=POINTS),
    ]
    if (source := context.claim.source) is not None:
        free.insert(0, probe(TRANSFER, "white-box beats black-box", Transfer, source=source))
    if not context.differentiable:
        return free
    starts = [probe(name, more, PGD, steps=40, stop_early=True) for name in RESTARTS]
    targeted = [
        probe(name, strong, APGDT, "targets", steps=100, targets=1, first=number)
        for number, name in enumerate(TARGETS, 1)
    ]
    margin = probe(MARGIN, strong, PGD, steps=100, objective=margin_loss, stop_early=True)
    longer = probe(STEPS, steps, PGD, steps=200, stop_early=True)
    return [targeted[0], *free[:-1], starts[0], free[-1], longer, margin, targeted[1], *starts[1:], targeted[2]]


def _judged(results: ProbeResults, name: str, broken: Mask, what: str, cause: str) -> Check:
    """Whether the robust accuracy is nearly the same without the broken images.

    Args:
        results: the probes' results.
        name: the check's name.
        broken: [n], which of the first robust images were broken.
        what: the beginning of the sentence: what breaks them.
        cause: the end of the sentence if the check fails.
    """
    number, n = results.context.claim.robust_accuracy, len(broken)
    figure = number * float(broken.double().mean())
    threshold, clearly = (number * allowed(n, share / number) for share in (DROP, HIDDEN))
    fact = f"{what} {int(broken.sum())} of {n} robust images, {100 * figure:.1f} points of the robust accuracy"
    return judge(name, figure, threshold, f"{fact}.", f"{fact}: {cause}.", masking=figure > clearly)


def _only(results: ProbeResults, name: str, others: Iterable[str], first: str) -> Mask:
    """Which images one probe broke and none of the others did, among those that it and ``first`` were run on."""
    n = results.count(name)
    n = min(n, results.count(first)) if results.context.differentiable else n
    return results.broken(name, n) & ~results.any_of(others, n)


def stronger(results: ProbeResults, name: str) -> Check:
    """All of these attacks together break few images.

    With a budget, some attacks are run on fewer images than others. So the check is made for each of these numbers of
    images, and the worst result counts. On all images alone, attacks that were run on few would hardly count.

    Fails if PGD-200, PGD-40 from three more starts, PGD on the margin, APGD-T, Square and random points together reduce
    the number by 3 points; with 10 points the verdict is masked.
    """
    lengths = sorted({results.count(each) for each in EVERY} - {0})
    return max((_stronger(results, name, n) for n in lengths), key=lambda check: _excess(check))


def _stronger(results: ProbeResults, name: str, n: int) -> Check:
    """The check on the first ``n`` images."""
    names = [words for words, probes in DESCRIPTIONS.items() if any(results.count(each) for each in probes)]
    attacks = ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
    cause = "the evaluation's attacks are too weak for this model; evaluate with AutoAttack"
    broken = results.any_of(EVERY, n)
    check = _judged(results, name, broken, f"{attacks} break{'' if len(names) > 1 else 's'}", cause)
    return replace(check, images=n)


def _excess(check: Check) -> tuple[bool, float, int]:
    """A key that sorts checks from the best to the worst result; of equal results, that on more images comes last."""
    assert check.figure is not None and check.threshold is not None and check.images is not None
    return check.masking, check.figure - check.threshold, check.images


def steps_settle(results: ProbeResults, name: str) -> Check:
    """More steps break few images.

    Fails if PGD-200 reduces the number by 3 points; with 10 points the verdict is masked.
    """
    cause = "the evaluation's attacks had too few steps"
    return _judged(results, name, results.broken(STEPS), "PGD-200 breaks", cause)


def restarts_settle(results: ProbeResults, name: str) -> Check:
    """More random starts break few images.

    Fails if three more random starts reduce the number by 3 points; with 10 points the verdict is masked.
    """
    starts = sum(results.count(each) > 0 for each in RESTARTS)
    what = f"PGD-40 from {starts} more start{'s' if starts > 1 else ''} breaks"
    cause = "the evaluation's attacks had too few restarts"
    return _judged(results, name, results.any_of(RESTARTS), what, cause)


def gradient_free(results: ProbeResults, name: str) -> Check:
    """Square breaks few images that gradient attacks don't.

    Fails if Square reduces the number by 3 points with images that no gradient attack can break; with 10 points the
    verdict is masked.
    """
    cause = "gradients do not lead to adversarial images that exist"
    broken = _only(results, SQUARE, GRADIENT, TARGETS[0])
    return _judged(results, name, broken, "Square, and no gradient attack, breaks", cause)


def random_points(results: ProbeResults, name: str) -> Check:
    """200 uniform random points break few images that PGD doesn't.

    Fails if one of 200 random points reduces the number by 3 points with images that PGD cannot break; with 10 points
    the verdict is masked.
    """
    cause = "attacks are better without this model's gradients"
    broken = _only(results, RANDOM, PGDS, RESTARTS[0])
    return _judged(results, name, broken, "One of 200 random points, and not PGD, breaks", cause)


def black_box(results: ProbeResults, name: str) -> Check:
    """Attacks on another model break few images that attacks on the model's own gradients don't.

    Fails if images made on `--surrogate RUN` reduce the number by 3 points with images that no gradient attack can
    break; with 10 points the verdict is masked. `--surrogate train`: a normal net of the same architecture, trained
    once and kept in the run.
    """
    cause = "another model's gradients attack it better than its own"
    broken = _only(results, TRANSFER, GRADIENT, TARGETS[0])
    return _judged(results, name, broken, "MI-FGSM on another model, and not its own gradients, breaks", cause)


def _no_source(context: CheckContext) -> str:
    """Why there can't be a transfer attack; "" if there can."""
    return NO_SOURCE if context.claim.source is None else ""


CHECKS = (
    AttackCheck(name="more steps change little", judge=steps_settle, probes=(STEPS,)),
    AttackCheck(name="more restarts change little", judge=restarts_settle, probes=RESTARTS[:1]),
    AttackCheck(name="random does not beat PGD", judge=random_points, probes=(RANDOM, RESTARTS[0]), gradients=False),
    AttackCheck(
        name="gradient-free does not beat gradient", judge=gradient_free, probes=(SQUARE, TARGETS[0]), gradients=False
    ),
    AttackCheck(
        name="white-box beats black-box",
        judge=black_box,
        probes=(TRANSFER, TARGETS[0]),
        gradients=False,
        impossible=_no_source,
    ),
    AttackCheck(
        name="no stronger attack is found",
        judge=stronger,
        probes=EVERY,
        gradients=False,
        common=False,
    ),
)

"""Whether the images that stand go on standing under attacks that the evaluation may not have run."""

from __future__ import annotations

from collections.abc import Iterable

from toughen.attacks.apgd import APGDT
from toughen.attacks.base import Attack
from toughen.attacks.pgd import MIFGSM, PGD
from toughen.attacks.random_points import RandomPoints
from toughen.attacks.square import Square
from toughen.attacks.transfer import Transfer
from toughen.core.objectives import margin_loss
from toughen.core.types import Labels, Mask
from toughen.evaluation.checks.base import DROP, Bench, Check, allowed, judge
from toughen.evaluation.checks.looks import AttackCheck, Fits, Look, Looks
from toughen.evaluation.plan import cost
from toughen.evaluation.price import EXACT, QUERY

HIDDEN = 0.10  # by which it cannot, unless an attack was kept from what it needs
STEPS, MARGIN, SQUARE, RANDOM, TRANSFER = "steps", "margin", "square", "random", "transfer"
RESTARTS = ("restart 0", "restart 1", "restart 2")
TARGETS = ("target 1", "target 2", "target 3")
PGDS = (STEPS, *RESTARTS)
GRADIENT = (*PGDS, MARGIN, *TARGETS)
POINTS = 200
TOLD = {  # how the looks are called
    "PGD-200": (STEPS,), "PGD on the margin": (MARGIN,), "APGD-T": TARGETS, "Square": (SQUARE,),
    "PGD-40 from other starts": RESTARTS, "random points": (RANDOM,),
}  # fmt: skip
NO_SOURCE = "there is no other model to make images on; give one (--surrogate RUN)"


def looks(bench: Bench) -> list[Look]:
    """The attacks, what tells most for its passes first."""
    threat = bench.threat

    def look(name: str, check: str, kind: type[Attack], noise: str = "", **settings: object) -> Look:
        attack = kind(eps=threat.eps, norm=threat.norm, **settings)  # type: ignore[call-arg]

        def run(rows: Labels, fits: Fits) -> Mask:
            bench.besides += passes * len(rows) if name == TRANSFER else 0  # of the source, which nobody counts
            return bench.broken(attack, noise or name, rows)

        passes = {SQUARE: QUERY * cost(attack), RANDOM: POINTS, TRANSFER: 2 * MIFGSM.steps}.get(name, cost(attack))
        group = RESTARTS if name in RESTARTS else TARGETS if name in TARGETS else ()
        after = group[: group.index(name)] if group else ()
        return Look(name, check, "standing", passes + 3 * EXACT, run, 3 if name == TARGETS[0] else 1, after=after)

    strong, steps, more = "no stronger attack is found", "more steps change little", "more restarts change little"
    free = [
        look(SQUARE, "gradient-free does not beat gradient", Square, queries=500),
        look(RANDOM, "random does not beat PGD", RandomPoints, points=POINTS),
    ]
    if (source := bench.subject.source) is not None:
        free.insert(0, look(TRANSFER, "white-box beats black-box", Transfer, source=source))
    if not bench.differentiable:
        return free
    starts = [look(name, more, PGD, steps=40, stop_early=True) for name in RESTARTS]
    towards = [
        look(name, strong, APGDT, "targets", steps=100, targets=1, first=number)
        for number, name in enumerate(TARGETS, 1)
    ]
    margin = look(MARGIN, strong, PGD, steps=100, objective=margin_loss, stop_early=True)
    longer = look(STEPS, steps, PGD, steps=200, stop_early=True)
    return [towards[0], *free[:-1], starts[0], free[-1], longer, margin, towards[1], *starts[1:], towards[2]]


def _judged(taken: Looks, name: str, broken: Mask, what: str, cause: str) -> Check:
    """Whether the number stays nearly where it is without the broken images."""
    number, n = taken.bench.subject.robust_accuracy, len(broken)
    figure = number * float(broken.double().mean())
    threshold, clearly = (number * allowed(n, share / number) for share in (DROP, HIDDEN))
    found = f"{what} {int(broken.sum())} of {n} images that stand, {100 * figure:.1f} points of the number"
    return judge(name, figure, threshold, f"{found}.", f"{found}: {cause}.", masking=figure > clearly)


def _only(taken: Looks, name: str, others: Iterable[str], first: str) -> Mask:
    """Which images one look broke and no other one did, of those that it and the first of the others had."""
    n = taken.count(name)
    n = min(n, taken.count(first)) if taken.bench.differentiable else n
    return taken.broken(name, n) & ~taken.any_of(others, n)


def stronger(taken: Looks, name: str) -> Check:
    """All of these attacks together break little."""
    count = taken.count
    names = [told for told, looks in TOLD.items() if any(count(each) for each in looks)]
    told = ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
    broken = taken.any_of((*GRADIENT, SQUARE, RANDOM))
    cause = "the number is from attacks too weak for this model; evaluate with AutoAttack"
    return _judged(taken, name, broken, f"{told} break{'' if len(names) > 1 else 's'}", cause)


def steps_settle(taken: Looks, name: str) -> Check:
    """More steps break little."""
    cause = "the attacks behind the number had too few steps"
    return _judged(taken, name, taken.broken(STEPS), "PGD-200 breaks", cause)


def restarts_settle(taken: Looks, name: str) -> Check:
    """More random starts break little."""
    starts = sum(taken.count(each) > 0 for each in RESTARTS)
    what = f"PGD-40 from {starts} more start{'s' if starts > 1 else ''} breaks"
    cause = "the attacks behind the number had too few restarts"
    return _judged(taken, name, taken.any_of(RESTARTS), what, cause)


def gradient_free(taken: Looks, name: str) -> Check:
    """Square breaks little that gradients can't."""
    cause = "gradients do not show the way to what is there"
    broken = _only(taken, SQUARE, GRADIENT, TARGETS[0])
    return _judged(taken, name, broken, "Square, and no gradient attack, breaks", cause)


def random_points(taken: Looks, name: str) -> Check:
    """200 uniform points break little that PGD can't."""
    broken = _only(taken, RANDOM, PGDS, RESTARTS[0])
    return _judged(
        taken, name, broken, "One of 200 random points, and not PGD, breaks", "gradients are worse than none"
    )


def black_box(taken: Looks, name: str) -> Check:
    """Images made on another model break little that the model's own gradients can't."""
    cause = "another model's gradients lead better than its own"
    broken = _only(taken, TRANSFER, GRADIENT, TARGETS[0])
    return _judged(taken, name, broken, "MI-FGSM on another model, and not its own gradients, breaks", cause)


def _no_source(bench: Bench) -> str:
    return NO_SOURCE if bench.subject.source is None else ""


CHECKS = (
    AttackCheck(name="more steps change little", judge=steps_settle, needs=(STEPS,)),
    AttackCheck(name="more restarts change little", judge=restarts_settle, needs=RESTARTS[:1]),
    AttackCheck(name="random does not beat PGD", judge=random_points, needs=(RANDOM, RESTARTS[0]), gradients=False),
    AttackCheck(
        name="gradient-free does not beat gradient", judge=gradient_free, needs=(SQUARE, TARGETS[0]), gradients=False
    ),
    AttackCheck(
        name="white-box beats black-box",
        judge=black_box,
        needs=(TRANSFER, TARGETS[0]),
        gradients=False,
        lacks=_no_source,
    ),
    AttackCheck(
        name="no stronger attack is found",
        judge=stronger,
        needs=(*GRADIENT, SQUARE, RANDOM),
        gradients=False,
        all_of=False,
    ),
)

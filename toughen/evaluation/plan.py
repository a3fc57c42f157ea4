"""An attack in rounds, one for each restart or target; a round is run on the images that earlier ones left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

from toughen.attacks.autoattack import AutoAttack
from toughen.attacks.base import Attack
from toughen.attacks.fab import FAB


@dataclass(frozen=True)
class AttackRound:
    """One restart, or one target, of an attack or of a part of AutoAttack.

    Attributes:
        part: what it is called in results, such as "pgd-20" or "apgd-t".
        key: what its random numbers are keyed by.
        number: which restart it is, for the random numbers.
        attack: the attack, with one restart and one target.
        cost: forward equivalents for an image that stands, roughly: for the estimate of the time left.
    """

    part: str
    key: str
    number: int
    attack: Attack
    cost: int


def attack_rounds(name: str, attack: Attack) -> list[AttackRound]:
    """All rounds of an attack, in their order."""
    if isinstance(attack, AutoAttack):
        return [
            attack_round
            for part, each in attack.parts().items()
            for attack_round in _rounds(part, f"{name}/{part}", each)
        ]
    return list(_rounds(name, name, attack))


def every_iterate(attack: Attack) -> Attack:
    """The same attack, which ends for an image at the first iterate that fools the model, where it can."""
    known = {field.name for field in fields(attack)}  # type: ignore[arg-type]
    return replace(attack, stop_early=True) if "stop_early" in known else attack  # type: ignore[type-var]


def _rounds(part: str, key: str, attack: Attack) -> Iterator[AttackRound]:
    attack = every_iterate(attack)
    known = {field.name for field in fields(attack)}  # type: ignore[arg-type]
    targets, restarts = getattr(attack, "targets", None), getattr(attack, "restarts", 1)
    first = getattr(attack, "first", 1)
    if targets is not None:  # these key their random numbers by the target themselves
        numbers = [(0, {"first": first + number, "targets": 1}) for number in range(targets)]
    elif "first" in known:
        numbers = [(0, {"first": first + number, "restarts": 1}) for number in range(restarts)]
    else:
        numbers = [(number, {"restarts": 1} if "restarts" in known else {}) for number in range(restarts)]
    for number, single in numbers:
        each: Attack = replace(attack, **single)  # type: ignore[type-var]
        yield AttackRound(part, key, number, each, cost(each))


def cost(attack: Attack) -> int:
    """Forward equivalents of an attack without targets for an image that stands, roughly."""
    queries, steps = getattr(attack, "queries", None), getattr(attack, "steps", 1)
    restarts = getattr(attack, "restarts", 1) * getattr(attack, "eot", 1)
    each = 2 + len(getattr(attack, "sizes", ())) + isinstance(attack, FAB)  # FAB looks at most points twice
    return restarts * (queries + 1 if queries is not None else each * steps + 1)

"""Divides an attack into rounds, one for each restart or target; each attacks the images that no earlier one broke."""

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
        part: its name in results, such as "pgd-20" or "apgd-t".
        key, number: what its random numbers are keyed by: the attack's name, and the number of the restart.
        attack: the attack, with one restart or one target.
        cost: forward passes for an image that it does not break, roughly, for estimates of the time left.
    """

    part: str
    key: str
    number: int
    attack: Attack
    cost: int


def attack_rounds(name: str, attack: Attack) -> list[AttackRound]:
    """All rounds of an attack, in order; those of AutoAttack part by part."""
    if isinstance(attack, AutoAttack):
        return [
            attack_round
            for part, each in attack.parts().items()
            for attack_round in _rounds(part, f"{name}/{part}", each)
        ]
    return list(_rounds(name, name, attack))


def with_early_stop(attack: Attack) -> Attack:
    """The attack with ``stop_early``, where it has this setting: an image is done at the first adversarial iterate."""
    return replace(attack, stop_early=True) if "stop_early" in _settings(attack) else attack  # type: ignore[type-var]


def _settings(attack: Attack) -> set[str]:
    return {field.name for field in fields(attack)}  # type: ignore[arg-type]


def _rounds(part: str, key: str, attack: Attack) -> Iterator[AttackRound]:
    attack, known = with_early_stop(attack), _settings(attack)
    targets, restarts = getattr(attack, "targets", None), getattr(attack, "restarts", 1)
    first = getattr(attack, "first", 1)
    if targets is not None:  # such an attack keys its random numbers by the target itself
        numbers = [(0, {"first": first + number, "targets": 1}) for number in range(targets)]
    elif "first" in known:
        numbers = [(0, {"first": first + number, "restarts": 1}) for number in range(restarts)]
    else:
        numbers = [(number, {"restarts": 1} if "restarts" in known else {}) for number in range(restarts)]
    for number, settings in numbers:
        single: Attack = replace(attack, **settings)  # type: ignore[type-var]
        yield AttackRound(part, key, number, single, cost(single))


def cost(attack: Attack) -> int:
    """Forward passes of an attack without targets for an image that it does not break, roughly.

    A step with a gradient counts as two, an average over random outputs (``eot``) as many times as much.
    """
    queries, steps = getattr(attack, "queries", None), getattr(attack, "steps", 1)
    restarts = getattr(attack, "restarts", 1) * getattr(attack, "eot", 1)
    per_step = 2 + len(getattr(attack, "sizes", ())) + isinstance(attack, FAB)  # FAB runs most points twice
    return restarts * (queries + 1 if queries is not None else per_step * steps + 1)

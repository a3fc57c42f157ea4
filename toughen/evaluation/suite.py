"""Attacks by short names: `fgsm`, `pgd-20`, `pgd-100x5`, `pgd-40@0.01`."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

from toughen import attacks
from toughen.attacks.base import Attack
from toughen.types import Eps, Fraction, Norm

DEFAULT = ("fgsm", "pgd-20")
_SPEC = re.compile(r"(?P<name>[A-Za-z][A-Za-z_]*)(-(?P<steps>\d+))?(x(?P<restarts>\d+))?(@(?P<step_size>[\d./e-]+))?")


def parse_attack(spec: str, eps: Eps, norm: Norm) -> Attack:
    """The attack that a short name stands for: NAME[-STEPS][xRESTARTS][@STEP_SIZE], step size in the units of eps.

    Raises:
        ValueError: no attack has this name, or it has no such setting.
    """
    found = _SPEC.fullmatch(spec.strip())
    by_name = {name.lower(): kind for name, kind in attacks.REGISTRY.items()}
    if not found or found["name"].lower() not in by_name:
        raise ValueError(
            f"attack {spec!r} is unknown: write NAME[-STEPS][xRESTARTS][@STEP_SIZE], such as fgsm, pgd-20 or "
            f"pgd-100x5, with a name out of {', '.join(sorted(by_name))}"
        )
    kind: Any = by_name[found["name"].lower()]
    given: dict[str, Any] = {name: int(found[name]) for name in ("steps", "restarts") if found[name] is not None}
    if found["step_size"] is not None:
        given["step_size"] = Fraction(found["step_size"])
    known = {field.name for field in fields(kind)}
    for name in given.keys() - known:
        raise ValueError(f"attack {spec!r}: {kind.__name__} has no {name}; leave it out")
    attack: Attack = kind(eps=eps, norm=norm, **given)
    return attack

"""Whether a robust accuracy can be believed: all checks, and one word as their result.

The word is about the number, not about the model: a model that falls at once, reported at 0 %, is sound.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType
from typing import Literal, TypeAlias

from toughen.evaluation import checks
from toughen.evaluation.checks import data, gradients, outputs, strength, stronger
from toughen.evaluation.checks.base import Check as Check
from toughen.evaluation.checks.base import Claim as Claim
from toughen.evaluation.checks.base import ModelCheck
from toughen.evaluation.checks.probes import AttackCheck

Word: TypeAlias = Literal["sound", "doubtful", "masked", "unfinished"]

FIRST = (data, outputs, gradients, strength, stronger)  # in the order in which results name their checks
SUBJECTS = ("data", "model", "gradients")


def modules() -> list[ModuleType]:
    """All files of checks: a new one in the folder, with ``CHECKS`` in it, comes after those that are here."""
    names = sorted(info.name for info in pkgutil.iter_modules(checks.__path__))
    others = [importlib.import_module(f"{checks.__name__}.{name}") for name in names]
    return [*FIRST, *(each for each in others if each not in FIRST and hasattr(each, "CHECKS"))]


def model_checks() -> dict[str, ModelCheck]:
    """The checks that run the model, by name: first those about the data, last those about gradients."""
    checks = [each for module in modules() for each in module.CHECKS if isinstance(each, ModelCheck)]
    return {each.name: each for each in sorted(checks, key=lambda each: SUBJECTS.index(each.about))}


def attack_checks() -> dict[str, AttackCheck]:
    """The checks of what probes did, by name."""
    checks = [each for module in modules() for each in module.CHECKS if isinstance(each, AttackCheck)]
    return {each.name: each for each in checks}


MODEL_CHECKS, ATTACK_CHECKS = model_checks(), attack_checks()


def word(checks: Iterable[Check], *, complete: bool = True) -> Word:
    """One word: "masked" where a failed check shows that attacks can't work on this model, "doubtful" where any failed.

    Args:
        checks: those that were made.
        complete: whether all were made that can be; else "unfinished" takes the place of "sound".
    """
    failed = [check for check in checks if check.passed is False]
    if any(check.masking for check in failed):
        return "masked"
    if failed:
        return "doubtful"
    return "sound" if complete else "unfinished"

"""Whether a robust accuracy can be believed: sanity checks, and one word out of them.

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
from toughen.evaluation.checks.base import Question
from toughen.evaluation.checks.base import Subject as Subject
from toughen.evaluation.checks.looks import AttackCheck

Word: TypeAlias = Literal["sound", "doubtful", "masked", "unfinished"]

FIRST = (data, outputs, gradients, strength, stronger)  # in the order in which results name their checks
KINDS = ("data", "model", "gradients")


def modules() -> list[ModuleType]:
    """All files of checks: a new one in the folder, with ``CHECKS`` in it, comes after those that are here."""
    names = sorted(info.name for info in pkgutil.iter_modules(checks.__path__))
    others = [importlib.import_module(f"{checks.__name__}.{name}") for name in names]
    return [*FIRST, *(each for each in others if each not in FIRST and hasattr(each, "CHECKS"))]


def questions() -> dict[str, Question]:
    """The checks that ask the model, by name: first those of the data, last those of gradients."""
    questions_of_all = [each for module in modules() for each in module.CHECKS if isinstance(each, Question)]
    return {each.name: each for each in sorted(questions_of_all, key=lambda each: KINDS.index(each.of))}


def attack_checks() -> dict[str, AttackCheck]:
    """The checks of what attacks did, by name."""
    checks_of_all = [each for module in modules() for each in module.CHECKS if isinstance(each, AttackCheck)]
    return {each.name: each for each in checks_of_all}


QUESTIONS, ATTACK_CHECKS = questions(), attack_checks()


def word(checks: Iterable[Check], *, complete: bool = True) -> Word:
    """One word: a failed check makes it doubtful, one that shows attacks kept from what they need makes it masked.

    Args:
        made: those that there are.
        complete: whether all that can be made were; else none that is still to come may make it better.
    """
    failed = [check for check in checks if check.passed is False]
    if any(check.masking for check in failed):
        return "masked"
    if failed:
        return "doubtful"
    return "sound" if complete else "unfinished"

"""All checks of a robust accuracy, and the verdict that they result in.

The verdict is about the number, not about the model: 0 % for a model without any robustness is sound.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Literal, TypeAlias

from toughen.evaluation import checks
from toughen.evaluation.checks import data, gradients, outputs, strength, stronger
from toughen.evaluation.checks.base import Check, ModelCheck
from toughen.evaluation.checks.probes import AttackCheck

Verdict: TypeAlias = Literal["sound", "doubtful", "masked", "unfinished"]

OWN = (data, outputs, gradients, strength, stronger)  # toughen's own modules; results list their checks in this order
SUBJECTS = ("data", "model", "gradients")  # of the checks of the model, in the order in which they are made


def added_modules() -> list[ModuleType]:
    """Further modules in the folder ``checks`` that define ``CHECKS``, by name."""
    names = sorted(info.name for info in pkgutil.iter_modules(checks.__path__))
    modules = [importlib.import_module(f"{checks.__name__}.{name}") for name in names]
    return [module for module in modules if module not in OWN and hasattr(module, "CHECKS")]


def model_checks() -> dict[str, ModelCheck]:
    """The checks that run the model, by name, in the order in which they are made."""
    selected = [each for module in (*OWN, *added_modules()) for each in module.CHECKS if isinstance(each, ModelCheck)]
    return {check.name: check for check in sorted(selected, key=lambda check: SUBJECTS.index(check.about))}


def attack_checks() -> dict[str, AttackCheck]:
    """The checks of the probes' results, by name."""
    selected = [each for module in (*OWN, *added_modules()) for each in module.CHECKS if isinstance(each, AttackCheck)]
    return {check.name: check for check in selected}


MODEL_CHECKS, ATTACK_CHECKS = model_checks(), attack_checks()


def check_functions() -> dict[str, Callable[..., Check]]:
    """The function of each check, by the check's name, in the order of results; its docstring says when it fails."""
    of_model = {name: check.make for name, check in MODEL_CHECKS.items()}
    return {**of_model, **{name: check.judge for name, check in ATTACK_CHECKS.items()}}


def verdict_of(checks: Iterable[Check], *, complete: bool = True) -> Verdict:
    """The verdict that follows from checks.

    Args:
        checks: all checks; those that were not made don't count.
        complete: whether all possible checks were made.

    Returns:
        "masked" if a failed check shows that attacks can't work on this model, "doubtful" if any other check failed,
        else "sound", or "unfinished" if checks are missing.
    """
    failed = [check for check in checks if check.passed is False]
    if any(check.masking for check in failed):
        return "masked"
    if failed:
        return "doubtful"
    return "sound" if complete else "unfinished"

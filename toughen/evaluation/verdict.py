"""All checks of a robust accuracy, which of them apply to a model, and the verdict that they result in.

The verdict is about the number, not about the model: 0 % for a model without any robustness is sound.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from functools import cached_property
from types import ModuleType
from typing import Literal, TypeAlias

from toughen.evaluation import checks
from toughen.evaluation.checks import continuity, data, gradients, outputs, strength, stronger
from toughen.evaluation.checks.base import Check, CheckContext, ModelCheck
from toughen.evaluation.checks.probes import AttackCheck, Probe

Verdict: TypeAlias = Literal["sound", "doubtful", "masked", "unfinished"]

# toughen's own modules; results list their checks in this order
OWN = (data, outputs, gradients, continuity, strength, stronger)
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


class Applicable:
    """The checks and probes that can be made; the model must be in evaluation mode when a property is first read.

    Args:
        context: the robust accuracy, with samples of its images.
    """

    def __init__(self, context: CheckContext) -> None:
        self.context = context

    @cached_property
    def no_correct(self) -> str:
        """Why the model can't be checked; "" if it can."""
        return "" if len(self.context.correct) else "the model classifies no image correctly"

    @cached_property
    def no_robust(self) -> str:
        """Why attacks are not needed; "" if they are."""
        return "" if len(self.context.robust) else "no image is robust, so no attack can lower the robust accuracy"

    @cached_property
    def no_gradient(self) -> str:
        """Why gradients can't be used; "" if they can."""
        if self.no_correct or self.no_robust:
            return self.no_robust or self.no_correct
        return "" if self.context.differentiable else "the logits have no gradient with respect to the images"

    @property
    def reasons(self) -> dict[str, str]:
        """For each subject, why checks about it can't be made; "" if they can."""
        return {"data": "", "model": self.no_correct, "gradients": self.no_gradient}

    @property
    def model_checks(self) -> dict[str, ModelCheck]:
        """The checks of the model that can be made and that run it, by name."""
        reasons = self.reasons
        return {name: check for name, check in MODEL_CHECKS.items() if check.runs_model and not reasons[check.about]}

    @cached_property
    def probes(self) -> list[Probe]:
        """The probes that can be run, in order of priority."""
        if self.no_robust:
            return []
        basic = [] if self.no_gradient else strength.probes(self.context)
        modules = [module for module in added_modules() if hasattr(module, "probes")]
        added = [probe for module in modules for probe in module.probes(self.context)]
        if self.no_gradient:
            added = [probe for probe in added if not ATTACK_CHECKS[probe.check].gradients]
        return [*basic[:4], *stronger.probes(self.context), *basic[4:], *added]


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

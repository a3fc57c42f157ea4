"""Which checks apply to a robust accuracy, and why the others can't be made."""

from __future__ import annotations

from functools import cached_property

from toughen.evaluation import verdict
from toughen.evaluation.checks import strength, stronger
from toughen.evaluation.checks.base import CheckContext, ModelCheck
from toughen.evaluation.checks.probes import Probe


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
        reasons, checks = self.reasons, verdict.MODEL_CHECKS.items()
        return {name: check for name, check in checks if check.runs_model and not reasons[check.about]}

    @cached_property
    def probes(self) -> list[Probe]:
        """The probes that can be run, in order of priority."""
        if self.no_robust:
            return []
        basic = [] if self.no_gradient else strength.probes(self.context)
        modules = [module for module in verdict.added_modules() if hasattr(module, "probes")]
        added = [probe for module in modules for probe in module.probes(self.context)]
        return [*basic[:4], *stronger.probes(self.context), *basic[4:], *added]

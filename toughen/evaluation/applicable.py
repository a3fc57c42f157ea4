"""Which checks of a verdict apply to a claim, and why the others do not."""

from __future__ import annotations

from functools import cached_property

from toughen.evaluation import verdict
from toughen.evaluation.checks import strength, stronger
from toughen.evaluation.checks.base import CheckContext, ModelCheck
from toughen.evaluation.checks.probes import Probe


class Applicable:
    """The checks and probes that a claim leaves to be made; read it while the model is in evaluation mode.

    Args:
        context: the claim, with samples of its images.
    """

    def __init__(self, context: CheckContext) -> None:
        self.context = context

    @cached_property
    def no_correct(self) -> str:
        """Why the model can't be checked; "" where it can."""
        return "" if len(self.context.correct) else "the model classifies no image correctly"

    @cached_property
    def no_robust(self) -> str:
        """Why no attack need be tried; "" where one need."""
        return "" if len(self.context.robust) else "no image is robust, so no attack can lower the robust accuracy"

    @cached_property
    def no_gradient(self) -> str:
        """Why no gradient can be followed; "" where one can."""
        if self.no_correct or self.no_robust:
            return self.no_robust or self.no_correct
        return "" if self.context.differentiable else "the logits have no gradient with respect to the images"

    @property
    def reasons(self) -> dict[str, str]:
        """Why checks about each subject can't be made; "" where they can."""
        return {"data": "", "model": self.no_correct, "gradients": self.no_gradient}

    @property
    def model_checks(self) -> dict[str, ModelCheck]:
        """The checks that can run the model, by name."""
        reasons, known = self.reasons, verdict.MODEL_CHECKS.items()
        return {name: check for name, check in known if check.runs_model and not reasons[check.about]}

    @cached_property
    def probes(self) -> list[Probe]:
        """The probes that can be run, in order of priority."""
        if self.no_robust:
            return []
        first, then = [] if self.no_gradient else strength.probes(self.context), stronger.probes(self.context)
        more = [module for module in verdict.modules()[len(verdict.FIRST) :] if hasattr(module, "probes")]
        others = [probe for module in more for probe in module.probes(self.context)]
        return [*first[:4], *then, *first[4:], *others]

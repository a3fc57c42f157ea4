"""Whether a robust accuracy can be believed: sanity checks, and one word out of them.

The word is about the number, not about the model: a model that falls at once, reported at 0 %, is sound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

from toughen.evaluation.checks import data, gradients, outputs, strength, stronger
from toughen.evaluation.checks.base import Bench
from toughen.evaluation.checks.base import Check as Check
from toughen.evaluation.checks.base import Subject as Subject

Word: TypeAlias = Literal["sound", "doubtful", "masked", "unfinished"]

OF_THE_DATA: dict[str, Callable[[Bench, str], Check]] = {
    "images as the model wants them": data.input_range,
    "labels that fit": data.labels_fit,
    "enough images": data.enough,
}
OF_THE_MODEL: dict[str, Callable[[Bench, str], Check]] = {
    "evaluation mode": outputs.evaluation_mode,
    "the same answer each time": outputs.deterministic,
    "the same answer alone": outputs.alone,
    "logits, not probabilities": outputs.unscaled,
    "logits of a usual size": outputs.usual_size,
    "gradients that are not zero": gradients.there,
}
OF_GRADIENTS: dict[str, Callable[[Bench, str], Check]] = {
    "gradients of the function itself": gradients.true_slope,
    "gradients that are not noise": gradients.steady,
    "a margin without jumps": gradients.continuous,
}
OF_ATTACKS: dict[str, Callable[[strength.Trials, str], Check]] = {
    "iterative beats single-step": strength.iterative,
    "PGD beats PGD-R and PGD-LL": strength.untargeted,
    "cross-entropy leads as well as the margin": strength.cross_entropy_leads,
    "accuracy falls with eps": strength.falls_with_eps,
    "an unbounded attack reaches 0 %": strength.unbounded,
}
OF_GRADIENTS_ON_WHAT_STANDS: dict[str, Callable[[stronger.Probes, str], Check]] = {
    "more steps change little": stronger.steps_settle,
    "more restarts change little": stronger.restarts_settle,
}
OF_WHAT_STANDS: dict[str, Callable[[stronger.Probes, str], Check]] = {
    "random does not beat PGD": stronger.random_points,
    "gradient-free does not beat gradient": stronger.gradient_free,
    "white-box beats black-box": stronger.black_box,
    "no stronger attack is found": stronger.stronger,
}


def word(checks: Iterable[Check], *, complete: bool = True) -> Word:
    """One word: a failed check makes it doubtful, one that shows attacks kept from what they need makes it masked.

    Args:
        checks: those that there are.
        complete: whether all that can be made were; else none that is still to come may make it better.
    """
    failed = [check for check in checks if check.passed is False]
    if any(check.masking for check in failed):
        return "masked"
    if failed:
        return "doubtful"
    return "sound" if complete else "unfinished"

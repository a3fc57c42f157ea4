"""Whether a robust accuracy can be believed: sanity checks, and one word out of them.

The word is about the number, not about the model: a model that falls at once, reported at 0 %, is sound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Literal, TypeAlias, TypeVar

import torch

from toughen.blocks import Blocks
from toughen.evaluation.checks import data, outputs, slopes, standing, strength
from toughen.evaluation.checks.base import Bench, not_made
from toughen.evaluation.checks.base import Check as Check
from toughen.evaluation.checks.base import Subject as Subject
from toughen.gradients import mode

Word: TypeAlias = Literal["sound", "doubtful", "masked"]
T = TypeVar("T")
LIMIT = 100  # images that a check looks at

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
    "gradients that are not zero": slopes.there,
}
OF_GRADIENTS: dict[str, Callable[[Bench, str], Check]] = {
    "gradients of the function itself": slopes.true_slope,
    "gradients that are not noise": slopes.steady,
    "a margin without jumps": slopes.continuous,
}
OF_ATTACKS: dict[str, Callable[[strength.Trials, str], Check]] = {
    "iterative beats single-step": strength.iterative,
    "PGD beats PGD-R and PGD-LL": strength.untargeted,
    "cross-entropy leads as well as the margin": strength.cross_entropy_leads,
    "accuracy falls with eps": strength.falls_with_eps,
    "an unbounded attack reaches 0 %": strength.unbounded,
}
OF_GRADIENTS_ON_WHAT_STANDS: dict[str, Callable[[standing.Probes, str], Check]] = {
    "more steps change little": standing.steps_settle,
    "more restarts change little": standing.restarts_settle,
}
OF_WHAT_STANDS: dict[str, Callable[[standing.Probes, str], Check]] = {
    "random does not beat PGD": standing.random_points,
    "gradient-free does not beat gradient": standing.gradient_free,
    "white-box beats black-box": standing.black_box,
    "no stronger attack is found": standing.stronger,
}


def word(checks: Iterable[Check]) -> Word:
    """One word: a failed check makes it doubtful, one that shows attacks kept from what they need makes it masked."""
    failed = [check for check in checks if check.passed is False]
    if any(check.masking for check in failed):
        return "masked"
    return "doubtful" if failed else "sound"


def checks(subject: Subject, blocks: Blocks, limit: int = LIMIT) -> list[Check]:
    """Every check that can be made, and the reason why another cannot.

    Args:
        subject: the number, and what it was made of.
        blocks: the model, as the evaluation asked it.
        limit: images that a check looks at.
    """
    devices = [subject.labels.device] if subject.labels.device.type == "cuda" else []
    with torch.random.fork_rng(devices), mode(subject.net, "eval"), mode(blocks, "eval"):
        torch.manual_seed(subject.seed)  # for a model that draws
        bench = Bench(subject, blocks, limit)
        probes = standing.Probes(bench)
        nothing = "no image is right" if not len(bench.right) else ""
        flat = nothing or ("" if bench.differentiable else "the logits carry no gradient to the images")
        moot = "no image stands, so no attack can lower the number" if not len(bench.standing) else ""
        found = [
            *(make(bench, name) for name, make in OF_THE_DATA.items()),
            *_made(OF_THE_MODEL, bench, nothing),
            *_made(OF_GRADIENTS, bench, moot or flat),
            *_made(OF_ATTACKS, strength.Trials(bench), moot or flat),
            *_made(OF_GRADIENTS_ON_WHAT_STANDS, probes, moot or flat),
            *_made(OF_WHAT_STANDS, probes, moot),
        ]
    return [replace(check, masking=False) for check in found] if moot else found  # 0 % hides nothing


def _made(kinds: dict[str, Callable[[T, str], Check]], given: T, reason: str) -> list[Check]:
    """The checks, or, with a reason, their absence."""
    return [not_made(name, reason) if reason else make(given, name) for name, make in kinds.items()]

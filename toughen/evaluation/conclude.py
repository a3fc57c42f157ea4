"""The verdict of an evaluation: plans the budget of the checks, makes them and summarises the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation.budget import allowed_seconds, passes_within
from toughen.evaluation.checks.base import Check, Claim
from toughen.evaluation.checks.chance import at_most
from toughen.evaluation.display import CheckProgress
from toughen.evaluation.examination import FINE, LIMIT, PRICE, STRONGER, Examination
from toughen.evaluation.examination_state import ExaminationState, restore
from toughen.evaluation.function_model import FunctionModel
from toughen.evaluation.job import Job
from toughen.evaluation.result import Evaluation, share
from toughen.evaluation.target import EvaluationTarget
from toughen.evaluation.verdict import verdict_of
from toughen.utils import hashing


class Unfinished(KeyboardInterrupt):
    """An evaluation was stopped after its attacks; its results so far are written, and the same call resumes it.

    Attributes:
        result: the contents of evaluation.json.
        number: the signal's number, where there was a signal.
    """

    def __init__(self, result: dict[str, Any], stopped: KeyboardInterrupt) -> None:
        super().__init__(*stopped.args)
        self.result = result
        if (number := getattr(stopped, "number", None)) is not None:
            self.number = number


def conclude(job: Job, evaluation: Evaluation) -> tuple[dict[str, Any], KeyboardInterrupt | None]:
    """Make the checks; their state is stored beside that of the attacks.

    Returns:
        The fields of evaluation.json with the verdict and its checks, and the signal that stopped the checks early, if
        there was one.
    """
    job.say("now the checks of whether the robust accuracy can be trusted")
    model = job.model()
    net = job.target.net  # a frozen script has no mode
    trained_mode = None if isinstance(net, FunctionModel) else getattr(net, "training", False)
    claim = claim_of(evaluation, job.target, model, job.config.seed, job.source, trained_mode)
    state = _state(evaluation, claim, model, job.config.cheap)
    examination, stopped = Examination(claim, model, state), None
    try:
        with CheckProgress(examination, job.console) as progress:
            examination.make(progress.show)
    except KeyboardInterrupt as signal:
        stopped = signal
    checks = examination.checks(stopped=stopped is not None)
    verdict: dict[str, Any] = {
        "verdict": verdict_of(checks, complete=stopped is None),
        "checks": [asdict(check) for check in checks],
    }
    if state.budget is not None:
        price = {"seconds": allowed_seconds(_seconds(evaluation)), "passes": state.budget, "spent": round(state.spent)}
        verdict["price"] = price | {"note": omissions(checks, unseen(checks, claim))}
    return verdict, stopped


def unseen(checks: Sequence[Check], claim: Claim) -> float | None:
    """By how much the robust accuracy may be too high, 0..1: the upper 95 % limit from the stronger attacks' sample.

    None if these attacks were not run, or if their check failed.
    """
    check = next((check for check in checks if check.name == STRONGER and check.passed), None)
    if check is None or check.images is None or check.figure is None:
        return None
    broken = round(check.figure / claim.robust_accuracy * check.images)
    return at_most(broken, check.images, int(claim.robust.sum())) / len(claim.labels)


def omissions(checks: Sequence[Check], unseen: float | None = None) -> str:
    """A sentence on what was left out because of the budget; "" if nothing was.

    Args:
        checks: all checks, including those that were not made.
        unseen: the return value of ``unseen``.
    """
    fewer = [check.images for check in checks if check.images is not None and check.images < (check.of or 0)]
    left_out = sum(check.passed is None and PRICE in check.sentence for check in checks)
    if not fewer and not left_out:
        return ""
    parts = []
    if fewer:
        span = f"{min(fewer)} to {max(fewer)}" if len(set(fewer)) > 1 else f"{fewer[0]}"
        parts.append(f"{len(fewer)} of {len(checks)} checks used {span} images instead of {LIMIT} or all")
    if left_out:
        parts.append(f"{left_out} {'was' if left_out == 1 else 'were'} left out")
    limit = f". The number may still be up to {100 * unseen:.0f} points too high" if unseen else ""
    omitted = f"{' and '.join(parts)}{limit}"
    return f"To take no longer than the attacks or 20 s, {omitted}. --suite standard leaves nothing out."


def claim_of(
    evaluation: Evaluation,
    target: EvaluationTarget,
    model: FixedBatchModel,
    seed: int,
    source: nn.Module | None = None,
    trained_mode: bool | None = None,
) -> Claim:
    """The robust accuracy and what it was measured on; ``source`` and ``trained_mode`` as in ``Claim``."""
    split = evaluation.split
    return Claim(
        net=model.net,
        images=split.images,
        labels=split.labels,
        index=evaluation.index,
        threat=target.threat,
        seed=seed,
        robust=evaluation.robust,
        correct=evaluation.correct,
        robust_accuracy=share(evaluation.robust),
        trained_mode=trained_mode,
        source=source.to(split.images.device) if source is not None else None,
        own=target.folder is not None,
    )


def _state(evaluation: Evaluation, claim: Claim, model: FixedBatchModel, cheap: bool) -> ExaminationState:
    """The stored state of the checks, or a new one; its budget is measured once and stored."""
    path = None if evaluation.state.path is None else evaluation.state.path.with_suffix(".json")
    source = [] if claim.source is None else list(map(hashing.of_tensor, claim.source.state_dict().values()))
    key = {"cheap": cheap, "source": source, "trained_mode": claim.trained_mode, "own": claim.own}
    if (stored := restore(path, key)) is not None:
        return stored
    state = ExaminationState(path, key)
    if cheap:
        state.budget, state.size = _budget(claim, model, allowed_seconds(_seconds(evaluation)))
    state.save()
    return state


def _budget(claim: Claim, model: FixedBatchModel, seconds: float) -> tuple[int | None, int | None]:
    """Forward passes that fit into the time, and images per batch; (None, None) if all checks fit."""
    rows = torch.arange(min(model.size, len(claim.labels)), device=claim.labels.device)
    unlimited = Examination(claim, model, ExaminationState())
    x, y = unlimited.context.x(rows), unlimited.context.y(rows)
    if passes_within(unlimited.context.model, x, y, seconds) >= unlimited.total_cost():
        return None, None
    on_cpu = claim.labels.device.type == "cpu"
    size = min(model.size, 8 if on_cpu else 64)
    budget = passes_within(Examination(claim, model, ExaminationState(size=size)).context.model, x, y, seconds)
    return budget, min(size, 4) if on_cpu and budget < FINE else size


def _seconds(evaluation: Evaluation) -> float:
    """How long the attacks took."""
    return sum(sum(evaluation.state.of(name).seconds.values()) for name in evaluation.parts)

"""Concludes whether a number can be believed: what the checks may cost, how far they are, and what they said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from torch import nn

from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation.attacked import share
from toughen.evaluation.checks.base import Check, Subject
from toughen.evaluation.display import Steps
from toughen.evaluation.examination import FINE, LIMIT, STRONGER, Examination
from toughen.evaluation.kept import Kept, restore
from toughen.evaluation.price import allowed_seconds, passes_within
from toughen.evaluation.result import Evaluation
from toughen.evaluation.target import EvaluationTarget
from toughen.evaluation.verdict import word
from toughen.utils import hashing


class Unfinished(KeyboardInterrupt):
    """An evaluation was stopped after its attacks; what is known is written, and the same call goes on.

    Attributes:
        result: what is known, as evaluation.json holds it.
        number: the signal's.
    """

    def __init__(self, result: dict[str, Any], stopped: KeyboardInterrupt) -> None:
        super().__init__(*stopped.args)
        self.result = result
        if (number := getattr(stopped, "number", None)) is not None:
            self.number = number


@dataclass(frozen=True)
class VerdictInputs:
    """What is concluded about, and how deep the checks look.

    Attributes:
        blocks: the model, as it was attacked.
        seed: of the evaluation.
        source: a normally trained net for the same images; None where there is none.
        trained_mode: whether the model came in training mode; None for a function.
        cheap: whether the checks may cost no more than the attacks did, or 20 s.
    """

    blocks: FixedBatchModel
    seed: int
    source: nn.Module | None
    trained_mode: bool | None
    cheap: bool


def conclude(
    evaluation: Evaluation, target: EvaluationTarget, inputs: VerdictInputs, console: Console | None
) -> tuple[dict[str, Any], KeyboardInterrupt | None]:
    """The word, the checks behind it and what was cut; and the signal that came before they were all made.

    Args:
        found: what the attacks did; beside its state it is kept how far the checks are.
        target: what was attacked.
        asked: how.
        console: where to show progress.
    """
    subject = subject_of(evaluation, target, inputs)
    kept = _kept(evaluation, subject, inputs)
    examination, stopped = Examination(subject, inputs.blocks, kept), None
    try:
        with Steps(examination, console) as steps:
            examination.make(steps.show)
    except KeyboardInterrupt as signal:
        stopped = signal
    checks = examination.found(stopped=stopped is not None)
    said: dict[str, Any] = {
        "verdict": word(checks, complete=stopped is None),
        "checks": [asdict(check) for check in checks],
    }
    if kept.budget is not None:
        price = {"seconds": allowed_seconds(_seconds(evaluation)), "passes": kept.budget, "spent": round(kept.spent)}
        said["price"] = price | {"told": told(checks)}
    return said, stopped


def told(checks: Sequence[Check]) -> str:
    """What was cut to keep to the price; "" where nothing was."""
    fewer = [check.images for check in checks if check.images is not None and check.images < (check.of or 0)]
    left_out = sum(check.passed is None and "its price" in check.sentence for check in checks)
    if not fewer and not left_out:
        return ""
    parts = []
    if fewer:
        span = f"{min(fewer)} to {max(fewer)}" if len(set(fewer)) > 1 else f"{fewer[0]}"
        parts.append(f"{len(fewer)} of {len(checks)} checks looked at {span} images instead of {LIMIT} or all")
    if left_out:
        parts.append(f"{left_out} {'was' if left_out == 1 else 'were'} left out")
    rough = next((check.threshold for check in checks if check.name == STRONGER and check.passed), None)
    passes = f"; they would not notice a number that is up to {100 * rough:.0f} points too high" if rough else ""
    return f"To cost no longer than the attacks or 20 s, {' and '.join(parts)}{passes}. --suite standard cuts nothing."


def subject_of(evaluation: Evaluation, target: EvaluationTarget, inputs: VerdictInputs) -> Subject:
    """The number, and all that is known of how it came about."""
    split, source = evaluation.split, inputs.source
    return Subject(
        net=inputs.blocks.net,
        images=split.images,
        labels=split.labels,
        index=evaluation.index,
        threat=target.threat,
        seed=inputs.seed,
        standing=evaluation.standing,
        right=evaluation.right,
        accuracies={name: evaluation.accuracy(name) for name in evaluation.parts},
        robust_accuracy=share(evaluation.standing),
        trained_mode=inputs.trained_mode,
        source=source.to(split.images.device) if source is not None else None,
        own=target.folder is not None,
    )


def _kept(evaluation: Evaluation, subject: Subject, inputs: VerdictInputs) -> Kept:
    """What was found before, or nothing yet, with the price: the clock is asked once, and what it said is kept."""
    path = None if evaluation.state.path is None else evaluation.state.path.with_suffix(".json")
    weights = () if subject.source is None else tuple(map(hashing.of_tensor, subject.source.state_dict().values()))
    words = {"cheap": inputs.cheap, "source": list(map(str, weights)), "trained_mode": inputs.trained_mode}
    words |= {"own": subject.own}
    if (known := restore(path, words)) is not None:
        return known
    kept = Kept(path, words)
    if inputs.cheap:
        kept.budget, kept.size = _price(subject, inputs.blocks, allowed_seconds(_seconds(evaluation)))
    kept.save()
    return kept


def _price(subject: Subject, blocks: FixedBatchModel, seconds: float) -> tuple[int | None, int | None]:
    """How many passes the time has room for, and in blocks of how many images; (None, None) where all have room."""
    rows = torch.arange(min(blocks.size, len(subject.labels)), device=subject.labels.device)
    whole = Examination(subject, blocks, Kept())
    x, y = whole.bench.x(rows), whole.bench.y(rows)
    if passes_within(whole.bench.model, x, y, seconds) >= whole.most():
        return None, None
    on_cpu = subject.labels.device.type == "cpu"
    size = min(blocks.size, 8 if on_cpu else 64)
    budget = passes_within(Examination(subject, blocks, Kept(size=size)).bench.model, x, y, seconds)
    return budget, min(size, 4) if on_cpu and budget < FINE else size


def _seconds(evaluation: Evaluation) -> float:
    """How long the attacks took."""
    return sum(sum(evaluation.state.of(name).seconds.values()) for name in evaluation.parts)

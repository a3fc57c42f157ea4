"""The diagnostics that an evaluation makes for its report, on a few images each."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from toughen.data import stratified
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation.diagnostics.cases import Case
from toughen.evaluation.diagnostics.names import confusion_matrices, eps_curve, steps_curve, surface
from toughen.evaluation.harness import as_floats
from toughen.evaluation.result import Evaluation
from toughen.evaluation.target import EvaluationTarget

MULTIPLES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 4.0)  # of the threat's radius
STEPS = (1, 2, 5, 10, 20, 50)
MANY_CLASSES = 100  # with more, a confusion matrix of a sample is mostly zeros
DIAGNOSTICS: dict[str, tuple[int, Callable[[Case], dict[str, Any]]]] = {  # size of the sample, and the diagnostic
    "eps": (100, partial(eps_curve, multiples=MULTIPLES)),
    "steps": (100, partial(steps_curve, steps=STEPS)),
    "surface": (16, partial(surface, keep=0)),
    "confusion": (200, confusion_matrices),
}


def collect_report_data(
    evaluation: Evaluation, target: EvaluationTarget, model: FixedBatchModel, seed: int, show: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Accuracy against eps and against steps, a loss surface and confusion matrices, as `toughen diagnose` makes them.

    Args:
        evaluation: the results; stratified samples of its images are used.
        target: what was evaluated.
        model: its model, as attacks see it.
        seed: of the samples and of all random numbers.
        show: called with the name of each diagnostic that begins.
    """
    results = {}
    for name, (count, diagnostic) in DIAGNOSTICS.items():
        if name == "confusion" and len(target.class_names) > MANY_CLASSES:
            continue
        show(name)
        case = _sample(evaluation, target, model, count, seed)
        started, before = time.perf_counter(), model.counts.total
        result = diagnostic(case)
        about = {
            "images": len(case.y),
            "threat": {"norm": case.threat.norm, "eps": float(case.threat.eps)},
            "seconds": round(time.perf_counter() - started, 3),
            "passes": model.counts.total - before,
            "by": "evaluate",
            "data": case.data,
            "seed": seed,
            "precision": model.precision,
        }
        results[name] = result | {"about": about, "index": case.index.tolist()}
    return results


def _sample(evaluation: Evaluation, target: EvaluationTarget, model: FixedBatchModel, count: int, seed: int) -> Case:
    """A stratified sample of at most ``count`` of the evaluated images."""
    split = evaluation.split
    rows = stratified(split.labels, min(count, len(split)), seed)
    here = rows.to(split.labels.device)
    x = as_floats(split.images[here])
    return Case(
        name=target.name,
        model=model,
        x=x.double() if model.precision == "fp64" else x,
        y=split.labels[here],
        index=evaluation.index[rows],
        threat=target.threat,
        data=target.data,
        seed=seed,
    )

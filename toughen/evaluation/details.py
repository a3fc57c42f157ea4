"""What an evaluation looks at besides, at small cost, so that a report has something to show: a few diagnostics."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from toughen.attacks.pgd import PGD
from toughen.core.threat import Threat
from toughen.core.types import Images, Labels
from toughen.data import stratified
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation.diagnostics.confusion import confusion
from toughen.evaluation.diagnostics.curves import accuracy_by_eps, accuracy_by_steps, radii
from toughen.evaluation.diagnostics.surface import loss_surface
from toughen.evaluation.harness import as_floats
from toughen.evaluation.result import Evaluation
from toughen.evaluation.target import EvaluationTarget

CURVE_IMAGES, CONFUSION_IMAGES, SURFACE_IMAGES = 100, 200, 16  # stratified samples of so many of the evaluated images
MULTIPLES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 4.0)  # of the threat's radius
STEPS = (1, 2, 5, 10, 20, 50)
MANY_CLASSES = 100  # from which a confusion matrix of a sample is mostly zeros
PGD_STEPS = 20


def collect_report_data(
    evaluation: Evaluation, target: EvaluationTarget, model: FixedBatchModel, seed: int, show: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Accuracy against eps and against steps, a loss surface and confusion matrices, as `toughen diagnose` makes them.

    Args:
        evaluation: results of the attacks; a sample of its images is used.
        target: what is judged.
        model: its model.
        seed: of the sample and of all random numbers.
        show: told the name of each diagnostic before it is made.
    """
    threat = target.threat
    diagnostics = {"eps": _eps, "steps": _steps, "surface": _surface}
    counts = {"eps": CURVE_IMAGES, "steps": CURVE_IMAGES, "surface": SURFACE_IMAGES, "confusion": CONFUSION_IMAGES}
    if len(target.class_names) <= MANY_CLASSES:
        diagnostics["confusion"] = _confusion
    results = {}
    for name, diagnostic in diagnostics.items():
        show(name)
        rows = stratified(evaluation.split.labels, min(counts[name], len(evaluation.split)), seed)
        results[name] = _timed(diagnostic, evaluation, rows, threat, model, seed) | {
            "index": evaluation.index[rows].tolist()
        }
        results[name]["about"] |= {"data": target.data, "seed": seed, "precision": model.precision}
    return results


def _timed(
    diagnostic: Callable[[FixedBatchModel, Images, Labels, Threat, int], dict[str, Any]],
    evaluation: Evaluation,
    rows: Labels,
    threat: Threat,
    model: FixedBatchModel,
    seed: int,
) -> dict[str, Any]:
    """A diagnostic of some images, and what it took."""
    here = rows.to(evaluation.split.labels.device)
    x = as_floats(evaluation.split.images[here])
    x = x.double() if model.precision == "fp64" else x
    started, before = time.perf_counter(), model.counts.total
    result = diagnostic(model, x, evaluation.split.labels[here], threat, seed)
    about: dict[str, Any] = {"images": len(rows), "threat": {"norm": threat.norm, "eps": float(threat.eps)}}
    about |= {"seconds": round(time.perf_counter() - started, 3), "passes": model.counts.total - before}
    return result | {"about": about | {"by": "evaluate"}}


def _pgd(threat: Threat) -> PGD:
    return PGD(eps=threat.eps, norm=threat.norm, steps=PGD_STEPS)


def _eps(model: FixedBatchModel, x: Images, y: Labels, threat: Threat, seed: int) -> dict[str, Any]:
    return accuracy_by_eps(model, x, y, _pgd(threat), radii(threat, x.shape[1:], MULTIPLES), seed)


def _steps(model: FixedBatchModel, x: Images, y: Labels, threat: Threat, seed: int) -> dict[str, Any]:
    return accuracy_by_steps(model, x, y, _pgd(threat), STEPS, seed)


def _surface(model: FixedBatchModel, x: Images, y: Labels, threat: Threat, seed: int) -> dict[str, Any]:
    return loss_surface(model, x, y, threat, seed, keep=0)


def _confusion(model: FixedBatchModel, x: Images, y: Labels, threat: Threat, seed: int) -> dict[str, Any]:
    return confusion(model, x, y, _pgd(threat), seed)

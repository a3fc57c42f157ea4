"""The diagnostics by name: what each one does with a run, and which of them were asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from toughen import attacks as registered
from toughen.evaluation.diagnostics.boundary import boundary_distance
from toughen.evaluation.diagnostics.cases import Case
from toughen.evaluation.diagnostics.confusion import confusion
from toughen.evaluation.diagnostics.curves import (
    accuracy_by_eps,
    accuracy_by_restarts,
    accuracy_by_steps,
    loss_by_eps,
    radii,
)
from toughen.evaluation.diagnostics.entropy import attack_entropy
from toughen.evaluation.diagnostics.nuclear import mean_logit_distance, nuclear_norms
from toughen.evaluation.diagnostics.surface import loss_surface

SURFACE_IMAGES, BOUNDARY_IMAGES = 64, 128  # a stratified sample of so many: the one is long, the other slow


def _eps(case: Case) -> dict[str, Any]:
    values = radii(case.threat, case.x.shape[1:])
    return accuracy_by_eps(case.model, case.x, case.y, case.pgd(), values, case.seed)


def _steps(case: Case) -> dict[str, Any]:
    return accuracy_by_steps(case.model, case.x, case.y, case.pgd(), seed=case.seed)


def _restarts(case: Case) -> dict[str, Any]:
    return accuracy_by_restarts(case.model, case.x, case.y, case.pgd(), seed=case.seed)


def _loss(case: Case) -> dict[str, Any]:
    values = radii(case.threat, case.x.shape[1:])
    return loss_by_eps(case.model, case.x, case.y, case.threat, values, case.seed)


def _surface(case: Case) -> dict[str, Any]:
    some = case.some(SURFACE_IMAGES)
    surface = loss_surface(some.model, some.x, some.y, some.threat, some.seed)
    return surface | {"index": some.index.tolist()}


def _confusion(case: Case) -> dict[str, Any]:
    return confusion(case.model, case.x, case.y, case.pgd(), case.seed)


def _entropy(case: Case) -> dict[str, Any]:
    eps, norm = case.threat.eps, case.threat.norm
    attacks = {kind: registered.LogitMatrix(eps=eps, norm=norm, kind=kind) for kind in ("nuclear", "frobenius")}
    return attack_entropy(case.model, case.x, case.y, attacks, case.seed)


def _nuclear(case: Case) -> dict[str, Any]:
    return nuclear_norms(case.model, case.x, case.y, case.pgd(), case.seed)


def _logit_distance(case: Case) -> dict[str, Any]:
    return mean_logit_distance(case.model, case.x, case.y, case.threat, case.seed)


def _boundary(case: Case) -> dict[str, Any]:
    eps, norm = case.threat.eps, case.threat.norm
    kinds = {"deepfool": registered.DeepFool, "fab-t": registered.FAB}
    attacks = {name: kind(eps=eps, norm=norm, minimise=True) for name, kind in kinds.items()}
    some = case.some(BOUNDARY_IMAGES)
    distances = boundary_distance(some.model, some.x, some.y, attacks, some.threat, some.seed)
    return distances | {"index": some.index.tolist()}


OF_A_RUN: dict[str, Callable[[Case], dict[str, Any]]] = {
    "eps": _eps,
    "steps": _steps,
    "restarts": _restarts,
    "loss": _loss,
    "surface": _surface,
    "confusion": _confusion,
    "entropy": _entropy,
    "nuclear": _nuclear,
    "logit-distance": _logit_distance,
    "boundary": _boundary,
}
NAMES = (*OF_A_RUN, "transfer")
"""What can be diagnosed; the last one only between two runs or more."""


def chosen(which: Sequence[str] | None, runs: int) -> tuple[list[str], bool]:
    """The diagnostics of each run, in order, and whether transfer is among them.

    Raises:
        ValueError: a name is unknown, none was given, or transfer has but one run.
    """
    names = [name for name in NAMES if name != "transfer" or runs > 1] if which is None else list(dict.fromkeys(which))
    for name in names:
        if name not in NAMES:
            raise ValueError(f"diagnostic {name!r} is unknown: choose out of {', '.join(NAMES)}")
    if not names:
        raise ValueError(f"no diagnostic was named: choose out of {', '.join(NAMES)}")
    if "transfer" in names and runs < 2:
        raise ValueError("transfer is between runs: name two or more")
    return [name for name in names if name != "transfer"], "transfer" in names

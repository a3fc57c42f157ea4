"""The table of diagnostics, by name, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from toughen.attacks import FAB, DeepFool, LogitMatrix
from toughen.evaluation.diagnostics import curves
from toughen.evaluation.diagnostics.boundary import boundary_distance
from toughen.evaluation.diagnostics.cases import Case
from toughen.evaluation.diagnostics.confusion import confusion
from toughen.evaluation.diagnostics.entropy import attack_entropy
from toughen.evaluation.diagnostics.nuclear import mean_logit_distance, nuclear_norms
from toughen.evaluation.diagnostics.surface import loss_surface

SURFACE_IMAGES, BOUNDARY_IMAGES = 64, 128  # sizes of samples: a surface is long, the search for a boundary slow


def eps_curve(case: Case, multiples: Sequence[float] = curves.MULTIPLES) -> dict[str, Any]:
    """Accuracy under PGD-20 against eps, at multiples of the threat's radius."""
    radii = curves.radii(case.threat, case.x.shape[1:], multiples)
    return curves.accuracy_by_eps(case.model, case.x, case.y, case.pgd(), radii, case.seed)


def steps_curve(case: Case, steps: Sequence[int] = curves.STEPS) -> dict[str, Any]:
    """Accuracy under PGD against its number of steps."""
    return curves.accuracy_by_steps(case.model, case.x, case.y, case.pgd(), steps, case.seed)


def restarts_curve(case: Case) -> dict[str, Any]:
    """Accuracy under PGD-20 against its number of random starts."""
    return curves.accuracy_by_restarts(case.model, case.x, case.y, case.pgd(), seed=case.seed)


def loss_curve(case: Case) -> dict[str, Any]:
    """The cross-entropy under FGSM, R-FGSM and PGD against eps."""
    radii = curves.radii(case.threat, case.x.shape[1:])
    return curves.loss_by_eps(case.model, case.x, case.y, case.threat, radii, case.seed)


def surface(case: Case, keep: int | None = None) -> dict[str, Any]:
    """The loss around images; ``keep`` limits how many images' own surfaces are in the result."""
    return loss_surface(case.model, case.x, case.y, case.threat, case.seed, keep=keep)


def confusion_matrices(case: Case) -> dict[str, Any]:
    """Confusion matrices, clean and under PGD-20."""
    return confusion(case.model, case.x, case.y, case.pgd(), case.seed)


def entropies(case: Case) -> dict[str, Any]:
    """The entropy of predictions under attacks on the nuclear and the Frobenius norm of the logits."""
    eps, norm = case.threat.eps, case.threat.norm
    attacks = {kind: LogitMatrix(eps=eps, norm=norm, kind=kind) for kind in ("nuclear", "frobenius")}
    return attack_entropy(case.model, case.x, case.y, attacks, case.seed)


def logit_norms(case: Case) -> dict[str, Any]:
    """The nuclear norm of the logits' changes under PGD-20."""
    return nuclear_norms(case.model, case.x, case.y, case.pgd(), case.seed)


def logit_distances(case: Case) -> dict[str, Any]:
    """The distance between the logits of FGSM and of R-FGSM images."""
    return mean_logit_distance(case.model, case.x, case.y, case.threat, case.seed)


def boundary(case: Case) -> dict[str, Any]:
    """Distances to the decision boundary, by DeepFool and FAB."""
    eps, norm = case.threat.eps, case.threat.norm
    kinds = {"deepfool": DeepFool, "fab-t": FAB}
    attacks = {name: kind(eps=eps, norm=norm, minimise=True) for name, kind in kinds.items()}
    return boundary_distance(case.model, case.x, case.y, attacks, case.threat, case.seed)


def _on_sample(case: Case, count: int, diagnostic: Callable[[Case], dict[str, Any]]) -> dict[str, Any]:
    """A diagnostic of a stratified sample, and the positions of its images in the test set."""
    sample = case.sample(count)
    return diagnostic(sample) | {"index": sample.index.tolist()}


OF_A_RUN: dict[str, Callable[[Case], dict[str, Any]]] = {
    "eps": eps_curve,
    "steps": steps_curve,
    "restarts": restarts_curve,
    "loss": loss_curve,
    "surface": lambda case: _on_sample(case, SURFACE_IMAGES, surface),
    "confusion": confusion_matrices,
    "entropy": entropies,
    "nuclear": logit_norms,
    "logit-distance": logit_distances,
    "boundary": lambda case: _on_sample(case, BOUNDARY_IMAGES, boundary),
}
"""Each diagnostic of a single model, by its name in diagnostics.json."""
NAMES = (*OF_A_RUN, "transfer")
"""The names of all diagnostics; "transfer" compares two or more runs."""


def choose(which: Sequence[str] | None, runs: int) -> tuple[list[str], bool]:
    """The diagnostics of each run, in order, and whether transfer is among them.

    Args:
        which: names that were asked for; None means all that are possible.
        runs: how many runs there are.

    Raises:
        ValueError: a name is unknown, there are no names, or transfer was asked for with one run.
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

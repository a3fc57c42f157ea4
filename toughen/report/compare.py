"""Compares runs: the table of runs, and the figure of robust accuracy against the cost of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from toughen.report.figures import Cell, Figure, Table, number_cell, share_cell
from toughen.report.read import Run
from toughen.report.words import meaning, span, threat

COLUMNS = (  # the most important columns come first, since a narrow window shows only a part of the table
    "run", "clean", "robust", "95 % interval", "verdict on the number", "seconds", "passes per step", "method",
    "threat",
)  # fmt: skip
BARS = 60  # the figure draws intervals for at most this many points
UNFINISHED = "training is not finished"
COSTS = {"seconds": "seconds of training", "passes": "passes per step", "all": "passes per image, all epochs"}


@dataclass(frozen=True)
class Row:
    """One run in the table of runs.

    Attributes:
        name: the run's name.
        anchor: the id of the run's section on the page; "" if it has none.
        cells: one for each of ``COLUMNS`` except the first.
    """

    name: str
    anchor: str
    cells: tuple[Cell, ...]


def row(run: Run, anchor: str, *, attacks: bool = False) -> Row:
    """A run's row; with ``attacks``, the last cell lists the names of its attacks."""
    own, history = run.own, run.history
    if own is None:
        cells = [Cell(""), Cell("not evaluated"), Cell(""), Cell("")]
    else:
        cells = [share_cell(own.clean), share_cell(own.robust), Cell(span(own), own.interval[0])]
        verdict = "outdated" if run.outdated else own.verdict or "not checked"
        doubt = "no gradient" if own.no_gradient else "robust to FGSM only" if own.warning else ""
        cells.append(Cell(verdict, note=doubt))
    cells.append(replace(number_cell(history.seconds, ".0f"), note=cost_note(run)))
    cells += [number_cell(history.passes, ".1f"), Cell(run.method or "unknown")]
    cells.append(Cell(threat(own.norm, own.eps), own.eps) if own else Cell(""))
    return Row(run.name, anchor, (*cells, Cell(own.names if own else "")) if attacks else tuple(cells))


def cost_note(run: Run) -> str:
    """A note on the training cost if the cost is not complete; "" otherwise."""
    if run.history.seconds is None:
        return ""
    if run.history.partial:
        return "at least: metrics.jsonl is damaged"
    return UNFINISHED if run.unfinished else ""


def cautions(run: Run) -> list[str]:
    """Warnings that a reader must know before comparing the run with others."""
    if run.own is None:
        return []
    masked = f"The verdict on its robust accuracy is masked. {meaning(run.own)}" if run.own.verdict == "masked" else ""
    return [caution for caution in (run.outdated, run.own.warning, masked) if caution]


def believable(run: Run) -> bool:
    """Whether a run can be ranked by its robust accuracy: it is evaluated, up to date and not masked."""
    return run.own is not None and not run.outdated and run.own.verdict != "masked"


def rank(run: Run) -> tuple[bool, float]:
    """The sort key of runs: the robust accuracy; runs that are not ``believable`` come last."""
    return believable(run), run.own.robust if run.own else -1.0


def differing(runs: Sequence[Run]) -> list[str]:
    """The settings in which the runs' evaluations differ."""
    evaluations = [run.own for run in runs if run.own]
    settings: dict[str, set[Any]] = {
        "threat": {(own.norm, own.eps) for own in evaluations},
        "data": {own.data for own in evaluations},
        "classes": {frozenset(own.classes) for own in evaluations if own.classes},
        "number of images": {own.images for own in evaluations},
        "sample of images": {own.sampled_by for own in evaluations if own.sampled_by},
        "attacks": {own.names for own in evaluations},
    }
    found = [name for name, values in settings.items() if len(values) > 1]
    contents = {own.data_hash for own in evaluations if own.data_hash}
    if len(contents) > 1 and not {"data", "number of images", "sample of images"}.intersection(found):
        found.append("images or labels, which have the same name")
    return found


def differing_warning(settings: Sequence[str]) -> str:
    """The warning about evaluations that differ in these settings."""
    return f"The evaluations differ in {', '.join(settings)}: their numbers are not directly comparable."


def cost_figure(runs: Sequence[Run]) -> Figure | None:
    """Robust accuracy against the cost of training; None if fewer than two runs have both.

    Runs whose cost is not completely known are left out.
    """
    points, rows, shown = [], [], []
    for run in runs:
        costs = {"seconds": run.history.seconds, "passes": run.history.passes, "all": run.history.all_passes}
        if run.own and any(costs.values()) and not run.history.partial:
            low, high = run.own.interval
            kind, mark = run.method or "unknown", doubt(run)
            point = {"name": run.name, "kind": kind, "mark": mark, "y": run.own.robust, "low": low, "high": high}
            points.append(point | costs)
            name = Cell(f"{run.name} ({mark})" if mark else run.name)
            rows.append((name, share_cell(run.own.robust), *map(number_cell, costs.values())))
            shown.append(run)
    if len(points) < 2:
        return None
    alt = f"Robust accuracy of {len(points)} runs against the cost of training." + _best(shown)
    table = Table(("run", "robust", *COSTS.values()), tuple(rows), "robust accuracy and cost")
    data = {"points": points, "costs": COSTS, "y": "robust accuracy", "bars": len(points) <= BARS}
    about = "bars: the 95 % interval; " * (len(points) <= BARS) + "seconds are comparable only on the same processor"
    if any(point["mark"] for point in points):
        about += f"; hollow points: masked, outdated, or {UNFINISHED}"
    return Figure("Robustness against cost", "points", alt, data, table, about, wide=True)


def doubt(run: Run) -> str:
    """Why a run's numbers are not reliable, in a few words; "" if there is no reason."""
    if run.outdated:
        return "outdated"
    return "masked" if not believable(run) else UNFINISHED if run.unfinished else ""


def _best(runs: Sequence[Run]) -> str:
    """A sentence that names the most robust runs; "" if the runs are not comparable."""
    if differing(runs):
        return ""
    best = max(runs, key=rank)
    if not believable(best):
        return ""
    names = [run.name for run in runs if rank(run) == rank(best)]
    return f" The most robust {'is' if len(names) == 1 else 'are'} {', '.join(names[:6])}."

"""Runs side by side: the table, and robustness against what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from toughen.report.figures import Cell, Figure, Table, number_cell, share_cell
from toughen.report.read import Run
from toughen.report.words import MEANING, span, threat

COLUMNS = (  # what is asked first stands first, for who sees but a part of the table
    "run", "clean", "robust", "95 % interval", "verdict on the number", "seconds", "passes per step", "method",
    "threat",
)  # fmt: skip
BARS = 60  # points of a figure that still have their interval drawn
COSTS = {"seconds": "seconds of training", "passes": "passes per step", "all": "passes per image, all epochs"}


@dataclass(frozen=True)
class Row:
    """One run in the table of runs.

    Attributes:
        name: the run's.
        anchor: where its details are on the page; "" where they are not.
        cells: one for each of ``COLUMNS``, without the first.
    """

    name: str
    anchor: str
    cells: tuple[Cell, ...]


def row(run: Run, anchor: str, *, attacks: bool = False) -> Row:
    """A run's line, with the names of its attacks in a column of their own where ``attacks`` says so."""
    own, history = run.own, run.history
    if own is None:
        cells = [Cell(""), Cell("not evaluated"), Cell(""), Cell("")]
    else:
        cells = [share_cell(own.clean), share_cell(own.robust), Cell(span(own), own.interval[0])]
        verdict = "outdated" if run.outdated else own.verdict or "not checked"
        cells.append(Cell(verdict, note="blind to single steps" if own.warning else ""))
    cells.append(replace(number_cell(history.seconds, ".0f"), note=cost_note(run)))
    cells += [number_cell(history.passes, ".1f"), Cell(run.method or "unknown")]
    cells.append(Cell(threat(own.norm, own.eps), own.eps) if own else Cell(""))
    return Row(run.name, anchor, (*cells, Cell(own.names if own else "")) if attacks else tuple(cells))


def cost_note(run: Run) -> str:
    """What must be known of what a run's training cost so far."""
    if run.history.seconds is None:
        return ""
    return "at least, of damaged metrics.jsonl" if run.history.partial else "not at its end" if run.unfinished else ""


def cautions(run: Run) -> list[str]:
    """What must be known before a run's number is compared."""
    if run.own is None:
        return []
    masked = f"The checks call its robust figure masked. {MEANING['masked']}" if run.own.verdict == "masked" else ""
    return [caution for caution in (run.outdated, run.own.warning, masked) if caution]


def believable(run: Run) -> bool:
    """Whether nothing is known that speaks against ranking a run by its robust figure."""
    return run.own is not None and not run.outdated and run.own.verdict != "masked"


def rank(run: Run) -> tuple[bool, float]:
    """What runs are put in order by: how robust they are, those whose figure is not to be believed last."""
    return believable(run), run.own.robust if run.own else -1.0


def differing(runs: Sequence[Run]) -> list[str]:
    """In what the evaluations were not made alike; `unlike` says it."""
    evaluations = [run.own for run in runs if run.own]
    ways: dict[str, set[Any]] = {
        "threat": {(own.norm, own.eps) for own in evaluations},
        "data": {own.data for own in evaluations},
        "number of images": {own.images for own in evaluations},
        "attacks": {own.names for own in evaluations},
    }
    return [name for name, values in ways.items() if len(values) > 1]


def unlike(ways: Sequence[str]) -> str:
    """The warning before evaluations that differ in these ways."""
    return f"These were not measured alike (not the same: {', '.join(ways)}): compare with care."


def cost_figure(runs: Sequence[Run]) -> Figure | None:
    """Robust accuracy against what training cost; None where fewer than two runs have both.

    Runs are left out whose cost is not known in whole.
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
    alt = f"Robust accuracy of {len(points)} runs against what training cost." + _best(shown)
    table = Table(("run", "robust", *COSTS.values()), tuple(rows), "robust accuracy and cost")
    data = {"points": points, "costs": COSTS, "y": "robust accuracy", "bars": len(points) <= BARS}
    about = "bars: the 95 % interval; " * (len(points) <= BARS) + "seconds compare only where the processor is the same"
    if any(point["mark"] for point in points):
        about += "; hollow: masked, outdated, or not at its end"
    return Figure("Robustness against cost", "points", alt, data, table, about, wide=True)


def doubt(run: Run) -> str:
    """What speaks against a run's figures, in two words; "" where nothing does."""
    if run.outdated:
        return "outdated"
    return "masked" if not believable(run) else "not at its end" if run.unfinished else ""


def _best(runs: Sequence[Run]) -> str:
    """Which run is the most robust, where that can be said."""
    if differing(runs):
        return ""
    best = max(runs, key=rank)
    if not believable(best):
        return ""
    names = [run.name for run in runs if rank(run) == rank(best)]
    return f" The most robust {'is' if len(names) == 1 else 'are'} {', '.join(names[:6])}."

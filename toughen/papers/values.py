"""Published figures and ours in the same units: percent, ratios of times, points."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from toughen.papers.datasets import ALL
from toughen.papers.measure import OF_TRAINING
from toughen.papers.published.exhibits import STATED, Column, Line, Panel, Plot, Row
from toughen.papers.run_spec import RunSpec, figure_run_spec
from toughen.papers.scales import Scale
from toughen.papers.store import TRAINED, Quantity, Store, record_of
from toughen.papers.tasks import figure_quantity, table_quantities, table_run_spec

MOST_SEEDS = 10
NO_RATIO = "measured, but not together with the row that it is compared with"
ONE_SEED = "measured with one seed"
TIMED = (
    "Times are those of whole trainings on one kind of processor and in one precision, which ran alternately, epoch by "
    "epoch. ≈ marks a ratio of trainings that did not alternate, so that other work on the machine may have changed it."
)
PART = "This scale trains a part of the recipe's epochs. Times of whole trainings are scaled up to all of them."


@dataclass(frozen=True)
class Value:
    """One of our figures.

    Attributes:
        mean: the mean over seeds, in the unit that the table prints.
        spread: the standard deviation over seeds; None for one seed.
        approximate: whether it is a ratio of times of trainings that did not take turns.
        cells: the stored figures that it was computed from.
    """

    mean: float
    spread: float | None = None
    approximate: bool = False
    cells: tuple[dict[str, Any], ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class View:
    """A selection of results.

    Attributes:
        store: the results.
        scale: the scale of the results.
        images: the number of test images; None: the largest number that there are results for.
        seeds: the number of seeds; None: all.
    """

    store: Store
    scale: Scale
    images: int | None = None
    seeds: int | None = None

    def cells(self, panel: Panel, row: Row, column: Column) -> list[dict[str, Any]]:
        """The stored figures for one cell of a table, one for each seed."""
        of = "train hours" if column.of == "hours saved" else column.of
        if of == STATED or row.cannot:
            return []
        cells = []
        for seed in range(self.seeds or MOST_SEEDS):
            model = table_run_spec(panel, row, seed, self.scale)
            cell = self._read(model, panel, column, of, seed) if self.store.knows(model) else None
            if cell is None:
                break
            cells.append(cell)
        return _alike(cells)

    def _read(self, model: RunSpec, panel: Panel, column: Column, of: str, seed: int) -> dict[str, Any] | None:
        if of in OF_TRAINING:
            return self.store.read(model, Quantity(of))
        return self._stored(model, table_quantities(panel, seed, self.scale, self.images)[column.name])

    def _stored(self, model: RunSpec, quantity: Quantity) -> dict[str, Any] | None:
        return self.store.best(model, quantity) if self.images is None else self.store.read(model, quantity)

    def line(self, plot: Plot, line: Line) -> dict[str, Any] | None:
        """The stored result of one line of a plot; None if there is none."""
        if not self.store.knows(RunSpec(line.run, plot.data, 0, self.scale)):
            return None
        return self._stored(figure_run_spec(plot, line, self.scale), figure_quantity(plot, self.images))

    def all(self, part: Panel | Plot) -> list[dict[str, Any]]:
        """All stored results of a panel or plot."""
        if isinstance(part, Plot):
            return list(filter(None, (self.line(part, line) for line in part.lines)))
        return [cell for row in part.rows for column in part.columns for cell in self.cells(part, row, column)]

    def value(self, panel: Panel, row: Row, column: Column) -> Value | None:
        """Our figure for one cell of a table; None if there is none, or none that can be compared."""
        cells = self.cells(panel, row, column)
        if not cells:
            return None
        numbers = [float(cell["value"]) for cell in cells]
        if column.timed or column.of == "hours saved":
            return self._ratio(panel, row, column, numbers, cells)
        factor = 1.0 if column.of == "gamma" or column.of.startswith("entropy") else 100.0
        return _value([factor * number for number in numbers], cells, column.spread)

    def _ratio(
        self, panel: Panel, row: Row, column: Column, numbers: list[float], cells: list[dict[str, Any]]
    ) -> Value | None:
        """The ratio of times to those of another row, for each seed; None if processor or precision differ.

        A scale may train different fractions of the recipes' epochs, which would change the ratio of whole trainings.
        So their times are scaled to all epochs.
        """
        other = row.against if column.of == "hours saved" else panel.unit
        if not other:
            return None
        unit = panel.row(other)
        pairs = list(zip(numbers, cells, self.cells(panel, unit, column), strict=False))
        if not pairs or any(len(clocks(cell) | clocks(each)) > 1 for _, cell, each in pairs):
            return None
        specs = [[table_run_spec(panel, each, seed, self.scale) for each in (row, unit)] for seed in range(len(pairs))]
        longer = 1.0 if column.of == "epoch seconds" else specs[0][1].share / specs[0][0].share
        ratios = [longer * number / float(each["value"]) for number, _, each in pairs]
        value = _value([100 * (1 - each) for each in ratios] if column.of == "hours saved" else ratios, cells, False)
        approximate = row.name != other and not all(self._in_turns(own, others) for own, others in specs)
        return replace(value, approximate=approximate) if value else None

    def _in_turns(self, one: RunSpec, other: RunSpec) -> bool:
        """Whether two models were trained in turns from their first epochs to their last."""
        first, second = self.store.folder(one), self.store.folder(other)
        return first == second or (second.name in _partners(first) and first.name in _partners(second))


def is_measured(row: Row, column: Column) -> bool:
    """Whether a row has a figure of this column; time is only saved against another row."""
    return column.of != STATED and (column.of != "hours saved" or row.against != "")


def _alike(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures on the most common choice of images, since seeds are averaged only over the same images."""
    counts = Counter((cell["images"] or 0, cell.get("drawn", ALL)) for cell in cells)
    most = max(counts, key=lambda images: (counts[images], images), default=None)
    return [cell for cell in cells if (cell["images"] or 0, cell.get("drawn", ALL)) == most]


def _partners(folder: Path) -> list[Any]:
    """The folders of the models that a model was trained in turns with, from its record."""
    names = record_of(folder / TRAINED).get("in_turns_with")
    return names if isinstance(names, list) else []


def _value(numbers: list[float], cells: list[dict[str, Any]], spread: bool) -> Value | None:
    deviation = statistics.stdev(numbers) if len(numbers) > 1 else None
    if spread:
        return None if deviation is None else Value(deviation, cells=tuple(cells))
    return Value(statistics.fmean(numbers), deviation, cells=tuple(cells))


def clocks(cell: dict[str, Any]) -> set[tuple[str, str]]:
    """Processor and precision of all sessions of a training; times are compared only if these are equal."""
    return {(str(each.get("processor", "")), str(each.get("precision", ""))) for each in sessions(cell["provenance"])}


def sessions(provenance: dict[str, Any]) -> list[dict[str, Any]]:
    """The provenance of each session; a training that was resumed has several sessions (``training.run``)."""
    parts = provenance.get("sessions")
    return [each for each in parts if isinstance(each, dict)] if isinstance(parts, list) and parts else [provenance]


def published(panel: Panel, row: Row, column: Column) -> float | None:
    """The published figure in the unit that the table prints: a time as a ratio."""
    number = panel.published(row, column)
    if number is None or not column.timed:
        return number
    unit = panel.published(panel.row(panel.unit), column)
    return number / unit if unit else None


def written(number: float | None, column: Column) -> str:
    """A figure as a table prints it."""
    if number is None:
        return "-"
    if column.timed:
        return f"{number:.3g} x"
    return f"{number:.3g}" if column.of == "gamma" else f"{number:.2f}"


def our(value: Value | None, column: Column, digits: int = 1) -> str:
    """Our figure as a table prints it; for several seeds, the mean and the deviation with ``digits`` decimals."""
    if value is None:
        return written(None, column)
    about = "≈" * value.approximate
    if value.spread is None:
        return about + written(value.mean, column)
    return f"{about}{value.mean:.{digits}f}±{value.spread:.{digits}f}"


def lacking(panel: Panel, row: Row, column: Column, view: View) -> str:
    """Why stored results give no figure; "" if they give one, or if nothing was measured."""
    if not is_measured(row, column) or not view.cells(panel, row, column) or view.value(panel, row, column) is not None:
        return ""
    return ONE_SEED if column.spread else NO_RATIO


def in_part(panel: Panel, scale: Scale) -> bool:
    """Whether a panel compares times of whole trainings, and the scale trains only a part of the epochs."""
    return scale.name != "full" and any(each.timed and each.of != "epoch seconds" for each in panel.columns)

"""The figures and tables of a report as plain data; report.js draws the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from toughen.utils.statistics import percent

Kind = Literal["lines", "bars", "heat", "points"]


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: the text shown.
        value: the number that its column is sorted by, if there is one.
        strong: whether its row is a total.
        note: a remark shown after the text; "" for none.
    """

    text: str
    value: float | int | None = None
    strong: bool = False
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of numbers.

    Attributes:
        columns: the headings; the first column names the rows.
        rows: the rows, with a cell for each column.
        about: the caption, for screen readers.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    about: str


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        title: the title.
        kind: the kind of drawing.
        alt: the content in a sentence or two, for screen readers.
        data: the input of ``report.js``.
        table: the same data as numbers.
        about: how the data were measured; "" for no remark.
        wide: whether it takes the whole width of the page.
    """

    title: str
    kind: Kind
    alt: str
    data: Mapping[str, Any]
    table: Table
    about: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Line:
    """One line of a figure.

    Attributes:
        name: the name in the legend.
        points: the coordinates.
        role: selects the colour in ``report.js``; "" for the next free one.
        dashed: whether the line is dashed.
        doubt: why its numbers are not reliable; "" if there is no reason.
    """

    name: str
    points: Sequence[tuple[float, float]]
    role: str = ""
    dashed: bool = False
    doubt: str = ""

    @property
    def label(self) -> str:
        """The name, followed by the doubt in brackets."""
        return f"{self.name} ({self.doubt})" if self.doubt else self.name


@dataclass(frozen=True)
class Axis:
    """An axis: its label, whether it shows percent, whether it is logarithmic, and whether its values are integers."""

    label: str
    percent: bool = False
    log: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Mark:
    """A marked value on the x axis, with its text."""

    x: float
    text: str


@dataclass(frozen=True)
class Lines:
    """The content of a figure of lines."""

    title: str
    x: Axis
    y: Axis
    lines: Sequence[Line]
    alt: str
    about: str = ""
    marks: Sequence[Mark] = field(default=())


def share_cell(value: float | None) -> Cell:
    """A cell with an accuracy."""
    return Cell("", None) if value is None else Cell(percent(value), value)


def number_cell(value: float | int | None, form: str = ".4g") -> Cell:
    """A cell with a number."""
    return Cell("", None) if value is None else Cell(format(value, form), value)


def figure_of(spec: Lines) -> Figure:
    """A figure of lines, with a table that has a row for each x value of any line."""
    data = {
        "x": vars(spec.x),
        "y": vars(spec.y),
        "lines": [
            vars(line) | {"label": line.label, "points": [list(point) for point in line.points]} for line in spec.lines
        ],
        "marks": [vars(mark) for mark in spec.marks],
    }
    places = sorted({x for line in spec.lines for x, _ in line.points})
    values = [dict(line.points) for line in spec.lines]
    cell = share_cell if spec.y.percent else number_cell
    rows = [(number_cell(x, ".6g"), *(cell(each.get(x)) for each in values)) for x in places]
    table = Table((spec.x.label, *(line.label for line in spec.lines)), tuple(rows), spec.title)
    return Figure(spec.title, "lines", spec.alt, data, table, spec.about)

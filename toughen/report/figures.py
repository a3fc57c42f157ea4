"""What a report's figures and tables are made of: plain data, which report.js draws and the page lists."""

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
        text: what it says.
        value: what it is sorted by, if that is a number.
        strong: whether its row is a total.
        note: what must be known with it; "" for nothing.
    """

    text: str
    value: float | int | None = None
    strong: bool = False
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of numbers.

    Attributes:
        columns: their headings; the first one names the rows.
        rows: as many cells each.
        about: what is in it, for who cannot see it.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    about: str


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        title: what it shows.
        kind: how it is drawn.
        alt: what can be seen in it, in a sentence or two, for who cannot see it.
        data: what is drawn, as ``report.js`` takes it.
        table: the same as numbers.
        about: how it was measured; "" for nothing.
        wide: whether it takes the whole width.
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
    """One line of a figure: its points, a role that tells ``report.js`` its colour, and what speaks against it."""

    name: str
    points: Sequence[tuple[float, float]]
    role: str = ""
    dashed: bool = False
    doubt: str = ""

    @property
    def label(self) -> str:
        """Its name, and in brackets what speaks against it."""
        return f"{self.name} ({self.doubt})" if self.doubt else self.name


@dataclass(frozen=True)
class Axis:
    """An axis: its label, whether it is a share in percent, and whether it is logarithmic."""

    label: str
    percent: bool = False
    log: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Mark:
    """A place on the x axis where something happened."""

    x: float
    text: str


@dataclass(frozen=True)
class Lines:
    """What a figure of lines is made of."""

    title: str
    x: Axis
    y: Axis
    lines: Sequence[Line]
    alt: str
    about: str = ""
    marks: Sequence[Mark] = field(default=())


def share_cell(value: float | None) -> Cell:
    """An accuracy."""
    return Cell("", None) if value is None else Cell(percent(value), value)


def number_cell(value: float | int | None, form: str = ".4g") -> Cell:
    """A figure."""
    return Cell("", None) if value is None else Cell(format(value, form), value)


def figure_of(spec: Lines) -> Figure:
    """A figure of lines, with all their points in a table: a row for each x that any line has."""
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

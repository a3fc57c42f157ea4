"""Prints tables and figures in 80 columns: the published figures, ours, and the difference."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from toughen.papers.datasets import SETS, describe_images
from toughen.papers.published.exhibits import STATED, Exhibit, Figure, Panel, Plot, Row, Settings, Table
from toughen.papers.samples import is_generated
from toughen.papers.stated_settings import stated
from toughen.papers.tasks import wanted
from toughen.papers.values import PART, TIMED, View, in_part, lacking, our, published, written
from toughen.utils.console import say

WIDTH = 80
MOST = 60  # the most points of a curve that are printed
NO_FIGURE = "n/a"


def tell(console: Console, text: str, style: str = "") -> None:
    """Print a sentence, wrapped to the width."""
    for line in textwrap.wrap(text, WIDTH, subsequent_indent="  " * text.startswith("- ")):
        say(console, line, style)


def show_exhibit(
    console: Console,
    exhibit: Exhibit,
    view: View | None,
    rows: Sequence[str],
    places: Mapping[str, str],
    absent: Mapping[str, str],
) -> None:
    """Print an exhibit: its title and scale, the figures, and the notes.

    Args:
        console: where to print it.
        exhibit: the table or figure.
        view: the results; None for a table that only states settings.
        rows: the rows to print; empty for all.
        places: the location of each data set.
        absent: why other data sets have no location.
    """
    tell(console, f"{exhibit.name}: {exhibit.title}", "bold")
    if view is not None:
        tell(console, f"scale {view.scale.name}: {view.scale.about}")
    for name, place in places.items():
        if is_generated(place):
            tell(console, f"{SETS[name].title} is not available: noise images with a colour for each class replace it")
    more: list[str] = []
    if isinstance(exhibit, Settings):
        show_settings(console, exhibit, rows)
    elif view is not None and isinstance(exhibit, Table):
        for panel in exhibit.panels:
            some = [row for row in panel.rows if wanted(row.name, rows)]
            show_panel(console, panel, view, some, why_not_run(panel, places, absent))
        more += [TIMED] * any(column.timed for panel in exhibit.panels for column in panel.columns)
        more += [PART] * any(in_part(panel, view.scale) for panel in exhibit.panels)
    elif view is not None and isinstance(exhibit, Figure):
        show_figure(console, exhibit, view, rows, places, absent)
    say(console)
    for note in (*more, *exhibit.notes):
        tell(console, f"- {note}")


def why_not_run(part: Panel | Plot, places: Mapping[str, str], absent: Mapping[str, str]) -> str:
    """A sentence if the images of this part have no location, else ""."""
    if part.data in places:
        return ""
    return "not run: its images are not available" + f": {absent[part.data]}" * (part.data in absent)


def grid(corner: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], gap: int = 2) -> list[str]:
    """A table as lines of text: names are left-aligned, figures right-aligned in columns of at least six characters."""
    first = max(len(name) for name in (corner, *(name for name, _ in rows)))
    widths = [max(6, len(name), *(len(cells[place]) for _, cells in rows)) for place, name in enumerate(columns)]
    between = " " * gap
    return [
        (
            f"{name:{first}}" + "".join(f"{between}{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        ).rstrip()
        for name, cells in [(corner, columns), *rows]
    ]


# ---- Tables.


def show_panel(console: Console, panel: Panel, view: View, rows: Sequence[Row], not_run: str) -> None:
    """Print one data set and net, with three lines for each row: published, ours, the difference."""
    images = describe_images(view.all(panel))
    say(console)
    tell(
        console,
        f"{SETS[panel.data].title}, {panel.net}, eps {panel.eps}" + f"; ours on {images}" * bool(images),
        "bold",
    )
    tell(console, not_run)
    for line in panel_lines(panel, view, rows):
        say(console, line)
    reasons = dict.fromkeys(lacking(panel, row, column, view) for row in rows for column in panel.columns)
    for text in [
        *(f"{NO_FIGURE}: {why}" for why in reasons if why),
        *(f"{row.name}: {row.note}" for row in rows if row.note),
    ]:
        tell(console, text)
    timed = next((column for column in panel.columns if column.timed), None)
    if timed:
        unit = view.cells(panel, panel.row(panel.unit), timed)
        more = "" if unit else ", which was not run, so there are no ratios"
        tell(console, f"times are ratios to those of {panel.unit}{more}")


def panel_lines(panel: Panel, view: View, rows: Sequence[Row]) -> list[str]:
    """A panel as lines of text."""
    first = max((len(row.name) for row in rows), default=0)
    lines = [
        (f"{row.name if label == 'paper' else '':{first}} {label:>5}", cells)
        for row in rows
        for label, cells in row_cells(panel, row, view).items()
    ]
    corner, names = " " * (first + 6), [column.name for column in panel.columns]
    wide, close = (grid(corner, names, lines, gap) for gap in (2, 1))
    text = wide if max(map(len, wide)) <= WIDTH else close
    for place, row in reversed(list(enumerate(rows))):
        if row.cannot:
            text.insert(4 + 3 * place, f"{'':{first}}       cannot run: {row.cannot}")
    return text


def row_cells(panel: Panel, row: Row, view: View) -> dict[str, list[str]]:
    """A row's figures by "paper", "ours" and "diff"."""
    cells: dict[str, list[str]] = {"paper": [], "ours": [], "diff": []}
    for column in panel.columns:
        theirs, ours = published(panel, row, column), view.value(panel, row, column)
        is_text = column.of == STATED
        missing = NO_FIGURE if lacking(panel, row, column, view) else ""
        cells["paper"].append(panel.printed(row, column) if is_text else written(theirs, column))
        cells["ours"].append("" if is_text else missing or our(ours, column))
        cells["diff"].append("" if ours is None or theirs is None else f"{ours.mean - theirs:+.2f}")
    return cells


# ---- Figures.


def show_figure(
    console: Console,
    figure: Figure,
    view: View,
    rows: Sequence[str],
    places: Mapping[str, str],
    absent: Mapping[str, str],
) -> None:
    """Print each plot's lines as columns of numbers."""
    for plot in figure.plots:
        attack = f", {plot.attack}" if plot.attack else ""
        say(console)
        say(console, f"{SETS[plot.data].title}, {plot.net}, eps {plot.eps}{attack}", "bold")
        if not_run := why_not_run(plot, places, absent):
            tell(console, not_run)
            continue
        cells = {line.name: view.line(plot, line) for line in plot.lines if wanted(line.name, rows)}
        for text in plot_lines(cells, plot.eps):
            say(console, text)


def plot_lines(cells: dict[str, dict[str, Any] | None], eps: str) -> list[str]:
    """A plot's models as text: side by side if each is one line with the same x values, else one after the other.

    Args:
        cells: the result of each model, by its name; None if there is none.
        eps: the eps of training, which is marked on an axis of eps.
    """
    drawn = {name: cell["value"] for name, cell in cells.items() if cell}
    images = describe_images(filter(None, cells.values()), "images")
    lines = [f"on {images}"] if images else []
    lines += [f"{name}: not run" for name in cells if name not in drawn]
    single = [len(value.get("series", ())) == 1 and value.keys() == {"x", "at", "series"} for value in drawn.values()]
    if drawn and all(single) and len({str(value["at"]) for value in drawn.values()}) == 1:
        first = next(iter(drawn.values()))
        series = {name: next(iter(value["series"].values())) for name, value in drawn.items()}
        return [*lines, next(iter(first["series"])), *curve_lines({**first, "series": series}, eps)]
    for name, value in drawn.items():
        lines += [name, *(f"  {line}" for line in curve_lines(value, eps))]
    return lines


def curve_lines(value: dict[str, Any], eps: str) -> list[str]:
    """A curve as lines of text; the eps of training is marked.

    At most ``MOST`` points are printed; the stored JSON has all of them.
    """
    if "tables" in value:
        return [line for each in value["tables"] for line in curve_lines(each, eps)]
    if "rows" in value:
        return [value["note"], *number_grid("", value["columns"], value["rows"], value["values"])]
    names, marked, count = list(value["series"]), value["x"] == "eps" and eps in value["at"], len(value["at"])
    shown = _shown(count)
    numbers = [[value["series"][name][place] for name in names] for place in shown]
    at = [f"{value['at'][place]}" + " *" * (marked and value["at"][place] == eps) for place in shown]
    lines = number_grid(value["x"], names, at, numbers)
    if len(shown) < count:
        lines.append(f"{len(shown)} of {count:,} points, denser at the start")
    lines += ["* the eps of training"] * marked + ([value["note"]] if "note" in value else [])
    return lines + (curve_lines(value["also"], eps) if "also" in value else [])


def _shown(count: int) -> list[int]:
    """The indices of the points to print: all, or some at logarithmic distances, with the first and the last."""
    if count <= MOST:
        return list(range(count))
    return sorted({round(count ** (step / (MOST - 1))) - 1 for step in range(MOST)})


def number_grid(corner: str, columns: Sequence[str], rows: Sequence[str], values: Sequence[Sequence[Any]]) -> list[str]:
    """Numbers in columns; if they are too wide, transposed; if that is also too wide, with the names cut."""
    cells = [[number(value) for value in each] for each in values]
    turned = [list(each) for each in zip(*cells, strict=True)]
    width = max(4, (WIDTH - 14) // max(1, len(columns)) - 1)
    short = [[cell[:width] for cell in each] for each in cells]
    for lines in (
        grid(corner, columns, list(zip(rows, cells, strict=True))),
        grid("", rows, list(zip(columns, turned, strict=True))),
    ):
        if max(map(len, lines)) <= WIDTH - 2:
            return lines
    return [
        f"{name[:10]:10}" + "".join(f" {cell[:width]:>{width}}" for cell in each)
        for name, each in [(corner, columns), *zip(rows, short, strict=True)]
    ]


def number(value: Any) -> str:
    """A number as text, with four digits."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int | str) else f"{value:.4g}"


# ---- Settings.


def show_settings(console: Console, table: Settings, rows: Sequence[str]) -> None:
    """Print each setting as the paper states it, and as toughen uses it."""
    for entry in table.entries:
        if wanted(entry.of, rows):
            say(console)
            say(console, f"{entry.of}, {entry.name}")
            for whose, text in (("paper", entry.published), ("toughen", stated(table, entry))):
                for place, line in enumerate(textwrap.wrap(text, WIDTH - 11)):
                    say(console, f"  {whose * (not place):8} {line}")

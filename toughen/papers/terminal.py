"""Tables and figures in a terminal of 80 columns: what was published, what came out here, and the difference."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from rich.console import Console

from toughen.papers.dataset_facts import SETS
from toughen.papers.datasets import describe_images, stands_in
from toughen.papers.kept_weights import figure_run_spec
from toughen.papers.published.exhibits import STATED, Column, Exhibit, Figure, Panel, Row, Settings, Table
from toughen.papers.scales import Scale
from toughen.papers.stated_settings import stated
from toughen.papers.store import Store
from toughen.papers.tasks import figure_quantity, wanted
from toughen.papers.terminal_figures import WIDTH, plot_lines
from toughen.papers.values import Value, View, published, written

NO_FIGURE = "n/a"
NO_RATIO = "measured, but not beside what it is compared with"
ONE_SEED = "measured with one seed"
TIMED = (
    "Times are of whole trainings on one kind of processor and in one precision, which took turns epoch by epoch; ≈ "
    "stands before a ratio to one that took no turns with it: what else the machine did meanwhile is in that."
)

PART = "Times of whole trainings are brought to the epochs of the recipe, of which this scale trains a part."


def say(console: Console, text: str = "", style: str = "") -> None:
    """A line as it is."""
    console.print(text, highlight=False, markup=False, soft_wrap=True, style=style or None)


def tell(console: Console, text: str, style: str = "") -> None:
    """A sentence, broken where it is too long."""
    indent = "  " if text.startswith("- ") else ""
    for line in textwrap.wrap(text, WIDTH, subsequent_indent=indent):
        say(console, line, style)


def heading(console: Console, exhibit: Exhibit, scale: Scale | None, places: Mapping[str, str] | None = None) -> None:
    """What is shown, and what its figures are worth.

    Args:
        console: where to print it.
        exhibit, scale: what is shown, and at which scale it was run.
        places: where the images of each data set lie.
    """
    tell(console, f"{exhibit.name}: {exhibit.title}", "bold")
    if scale is not None:
        tell(console, f"scale {scale.name}: {scale.about}")
    for name, place in (places or {}).items():
        if stands_in(place):
            tell(console, f"{SETS[name].title} is not at hand: drawn images stand in, noise of a colour a class")


def show_table(console: Console, table: Table, view: View, rows: Sequence[str], data: Sequence[str]) -> None:
    """Each panel, three lines a row: published, ours, the difference."""
    for panel in table.panels:
        say(console)
        tell(console, f"{SETS[panel.data].title}, {panel.net}, eps {panel.eps}" + _on(view, panel), "bold")
        if panel.data not in data:
            say(console, "not run: its images are not at hand")
        shown = [row for row in panel.rows if wanted(row.name, rows)]
        for line in panel_lines(panel, view, shown):
            say(console, line)
        for why in dict.fromkeys(lacking(panel, row, column, view) for row in shown for column in panel.columns):
            if why:
                tell(console, f"{NO_FIGURE}: {why}")
        for row in panel.rows:
            if row.note and wanted(row.name, rows):
                tell(console, f"{row.name}: {row.note}")
        times = [column for column in panel.columns if column.timed]
        if times:
            there = view.cells(panel, panel.row(panel.unit), times[0])
            more = "" if there else ", which was not run: without it there are none"
            tell(console, f"times are ratios to those of {panel.unit}{more}")
    timed = any(column.timed for panel in table.panels for column in panel.columns)
    notes(console, table, [TIMED] * timed + [PART] * any(in_part(panel, view.scale) for panel in table.panels))


def in_part(panel: Panel, scale: Scale) -> bool:
    """Whether it compares times of whole trainings of which the scale trains a part."""
    return scale.name != "full" and any(each.timed and each.of != "epoch seconds" for each in panel.columns)


def notes(console: Console, exhibit: Exhibit, more: Sequence[str] = ()) -> None:
    """What is to be known beside the figures."""
    say(console)
    for note in (*more, *exhibit.notes):
        tell(console, f"- {note}")


def _on(view: View, panel: Panel) -> str:
    """Which images our figures are from."""
    found = describe_images(view.all(panel))
    return f"; ours on {found}" if found else ""


def panel_lines(panel: Panel, view: View, rows: Sequence[Row]) -> list[str]:
    """A panel as lines of text."""
    figures = {row.name: row_cells(panel, row, view) for row in rows}
    widths = [
        max([len(column.name), 6, *(len(cells[place]) for each in figures.values() for cells in each.values())])
        for place, column in enumerate(panel.columns)
    ]
    first = max((len(row.name) for row in rows), default=0)
    head = "".join(f"  {column.name:>{width}}" for column, width in zip(panel.columns, widths, strict=True))
    lines = [" " * (first + 6) + head]
    for row in rows:
        for place, (label, cells) in enumerate(figures[row.name].items()):
            text = "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
            lines.append(f"{row.name if not place else '':{first}} {label:>5}{text}".rstrip())
        lines += [f"{'':{first}}       cannot run: {row.cannot}"] if row.cannot else []
    return lines


def row_cells(panel: Panel, row: Row, view: View) -> dict[str, list[str]]:
    """A row's figures by "paper", "ours" and "diff"."""
    found: dict[str, list[str]] = {"paper": [], "ours": [], "diff": []}
    for column in panel.columns:
        theirs, ours = published(panel, row, column), view.value(panel, row, column)
        found["paper"].append(panel.printed(row, column) if column.of == STATED else written(theirs, column))
        found["ours"].append("" if column.of == STATED else _ours(panel, row, column, view, ours))
        difference = "" if ours is None or theirs is None else f"{ours.mean - theirs:+.2f}"
        found["diff"].append(difference)
    return found


def _ours(panel: Panel, row: Row, column: Column, view: View, value: Value | None) -> str:
    return NO_FIGURE if lacking(panel, row, column, view) else our(value, column)


def lacking(panel: Panel, row: Row, column: Column, view: View) -> str:
    """Why what was measured gives no figure; "" where there is one, and where nothing was measured."""
    if column.of == STATED or view.value(panel, row, column) is not None or not view.cells(panel, row, column):
        return ""
    return ONE_SEED if column.spread else NO_RATIO


def our(value: Value | None, column: Column, digits: int = 1) -> str:
    """Our figure; where there are several seeds, with so many digits and its deviation over them."""
    if value is None:
        return written(None, column)
    about = "≈" * value.apart
    if value.spread is None:
        return about + written(value.mean, column)
    return f"{about}{value.mean:.{digits}f}±{value.spread:.{digits}f}"


# ---- Figures.


def show_figure(
    console: Console,
    figure: Figure,
    store: Store,
    scale: Scale,
    images: int | None,
    rows: Sequence[str],
    data: Sequence[str],
) -> None:
    """Each plot's lines as columns of numbers."""
    for plot in figure.plots:
        say(console)
        say(
            console,
            f"{SETS[plot.data].title}, {plot.net}, eps {plot.eps}" + f", {plot.attack}" * bool(plot.attack),
            "bold",
        )
        if plot.data not in data:
            say(console, "not run: its images are not at hand")
            continue
        cells = {
            line.name: store.read(figure_run_spec(plot, line, scale), figure_quantity(plot, images))
            for line in plot.lines
            if wanted(line.name, rows)
        }
        for text in plot_lines(cells, plot.eps):
            say(console, text)
    notes(console, figure)


# ---- Settings.


def show_settings(console: Console, table: Settings, rows: Sequence[str]) -> None:
    """What the paper states, and what toughen trains and attacks with."""
    for entry in table.entries:
        if wanted(entry.of, rows):
            ours = stated(table, entry)
            say(console)
            say(console, f"{entry.of}, {entry.name}")
            for whose, text in (("paper", entry.published), ("toughen", ours)):
                for number, line in enumerate(textwrap.wrap(text, WIDTH - 11)):
                    say(console, f"  {whose if not number else '':8} {line}")
    notes(console, table)

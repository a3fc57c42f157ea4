"""Writes docs/results/reproduction.md: every published figure and ours, or "not run"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from toughen.papers.datasets import SETS, describe_images
from toughen.papers.published import PAPERS
from toughen.papers.published.exhibits import Exhibit, Panel, Plot, Row, Settings
from toughen.papers.scales import SCALES
from toughen.papers.stated_settings import stated
from toughen.papers.store import Store
from toughen.papers.terminal import curve_lines
from toughen.papers.values import PART, TIMED, View, in_part, is_measured, lacking, our, published, sessions, written

NOT_RUN = "not run"
WIDTH = 120  # of a line of prose
SHOWN = ("full", "cpu")  # the results of smoke have no meaning
HEAD = f"""# Reproduction

This page compares every table and figure of five papers with runs of toughen. The main results are summarised in
[MNIST](mnist.md) and [CIFAR-10](cifar10.md). `python benchmarks/reproduction.py` writes this page from
`results/reproduction/`. `toughen reproduce NAME --scale full --data DIR` runs a table, and `toughen reproduce --list`
lists all ([how to](../how-to/reproduce-a-papers-table.md)).

- A cell holds published / ours, in percent unless the table says otherwise. A dash means that the paper has no figure.
  "Not run" means that `results/reproduction/` has no such run.
- Scale "full" has the paper's own settings. Values that the paper does not state are ours, and the recipes name them.
  Scale "cpu" trains smaller nets for fewer epochs, and only its rows can be compared with each other. The caption of
  each table names the scale.
- A time is given as a ratio to the time of one row. {TIMED}
- Runs are trained without rescues (`--watch warn`). The weights are those that did best on held-out training images.
  Two kinds of rows keep the last weights (`--weights last`): rows that show a collapse, and rows of DAT, whose slides
  list early stop separately.
"""


def page(results: Path) -> str:
    """The page from a folder of results."""
    store = Store(results)
    parts = [HEAD]
    for paper, exhibits in PAPERS.items():
        parts.append(f"## {paper}\n")
        parts += [section(exhibit, store) for exhibit in exhibits]
    return folded("\n".join(parts))


def folded(text: str) -> str:
    """Markdown with its prose wrapped at 120 characters; tables and headings are not wrapped."""
    return "\n".join(
        line
        if len(line) <= WIDTH or line.startswith(("|", "#"))
        else fill(
            line,
            WIDTH,
            subsequent_indent="  " * line.startswith("- "),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in text.split("\n")
    )


def section(exhibit: Exhibit, store: Store) -> str:
    """One table or figure."""
    lines = [f"### {exhibit.name}: {exhibit.title}\n"]
    if isinstance(exhibit, Settings):
        rows = [[entry.of, entry.name, entry.published, stated(exhibit, entry)] for entry in exhibit.entries]
        lines.append(markdown(["of", "setting", "paper", "toughen"], rows))
    else:
        for part in exhibit.parts:
            for view in views_of(part, store):
                lines.append(panel_part(part, view) if isinstance(part, Panel) else plot_part(part, view))
    notes = "\n".join(f"- {note}" for note in exhibit.notes)
    return "\n".join([*lines, notes + "\n"] if notes else lines)


def views_of(part: Panel | Plot, store: Store) -> list[View]:
    """The results of each scale at which a part of a panel or plot was run; at least one view, possibly empty."""
    views = [View(store, SCALES[name]) for name in SHOWN]
    return [view for view in views if view.all(part)] or views[:1]


def panel_part(panel: Panel, view: View) -> str:
    """One data set and net."""
    head = ["", *(column.name + " (std)" * column.spread * ("std" not in column.name) for column in panel.columns)]
    table = markdown(head, [[row.name, *cells(panel, row, view)] for row in panel.rows])
    unit = f"Times are ratios to those of {panel.unit}.\n" if any(each.timed for each in panel.columns) else ""
    unit += f"{PART}\n" if in_part(panel, view.scale) else ""
    more = [f"{row.name}: {row.note or 'cannot run: ' + row.cannot}\n" for row in panel.rows if row.note or row.cannot]
    title = f"{SETS[panel.data].title}, {panel.net}, eps {panel.eps}: paper / ours{origin(view.all(panel))}\n"
    return "\n".join(filter(None, [title, table, unit, *image_notes(panel, view), *more]))


def image_notes(panel: Panel, view: View) -> list[str]:
    """If the figures of a panel are from different images: for each row, the images of its figures."""
    rows: dict[str, dict[str, list[str]]] = {}
    for row in panel.rows:
        for column in panel.columns:
            images = describe_images(view.cells(panel, row, column))
            if images:
                rows.setdefault(row.name, {}).setdefault(images, []).append(column.name)
    if len({images for of in rows.values() for images in of}) < 2:
        return []
    parts = {
        row: [images if len(of) == 1 else f"{', '.join(names)} on {images}" for images, names in of.items()]
        for row, of in rows.items()
    }
    return [f"{row}: {'; '.join(each)}.\n" for row, each in parts.items()]


def cells(panel: Panel, row: Row, view: View) -> list[str]:
    """A row's cells: published and ours."""
    texts = []
    for column in panel.columns:
        theirs = panel.printed(row, column)
        if not is_measured(row, column):
            texts.append(theirs)
            continue
        value, number = view.value(panel, row, column), published(panel, row, column)
        if column.timed and number is not None:
            theirs += f" ({written(number, column)})"
        missing = lacking(panel, row, column, view) or NOT_RUN
        texts.append(f"{theirs} / {our(value, column, 2) if value else missing}")
    return texts


def origin(cells: Sequence[dict[str, Any]]) -> str:
    """The origin of our figures: how and where the models were trained, and the images of the measurement."""
    if not cells:
        return ""
    trained = [session for each in cells if each["training"] for session in sessions(each["training"]["provenance"])]
    measured, dates = [each["provenance"] for each in cells], [each["date"] for each in cells]
    precisions = together(trained, "precision")
    parts = [
        f"scale {cells[0]['scale']}",
        describe_images(cells),
        "seed " + ", ".join(map(str, sorted({each["seed"] for each in cells}))),
        together([*trained, *measured], "processor"),
        precisions and f"trained in {precisions} at commit {together(trained, 'commit')}",
        f"{'measured ' * bool(precisions)}at commit {together(measured, 'commit')}",
        " to ".join(sorted({min(dates), max(dates)})),
    ]
    return f" ({'; '.join(filter(None, parts))})"


def together(provenances: Sequence[dict[str, Any]], name: str) -> str:
    """All values of one field, joined."""
    return ", ".join(sorted({str(each[name]) for each in provenances if name in each}))


def plot_part(plot: Plot, view: View) -> str:
    """A plot of a figure as numbers."""
    attack = f", {plot.attack}" if plot.attack else ""
    lines = [f"{SETS[plot.data].title}, {plot.net}, eps {plot.eps}{attack}:\n"]
    for line in plot.lines:
        cell = view.line(plot, line)
        lines.append(f"- {line.name}: " + (f"ours{origin([cell])}" if cell else NOT_RUN))
        if cell:
            lines += ["", "```", *curve_lines(cell["value"], plot.eps), "```", ""]
    return "\n".join([*lines, ""])


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(each) + " |" for each in lines) + "\n"

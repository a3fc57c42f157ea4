"""Tables and figures in a terminal of 80 columns: what was published, what came out here, and the difference."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from toughen.papers.exhibits import STATED, Column, Exhibit, Figure, Panel, Row, Settings, Table
from toughen.reproduction.entrants import Entrant
from toughen.reproduction.scales import SCALES, Scale
from toughen.reproduction.stated import stated
from toughen.reproduction.store import Store
from toughen.reproduction.values import Value, View, machine, published, written
from toughen.reproduction.work import figure_entrant, figure_quantity, wanted

NAMES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet100": "ImageNet-100"}
NAMES["imagenet"] = "ImageNet"
WIDTH = 80


def say(console: Console, text: str = "", style: str = "") -> None:
    """A line as it is."""
    console.print(text, highlight=False, markup=False, soft_wrap=True, style=style or None)


def tell(console: Console, text: str, style: str = "") -> None:
    """A sentence, broken where it is too long."""
    indent = "  " if text.startswith("- ") else ""
    for line in textwrap.wrap(text, WIDTH, subsequent_indent=indent):
        say(console, line, style)


def heading(console: Console, exhibit: Exhibit, scale: Scale | None) -> None:
    """What is shown, and what its figures are worth."""
    tell(console, f"{exhibit.name}: {exhibit.title}", "bold")
    if scale is not None:
        tell(console, f"scale {scale.name}: {scale.about}")


def show_table(console: Console, table: Table, view: View, rows: Sequence[str], data: Sequence[str]) -> None:
    """Each panel, three lines a row: published, ours, the difference."""
    for panel in table.panels:
        say(console)
        say(console, f"{NAMES[panel.data]}, {panel.net}, eps {panel.eps}" + _on(view, panel), "bold")
        if panel.data not in data:
            say(console, "not run: its images are not at hand")
        for line in panel_lines(panel, view, [row for row in panel.rows if wanted(row.name, rows)]):
            say(console, line)
        if panel.unit and any(column.timed for column in panel.columns):
            say(console, f"times are ratios to those of {panel.unit}, measured on one machine")
    notes(console, table)


def notes(console: Console, exhibit: Exhibit) -> None:
    say(console)
    for note in exhibit.notes:
        tell(console, f"- {note}")


def _on(view: View, panel: Panel) -> str:
    """How many images our figures are from."""
    cells = [cell for row in panel.rows for column in panel.columns for cell in view.cells(panel, row, column)]
    counts = sorted({cell["images"] for cell in cells if cell["images"]})
    return f"; ours on {' and '.join(f'{count:,}' for count in counts)} test images" if counts else ""


def panel_lines(panel: Panel, view: View, rows: Sequence[Row]) -> list[str]:
    """A panel as lines of text."""
    widths = [max(len(column.name), 7) for column in panel.columns]
    first = max((len(row.name) for row in rows), default=0)
    head = "".join(f"  {column.name:>{width}}" for column, width in zip(panel.columns, widths, strict=True))
    lines = [" " * (first + 6) + head]
    for row in rows:
        for place, (label, cells) in enumerate(row_cells(panel, row, view).items()):
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
        found["ours"].append("" if column.of == STATED else our(ours, column))
        difference = "" if ours is None or theirs is None else f"{ours.mean - theirs:+.2f}"
        found["diff"].append(difference)
    return found


def our(value: Value | None, column: Column) -> str:
    """Our figure, with its deviation over seeds."""
    if value is None or value.spread is None:
        return written(value.mean if value else None, column)
    return f"{value.mean:.1f}±{value.spread:.1f}"


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
        say(console, f"{NAMES[plot.data]}, {plot.net}, eps {plot.eps}" + f", {plot.attack}" * bool(plot.attack), "bold")
        if plot.data not in data:
            say(console, "not run: its images are not at hand")
            continue
        cells = {
            line.name: store.read(figure_entrant(plot, line, scale), figure_quantity(plot, images))
            for line in plot.lines
            if wanted(line.name, rows)
        }
        for text in plot_lines(cells, plot.eps):
            say(console, text)
    notes(console, figure)


def plot_lines(cells: dict[str, dict[str, Any] | None], eps: str) -> list[str]:
    """A plot's models: side by side where each is one line over the same places, else one after the other.

    Args:
        cells: what was drawn of each, by its name; None where nothing was.
        eps: of training, which is marked where the curve is over eps.
    """
    drawn = {name: cell["value"] for name, cell in cells.items() if cell}
    counts = sorted({cell["images"] for cell in cells.values() if cell})
    lines = [f"on {' and '.join(f'{count:,}' for count in counts)} images"] if drawn else []
    lines += [f"{name}: not run" for name in cells if name not in drawn]
    single = [len(value.get("series", ())) == 1 and value.keys() == {"x", "at", "series"} for value in drawn.values()]
    if drawn and all(single) and len({str(value["at"]) for value in drawn.values()}) == 1:
        first = next(iter(drawn.values()))
        what = next(iter(first["series"]))
        series = {name: next(iter(value["series"].values())) for name, value in drawn.items()}
        return [*lines, what, *curve_lines({**first, "series": series}, eps)]
    for name, value in drawn.items():
        lines += [name, *(f"  {line}" for line in curve_lines(value, eps))]
    return lines


def curve_lines(value: dict[str, Any], eps: str) -> list[str]:
    """What was drawn, as lines of text; the place at the eps of training is marked."""
    if "tables" in value:
        return [line for each in value["tables"] for line in curve_lines(each, eps)]
    if "rows" in value:
        return [value["note"], *_grid(value["rows"], value["columns"], value["values"])]
    names, marked = list(value["series"]), value["x"] == "eps" and eps in value["at"]
    rows = [[value["series"][name][place] for name in names] for place in range(len(value["at"]))]
    places = [f"{place} *" if marked and place == eps else str(place) for place in value["at"]]
    lines = _grid(places, names, rows, value["x"])
    lines += ["* the eps of training"] * marked + ([value["note"]] if "note" in value else [])
    return lines + (curve_lines(value["also"], eps) if "also" in value else [])


def _grid(rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[Any]], corner: str = "") -> list[str]:
    """Numbers in columns; turned where names are too long for the width."""
    first = max(len(name) for name in (corner, *rows))
    widths = [max(6, len(name)) for name in columns]
    if first + sum(widths) + 2 * len(widths) > WIDTH - 2:
        return (
            _grid(columns, rows, [list(each) for each in zip(*values, strict=True)])
            if _fits(rows, columns)
            else _short(rows, columns, values, corner)
        )
    lines = [f"{corner:{first}}" + "".join(f"  {name:>{width}}" for name, width in zip(columns, widths, strict=True))]
    for name, each in zip(rows, values, strict=True):
        lines.append(f"{name:{first}}" + "".join(f"  {_number(v):>{w}}" for v, w in zip(each, widths, strict=True)))
    return lines


def _fits(rows: Sequence[str], columns: Sequence[str]) -> bool:
    return max(map(len, columns)) + sum(max(6, len(name)) + 2 for name in rows) <= WIDTH - 2


def _short(rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[Any]], corner: str) -> list[str]:
    """The same with names cut to what fits."""
    width = max(4, (WIDTH - 14) // max(1, len(columns)) - 1)
    lines = [f"{corner[:10]:10}" + "".join(f" {name[:width]:>{width}}" for name in columns)]
    for name, each in zip(rows, values, strict=True):
        lines.append(f"{name[:10]:10}" + "".join(f" {_number(value)[:width]:>{width}}" for value in each))
    return lines


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int | str) else f"{value:.4g}"


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


# ---- The list.


def show_list(console: Console, exhibits: Sequence[Exhibit], store: Store) -> None:
    """Each table and figure in two lines: what it is; the figure that stands for it, and how much of it was run."""
    say(console, f"{'':24}{'published':>10}{'ours':>9}{'figures':>9}  {'scale':6} {'device':9} date", "bold")
    for exhibit in exhibits:
        for line in list_lines(exhibit, store):
            say(console, line)
    say(console)
    tell(console, "figures: how many of the table's are measured here, at the scale where most are")
    tell(console, "`toughen reproduce NAME --scale smoke|cpu|full --data DIR` runs one.")


def list_lines(exhibit: Exhibit, store: Store) -> list[str]:
    """One entry of the list."""
    title = exhibit.title if len(exhibit.title) <= WIDTH - 2 else exhibit.title[: WIDTH - 5] + "..."
    if isinstance(exhibit, Settings):
        return [f"{exhibit.name:24}{'settings':>10}", f"  {title}"]
    best: tuple[int, str, list[dict[str, Any]], int] = (0, "-", [], 0)
    for name in ("full", "cpu", "smoke"):
        found = counted(exhibit, View(store, SCALES[name]))
        if found[0] > best[0] or not best[3]:
            best = found
    done, headline, cells, whole = best
    where = (
        f"{cells[-1]['scale']:6} {machine(cells[-1]).split(',')[0][:9]:9} {cells[-1]['date']}"
        if cells
        else f"{'-':6} {'-':9} -"
    )
    theirs = printed_headline(exhibit) if isinstance(exhibit, Table) else "drawn"
    return [f"{exhibit.name:24}{theirs:>10}{headline:>9}{f'{done}/{whole}':>9}  {where}", f"  {title}"]


def printed_headline(table: Table) -> str:
    """The published figure that stands for a table."""
    panel, row, column = headline_place(table)
    return written(published(panel, row, column), column)


def headline_place(table: Table) -> tuple[Panel, Row, Column]:
    row, column = table.headline
    panel = next(p for p in table.panels if row in [r.name for r in p.rows] and column in [c.name for c in p.columns])
    return panel, panel.row(row), next(each for each in panel.columns if each.name == column)


def counted(exhibit: Table | Figure, view: View) -> tuple[int, str, list[dict[str, Any]], int]:
    """How many figures of ours there are, the one in the list, what they are made of, and how many there could be."""
    cells: list[dict[str, Any]] = []
    if isinstance(exhibit, Figure):
        places = [(plot, line) for plot in exhibit.plots for line in plot.lines]
        for plot, line in places:
            model = figure_entrant(plot, line, view.scale) if knows(view, line.run, plot.data) else None
            cell = view.store.best(model, figure_quantity(plot, None)) if model else None
            cells += [cell] if cell else []
        return len(cells), "-", cells, len(places)
    whole, done = 0, 0
    for panel in exhibit.panels:
        for row in panel.rows:
            for column in panel.columns:
                whole += column.of != STATED
                value = view.value(panel, row, column)
                done += value is not None
                cells += value.cells if value else ()
    panel, row, column = headline_place(exhibit)
    ours = view.value(panel, row, column)
    return done, written(ours.mean if ours else None, column), cells, whole


def knows(view: View, words: str, data: str) -> bool:
    """Whether there is anything of a model."""
    return view.store.knows(Entrant(words, data, 0, view.scale))

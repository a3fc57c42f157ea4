"""The list of all tables and figures, with the results so far."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.console import Console

from toughen.papers.datasets import SETS
from toughen.papers.published.exhibits import Column, Exhibit, Figure, Panel, Row, Settings, Table
from toughen.papers.scales import SCALES
from toughen.papers.store import Store
from toughen.papers.terminal import WIDTH, tell
from toughen.papers.values import View, is_measured, our, published, written
from toughen.papers.weights import MANIFEST, listed
from toughen.utils.console import say

DEVICE = 10  # width of the column "device", in characters


def show_list(console: Console, exhibits: Sequence[Exhibit], store: Store) -> None:
    """Print two lines for each table and figure: its headline figure and the number of results; and its title."""
    say(console, f"{'':26}{'published':>9}{'ours':>8}{'figures':>8}  {'scale':5} {'device':{DEVICE}} date", "bold")
    for exhibit in exhibits:
        try:
            lines = list_lines(exhibit, store)
        except ValueError as error:  # the others can be shown
            lines = [exhibit.name, f"  {error}"]
        for line in lines:
            say(console, line)
    say(console)
    for path in store.damaged:
        say(
            console, f"{path} is damaged, so the results in its folder are left out: remove it, and run its table again"
        )
    for line in _weights(store):
        say(console, line)
    tell(console, "published, ours: one figure of the table; its row and column are given after the title")
    tell(console, "figures: the number of figures that are measured, of all in the table; one line for each scale")
    tell(console, "`toughen reproduce NAME --scale smoke|cpu|full --data DIR` runs a table or figure.")


def _weights(store: Store) -> list[str]:
    """A line on the file that lists the weights; none if there are no weights."""
    try:
        count = len(listed(store.root))
    except ValueError as error:  # figures can be shown
        return [str(error)]
    return [f"{MANIFEST} lists the weights of {count} trained model{'s' * (count > 1)}"] * (count > 0)


def list_lines(exhibit: Exhibit, store: Store) -> list[str]:
    """One entry of the list: a line for each scale with results, then the title."""
    if isinstance(exhibit, Settings):
        return [f"{exhibit.name:26}{'settings':>9}", _title(exhibit, "")]
    views = shown(exhibit, store)
    names = [exhibit.name, *[""] * (len(views) - 1)]
    lines = [f"{name:26}{_at_scale(exhibit, view)}" for name, view in zip(names, views, strict=True)]
    return [*lines, _title(exhibit, _headline(exhibit, views) if isinstance(exhibit, Table) else "")]


def shown(exhibit: Table | Figure, store: Store) -> list[View]:
    """The scales with results, or "full" if there are none; never empty.

    Smoke, whose results have no meaning, is only shown if no other scale has results.
    """
    views = [View(store, SCALES[name]) for name in ("full", "cpu", "smoke")]
    run = [view for view in views if any(map(view.all, exhibit.parts))] or views[:1]
    return [view for view in run if view.scale.name != "smoke"] or run


def _at_scale(exhibit: Table | Figure, view: View) -> str:
    """The headline figure, the number of figures, and the scale, device and date of the latest figure."""
    latest = max(
        (cell for part in exhibit.parts for cell in view.all(part)), key=lambda cell: cell["date"], default=None
    )
    where = f"{'-':5} {'-':{DEVICE}} -"
    if latest:
        processor = str(latest["provenance"].get("processor", ""))
        where = f"{view.scale.name:5} {short(processor):{DEVICE}} {latest['date']}"
    theirs, ours = "drawn", "-"
    if isinstance(exhibit, Table):
        place = headline_place(exhibit, view)
        theirs, ours = written(published(*place), place[2]), our(view.value(*place), place[2])
    done, whole = counted(exhibit, view)
    return f"{theirs:>9}{ours:>8}{f'{done}/{whole}':>8}  {where}"


def short(processor: str) -> str:
    """A processor's name for a narrow column: its first words, without general ones such as "Processor"."""
    words = re.sub(r"\((R|TM)\)|\b(CPU|GPU|Processor|NVIDIA|GeForce|Tesla)\b|,.*", " ", processor).split()
    name, *more = words or ["-"]
    for word in more:
        if len(f"{name} {word}") > DEVICE:
            break
        name += f" {word}"
    return name[:DEVICE]


def _headline(table: Table, views: Sequence[View]) -> str:
    """The row and column of a table's headline figure, with the data set if the table has several."""
    data = dict.fromkeys(SETS[headline_place(table, view)[0].data].title for view in views)
    return f" ({', '.join([*table.headline, *([' and '.join(data)] if len(table.panels) > 1 else [])])})"


def _title(exhibit: Exhibit, headline: str) -> str:
    """An exhibit's title, cut to fit into a line, followed by the name of its headline figure."""
    room = WIDTH - 2 - len(headline)
    return "  " + (exhibit.title if len(exhibit.title) <= room else exhibit.title[: room - 3] + "...") + headline


def headline_place(table: Table, view: View) -> tuple[Panel, Row, Column]:
    """The panel, row and column of a table's headline figure: in the first panel with our figure, else in the first."""
    row, column = table.headline
    places = [
        (panel, panel.row(row), next(each for each in panel.columns if each.name == column))
        for panel in table.panels
        if row in [each.name for each in panel.rows] and column in [each.name for each in panel.columns]
    ]
    return next((place for place in places if view.value(*place)), places[0])


def counted(exhibit: Table | Figure, view: View) -> tuple[int, int]:
    """The number of our figures, and the number of all figures that can be measured."""
    if isinstance(exhibit, Figure):
        lines = [view.line(plot, line) for plot in exhibit.plots for line in plot.lines]
        return len(list(filter(None, lines))), len(lines)
    whole, done = 0, 0
    for panel in exhibit.panels:
        for row in panel.rows:
            for column in panel.columns:
                whole += is_measured(row, column) and not row.cannot
                done += view.value(panel, row, column) is not None
    return done, whole

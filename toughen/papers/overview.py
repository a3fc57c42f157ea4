"""The list of all tables and figures, with what was measured of them so far."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.console import Console

from toughen.papers.datasets import SETS
from toughen.papers.published.exhibits import STATED, Column, Exhibit, Figure, Panel, Row, Settings, Table
from toughen.papers.scales import SCALES
from toughen.papers.store import Store
from toughen.papers.terminal import WIDTH, tell
from toughen.papers.values import View, our, published, written
from toughen.papers.weights import MANIFEST, listed
from toughen.utils.console import say

DEVICE = 10  # characters of its column


def show_list(console: Console, exhibits: Sequence[Exhibit], store: Store) -> None:
    """Each table and figure in two lines: what it is; the figure that stands for it, and how much of it was run."""
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
        say(console, f"{path} is damaged, so the figures beside it are left out: remove it, and run its table again")
    for line in _weights(store):
        say(console, line)
    tell(console, "published, ours: the figure of a table that is named behind its title, by row and column")
    tell(console, "figures: how many of the table's are measured here, a line for each scale")
    tell(console, "`toughen reproduce NAME --scale smoke|cpu|full --data DIR` runs one.")


def _weights(store: Store) -> list[str]:
    """Where the weights lie, if any were kept."""
    try:
        count = len(listed(store.root))
    except ValueError as error:  # figures can be shown
        return [str(error)]
    return [f"{MANIFEST}: where the weights of {count} trained model{'s' * (count > 1)} lie"] * (count > 0)


def list_lines(exhibit: Exhibit, store: Store) -> list[str]:
    """One entry of the list: a line for each scale at which something was run, and the title."""
    if isinstance(exhibit, Settings):
        return [f"{exhibit.name:26}{'settings':>9}", _title(exhibit, "")]
    views = shown(exhibit, store)
    names = [exhibit.name, *[""] * (len(views) - 1)]
    lines = [f"{name:26}{_at_scale(exhibit, view)}" for name, view in zip(names, views, strict=True)]
    return [*lines, _title(exhibit, _stands(exhibit, views) if isinstance(exhibit, Table) else "")]


def shown(exhibit: Table | Figure, store: Store) -> list[View]:
    """The scales at which something was run, full where nothing was; smoke, which means nothing, only where no other.

    Never empty.
    """
    views = [View(store, SCALES[name]) for name in ("full", "cpu", "smoke")]
    run = [view for view in views if any(map(view.all, exhibit.parts))] or views[:1]
    return [view for view in run if view.scale.name != "smoke"] or run


def _at_scale(exhibit: Table | Figure, view: View) -> str:
    """The figure that stands for an exhibit, how many there are, and of the latest of them scale, device and date."""
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
    """A processor's name in a narrow column: its first words, without those that say nothing."""
    words = re.sub(r"\((R|TM)\)|\b(CPU|GPU|Processor|NVIDIA|GeForce|Tesla)\b|,.*", " ", processor).split()
    name, *more = words or ["-"]
    for word in more:
        if len(f"{name} {word}") > DEVICE:
            break
        name += f" {word}"
    return name[:DEVICE]


def _stands(table: Table, views: Sequence[View]) -> str:
    """Which figure stands for a table, with its data where that could be another's."""
    data = dict.fromkeys(SETS[headline_place(table, view)[0].data].title for view in views)
    return f" ({', '.join([*table.headline, *([' and '.join(data)] if len(table.panels) > 1 else [])])})"


def _title(exhibit: Exhibit, stands: str) -> str:
    """What an exhibit shows, cut to a line, and the figure that stands for it."""
    room = WIDTH - 2 - len(stands)
    return "  " + (exhibit.title if len(exhibit.title) <= room else exhibit.title[: room - 3] + "...") + stands


def headline_place(table: Table, view: View) -> tuple[Panel, Row, Column]:
    """Where the figure that stands for a table is: in the first of its panels that has ours, else in the first."""
    row, column = table.headline
    places = [
        (panel, panel.row(row), next(each for each in panel.columns if each.name == column))
        for panel in table.panels
        if row in [each.name for each in panel.rows] and column in [each.name for each in panel.columns]
    ]
    return next((place for place in places if view.value(*place)), places[0])


def counted(exhibit: Table | Figure, view: View) -> tuple[int, int]:
    """How many figures of ours there are, and how many there could be."""
    if isinstance(exhibit, Figure):
        lines = [view.line(plot, line) for plot in exhibit.plots for line in plot.lines]
        return len(list(filter(None, lines))), len(lines)
    whole, done = 0, 0
    for panel in exhibit.panels:
        for row in panel.rows:
            for column in panel.columns:
                whole += column.of != STATED and (column.of != "hours saved" or row.against != "")
                done += view.value(panel, row, column) is not None
    return done, whole

"""The list of all tables and figures, with what was measured of them so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from toughen.papers.exhibits import STATED, Column, Exhibit, Figure, Panel, Row, Settings, Table
from toughen.reproduction.drawn import WIDTH
from toughen.reproduction.entrants import Entrant
from toughen.reproduction.scales import SCALES
from toughen.reproduction.show import say, tell
from toughen.reproduction.store import Store
from toughen.reproduction.values import View, machine, published, written
from toughen.reproduction.work import figure_entrant, figure_quantity


def show_list(console: Console, exhibits: Sequence[Exhibit], store: Store) -> None:
    """Each table and figure in two lines: what it is; the figure that stands for it, and how much of it was run."""
    say(console, f"{'':26}{'published':>9}{'ours':>8}{'figures':>8}  {'scale':6} {'device':9} date", "bold")
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
    tell(console, "published, ours: the figure of a table that is named behind its title, by row and column")
    tell(console, "figures: how many of the table's are measured here, at the scale where most are")
    tell(console, "`toughen reproduce NAME --scale smoke|cpu|full --data DIR` runs one.")


def list_lines(exhibit: Exhibit, store: Store) -> list[str]:
    """One entry of the list."""
    stands = f" ({', '.join(exhibit.headline)})" if isinstance(exhibit, Table) else ""
    room = WIDTH - 2 - len(stands)
    title = (exhibit.title if len(exhibit.title) <= room else exhibit.title[: room - 3] + "...") + stands
    if isinstance(exhibit, Settings):
        return [f"{exhibit.name:26}{'settings':>9}", f"  {title}"]
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
    return [f"{exhibit.name:26}{theirs:>9}{headline:>8}{f'{done}/{whole}':>8}  {where}", f"  {title}"]


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
                whole += column.of != STATED and (column.of != "hours saved" or row.against != "")
                value = view.value(panel, row, column)
                done += value is not None
                cells += value.cells if value else ()
    panel, row, column = headline_place(exhibit)
    ours = view.value(panel, row, column)
    return done, written(ours.mean if ours else None, column), cells, whole


def knows(view: View, words: str, data: str) -> bool:
    """Whether there is anything of a model."""
    return view.store.knows(Entrant(words, data, 0, view.scale))

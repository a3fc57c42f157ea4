"""`toughen reproduce`: a table or figure of a paper, run, kept and shown beside what was published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from toughen.engine.device import pick_device
from toughen.papers import datasets, overview, terminal
from toughen.papers.costs import costs
from toughen.papers.progress_board import ProgressBoard
from toughen.papers.published import EXHIBITS, find
from toughen.papers.published.exhibits import Figure, Settings, Table
from toughen.papers.scales import SCALES, Scale
from toughen.papers.store import Store
from toughen.papers.tasks import make_tasks, run_tasks, wanted
from toughen.papers.training import RunContext
from toughen.papers.values import MOST_SEEDS, View
from toughen.runs.files import check_writable


def list_all(out: str, console: Console) -> None:
    """All tables and figures, and what was measured of them so far."""
    overview.show_list(console, list(EXHIBITS.values()), Store(Path(out)))


def reproduce(
    name: str,
    *,
    scale: str | None = None,
    rows: Sequence[str] | None = None,
    seeds: int | None = None,
    data: str | None = None,
    limit: int | None = None,
    out: str = "runs/reproduce",
    device: str = "auto",
    console: Console | None = None,
    progress: Console | None = None,
) -> dict[str, str]:
    """Train what is missing, evaluate it, and print a table or figure with ours beside the published one.

    Args:
        name: the table or figure.
        scale: how much of the paper's setting is run; a table that only states settings needs none.
        rows: some rows only; None means all.
        seeds: how many seeds; None means the paper's for a spread over seeds, else one.
        data: a folder that is a data set or holds some by name, or a data set's name; None: the hub.
        limit: evaluate on so many test images (``datasets.some``); None means the scale's.
        out: where runs and results are kept.
        device: what trains and attacks.
        console, progress: where to print what came out, and how far it is.

    Returns:
        What could not be trained, and why, by row.

    Raises:
        ValueError: a name is unknown, or data are missing.
        Stopped: on a signal; the same call goes on.
    """
    exhibit, console = find(name), console or Console()
    check_rows(exhibit, rows)
    check_counts(exhibit, seeds, limit)
    rows = rows or ()
    if isinstance(exhibit, Settings):
        terminal.heading(console, exhibit, None)
        terminal.show_settings(console, exhibit, rows)
        return {}
    chosen = check(scale)
    folder = Path(out)
    check_writable(folder)
    pick_device(device)
    if seeds is None:
        seeds = exhibit.seeds if isinstance(exhibit, Table) else 1
    places = at_hand(exhibit, rows, data, chosen, folder)
    context = _run(exhibit, places, rows, seeds, chosen, limit, folder, device, progress or Console(stderr=True))
    show_exhibit(console, exhibit, chosen, folder, places, rows, seeds, limit)
    for row, reason in context.failed.items():
        terminal.say(console, f"{row}: could not be trained: {reason}", "bold red")
    terminal.say(console, f"results: {folder / chosen.name}")
    return context.failed


def show_exhibit(
    console: Console, exhibit: Table | Figure, scale: Scale, folder: Path, places: dict[str, str], rows: Sequence[str],
    seeds: int, limit: int | None,
) -> None:  # fmt: skip
    """Print a table or figure with what was measured of it."""
    terminal.heading(console, exhibit, scale, places)
    store = Store(folder)  # that knows what is new
    if isinstance(exhibit, Figure):
        terminal.show_figure(console, exhibit, store, scale, limit or scale.images, rows, list(places))
    else:
        view = View(store, scale, limit or scale.images, seeds)
        terminal.show_table(console, exhibit, view, rows, list(places))


def _run(
    exhibit: Table | Figure,
    places: dict[str, str],
    rows: Sequence[str],
    seeds: int,
    scale: Scale,
    limit: int | None,
    out: Path,
    device: str,
    progress: Console,
) -> RunContext:
    """Do what is missing."""
    for name, spec in places.items():
        datasets.check_same(name, spec, scale, out)
    store = Store(out)
    tasks = make_tasks(exhibit, list(places), rows, seeds, scale, limit)
    with ProgressBoard(progress, costs(tasks, store)) as board:
        context = RunContext(store, places, device, board)
        run_tasks(tasks, context)
    return context


def check(scale: str | None) -> Scale:
    """The scale that is meant.

    Raises:
        ValueError: there is none.
    """
    if scale is None:
        raise ValueError("how much is to be run? Add --scale smoke (to see it run), cpu (smaller nets) or full")
    return SCALES[scale]


def check_counts(exhibit: Table | Figure | Settings, seeds: int | None, limit: int | None) -> None:
    """See that the numbers mean something for this exhibit.

    Raises:
        ValueError: they don't.
    """
    for name, value in (("seeds", seeds), ("limit", limit)):
        if value is not None and isinstance(exhibit, Settings):
            raise ValueError(f"{exhibit.name} states settings, nothing of it is run: leave --{name} out")
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}: it must be at least 1")
    if seeds is not None and seeds > MOST_SEEDS:
        raise ValueError(f"seeds is {seeds}: tables show at most {MOST_SEEDS}")
    if seeds is not None and seeds > 1 and isinstance(exhibit, Figure):
        raise ValueError(f"{exhibit.name} is a figure, which is drawn of one seed: leave --seeds out")


def check_rows(exhibit: Table | Figure | Settings, rows: Sequence[str] | None) -> None:
    """See that the rows exist.

    Raises:
        ValueError: one doesn't.
    """
    if isinstance(exhibit, Table):
        names = [row.name for panel in exhibit.panels for row in panel.rows]
    elif isinstance(exhibit, Figure):
        names = [line.name for plot in exhibit.plots for line in plot.lines]
    else:
        names = [entry.of for entry in exhibit.entries]
    for row in rows or ():
        if row.lower() not in (each.lower() for each in names):
            raise ValueError(f"{exhibit.name} has no row {row!r}: it has {', '.join(dict.fromkeys(names))}")


def at_hand(exhibit: Table | Figure, rows: Sequence[str], data: str | None, scale: Scale, out: Path) -> dict[str, str]:
    """Where the images of each data set lie, of those that the exhibit needs and that are there.

    At smoke, which only shows that a table runs, drawn images stand in for what a folder of data sets lacks.

    Raises:
        ValueError: none of them is.
    """
    if isinstance(exhibit, Table):
        parts = [(panel.data, [row.name for row in panel.rows]) for panel in exhibit.panels]
    else:
        parts = [(plot.data, [line.name for line in plot.lines]) for plot in exhibit.plots]
    names = [name for name, named in parts if any(wanted(each, rows) for each in named)]
    found: dict[str, str] = {}
    missing: dict[str, list[str]] = {}  # names by the reason
    for name in dict.fromkeys(names):
        try:
            found[name] = datasets.at_scale(name, datasets.place(name, data), scale, out)
        except datasets.Lacking as error:
            if scale.training_images is None:
                missing.setdefault(error.reason, []).append(name)
            else:
                found[name] = datasets.at_scale(name, None, scale, out)
        except datasets.Missing as error:
            missing.setdefault(error.reason, []).append(name)
    if not found:
        said = "; ".join(f"{' or '.join(lacking)}: {reason}" for reason, lacking in missing.items())
        raise ValueError(f"{exhibit.name} needs {said}")
    return found

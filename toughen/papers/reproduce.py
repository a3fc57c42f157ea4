"""`toughen reproduce`: runs tables and figures of papers, and prints our results with the published ones."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from toughen.engine.device import pick_device
from toughen.papers import overview
from toughen.papers.arguments import ALL, check_counts, check_rows, exhibits_of, scale_of
from toughen.papers.cheapest_first import Deadline, Place, left_lines, missing, next_tasks
from toughen.papers.costs import costs
from toughen.papers.plan import Request, make_plan
from toughen.papers.progress_board import ProgressBoard
from toughen.papers.published import EXHIBITS, find
from toughen.papers.published.exhibits import Settings
from toughen.papers.scales import Scale
from toughen.papers.store import Store
from toughen.papers.tasks import Task, run_tasks
from toughen.papers.terminal import show_exhibit
from toughen.papers.training import RunContext
from toughen.runs.files import check_takes_tensors, clear_temporaries
from toughen.utils.console import say
from toughen.utils.units import parse_duration


def list_all(out: str, console: Console) -> None:
    """Print all tables and figures, with the results so far."""
    overview.show_list(console, list(EXHIBITS.values()), Store(Path(out)))


@dataclass
class Throughput:
    """The speed of the work: finished operations, and the seconds that they took."""

    done: float = 0.0
    spent: float = 0.0

    @property
    def now(self) -> float:
        """Operations per second; 0 if nothing was done."""
        return self.done / self.spent if self.spent else 0.0


def reproduce(
    names: Sequence[str],
    *,
    time_limit: str | None = None,
    scale: str | None = None,
    rows: Sequence[str] | None = None,
    net: str | None = None,
    seeds: int | None = None,
    data: str | None = None,
    limit: int | None = None,
    out: str = "runs/reproduce",
    device: str = "auto",
    console: Console | None = None,
    progress: Console | None = None,
) -> dict[str, str]:
    """Train and evaluate what is missing, and print tables and figures with our results and the published ones.

    With several names or a time limit, the work with the least cost per missing figure is done first, and a table of
    the remaining work is printed.

    Args:
        names: the tables and figures; "all" alone means all whose images are available.
        time_limit: stop after this time, such as 2h; None: no limit.
        scale: the scale; a table that only states settings needs none.
        rows: only these rows; None means all.
        net: only the rows of this net, as the paper names it; None means all.
        seeds: the number of seeds; None means the paper's number if it reports a spread, else one.
        data: a folder with a data set or with several by name, or a data set's name; None: the hub.
        limit: the number of test images (``datasets.some``); None means the scale's.
        out: the folder for runs and results.
        device: the device.
        console, progress: where to print the results, and the progress.

    Returns:
        The rows that could not be trained, with the reasons.

    Raises:
        ValueError: a name is unknown, or data are missing.
        Stopped: on a signal; the same call continues.
    """
    console, progress, named = console or Console(), progress or Console(stderr=True), list(names) != [ALL]
    alone = named and len(names) == 1 and time_limit is None
    if named and len(names) == 1 and isinstance(settings := find(names[0]), Settings):
        check_rows(settings, rows)
        check_counts(settings, seeds, limit, time_limit, net)
        show_exhibit(console, settings, None, rows or (), {}, {})
        return {}
    allowed = None if time_limit is None else parse_duration(time_limit)
    exhibits = exhibits_of(names, rows, net, seeds, limit)
    request = Request(exhibits, named, scale_of(scale), Path(out), rows or (), seeds, limit, data)
    _clear(request.folder, request.scale)
    pick_device(device)
    store, pace, plan = Store(request.folder), Throughput(), None
    failed: dict[str, str] = {}
    with Deadline(allowed) as deadline:
        plan = make_plan(request, store, None if alone else progress)
        context = RunContext(store, plan.places, device, ProgressBoard(Console(quiet=True), {}), failed)
        if alone:
            _run(plan.tasks[names[0]], context, progress, pace)
        else:
            _cheapest_first(plan.tasks, context, progress, pace)
    if plan is None:
        say(console, "stopped at the time limit before the first piece of work; the same command continues")
        return failed
    plan.show(console)
    _tell(console, plan.lacking, failed)
    for line in [] if alone else left_lines(plan.tasks, store, pace.now, stopped=deadline.passed):
        say(console, line)
    say(console, f"results: {request.folder / request.scale.name}")
    return failed


def _clear(folder: Path, scale: Scale) -> None:
    """Remove temporary files that killed processes left in the folder of results.

    Raises:
        ValueError: the folder is not writable.
    """
    check_takes_tensors(folder)
    for place in (folder, *(folder / scale.name).glob("**/")):
        clear_temporaries(place)


def _tell(console: Console, lacking: Mapping[str, str], failed: Mapping[str, str]) -> None:
    """Print why tables and figures were left out, and why rows could not be trained."""
    for name, reason in lacking.items():
        say(console, f"{name}: its images are not available: {reason}")
    for name, reason in failed.items():
        say(console, f"{name}: could not be trained: {reason}", "bold red")


def _run(tasks: Sequence[Task], context: RunContext, progress: Console, pace: Throughput) -> None:
    """Do the missing work of these tasks, with one progress display."""
    started = time.perf_counter()
    with ProgressBoard(progress, costs(tasks, context.store)) as context.board:
        try:
            run_tasks(tasks, context)
        finally:
            pace.done += context.board.fresh
            pace.spent += time.perf_counter() - started


def _cheapest_first(
    tasks: Mapping[str, Sequence[Task]], context: RunContext, progress: Console, pace: Throughput
) -> None:
    given_up: set[Place] = set()
    while some := next_tasks(tasks, context.store, given_up):
        _run(some, context, progress, pace)
        given_up |= {(task.run_spec.key, each.file) for task, each in missing(some, context.store)}

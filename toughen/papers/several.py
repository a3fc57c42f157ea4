"""`toughen reproduce` of several tables and figures, or within a time: what is cheapest per missing figure first."""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from toughen import models
from toughen.core.cost import flops
from toughen.engine.device import pick_device
from toughen.papers import datasets, terminal
from toughen.papers.cheapest_first import Place, cost_of_missing, missing, next_tasks
from toughen.papers.costs import costs
from toughen.papers.dataset_facts import SETS
from toughen.papers.progress_board import ProgressBoard
from toughen.papers.published import EXHIBITS, find
from toughen.papers.published.exhibits import Figure, Settings, Table
from toughen.papers.reproduce import at_hand, check, check_counts, check_rows, show_exhibit
from toughen.papers.scales import Scale
from toughen.papers.store import Store
from toughen.papers.tasks import Task, make_tasks, run_tasks
from toughen.papers.training import RunContext
from toughen.runs.files import check_writable
from toughen.utils.duration import seconds

ALL = "all"


class Deadline:
    """While its ``with`` block lasts, a time limit stops the work as Ctrl-C does, so that it can be gone on with.

    Args:
        limit: seconds; None for none.

    Attributes:
        passed: whether it has.
    """

    def __init__(self, limit: float | None) -> None:
        self.passed, self._over, self._lock = False, False, threading.Lock()
        self._timer = None if limit is None else threading.Timer(limit, self._end)

    def __enter__(self) -> Deadline:
        if self._timer:
            self._timer.daemon = True
            self._timer.start()
        return self

    def _end(self) -> None:
        with self._lock:
            if not self._over:
                self.passed = True
                _thread.interrupt_main()

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> bool:
        if self._timer:
            self._timer.cancel()
        with self._lock:
            self._over = True
        if kind is None and self.passed:
            with suppress(KeyboardInterrupt):  # it came after the last piece of work
                time.sleep(0.05)
        return self.passed and kind is not None and issubclass(kind, KeyboardInterrupt)


@dataclass
class Throughput:
    """How fast the work goes: operations that were done, and the seconds that they took."""

    done: float = 0.0
    spent: float = 0.0

    @property
    def now(self) -> float:
        """Operations for each second; 0 where nothing was done."""
        return self.done / self.spent if self.spent else 0.0


def reproduce_several(
    names: Sequence[str],
    *,
    time_limit: str | None = None,
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
    """Run tables and figures, what costs least for each missing figure first, and say what is left.

    Args:
        names: the tables and figures; "all" alone means all whose images are at hand.
        time_limit: stop then, such as 2h; None: run all.
        scale, rows, seeds, data, limit, out, device, console, progress: as for ``reproduce``.

    Returns:
        What could not be trained, and why, by row.

    Raises:
        ValueError: a name is unknown, or data are missing.
        Stopped: on a signal; the same call goes on.
    """
    console, progress = console or Console(), progress or Console(stderr=True)
    allowed = None if time_limit is None else seconds(time_limit)
    exhibits, chosen, folder = _asked(names, rows, seeds), check(scale), Path(out)
    check_writable(folder)
    pick_device(device)
    places, lacking = _places(exhibits, names, rows or (), data, chosen, folder)
    exhibits = [each for each in exhibits if each.name not in lacking]
    found = {
        each.name: make_tasks(each, list(places), rows or (), _seeds(each, seeds), chosen, limit) for each in exhibits
    }
    store = Store(folder)
    before = {name: len(missing(tasks, store)) for name, tasks in found.items()}
    failed: dict[str, str] = {}
    pace = Throughput()
    with Deadline(allowed) as deadline:
        context = RunContext(store, places, device, ProgressBoard(Console(quiet=True), {}), failed)
        _work(found, context, progress, pace)
    for each in exhibits:
        if names != [ALL] or len(missing(found[each.name], store)) < before[each.name]:
            show_exhibit(console, each, chosen, folder, places, rows or (), _seeds(each, seeds), limit)
    for name, reason in {**lacking, **failed}.items():
        what = "its images are not at hand" if name in lacking else "could not be trained"
        terminal.say(console, f"{name}: {what}: {reason}", "bold red" if name in failed else "")
    for line in left_lines(found, store, pace.now or _trial(found, store, device), stopped=deadline.passed):
        terminal.say(console, line)
    terminal.say(console, f"results: {folder / chosen.name}")
    return failed


def _asked(names: Sequence[str], rows: Sequence[str] | None, seeds: int | None) -> list[Table | Figure]:
    """The tables and figures that are meant.

    Raises:
        ValueError: one is unknown, or its settings are all that there is of it.
    """
    if list(names) == [ALL]:
        return [each for each in EXHIBITS.values() if not isinstance(each, Settings)]
    found: list[Table | Figure] = []
    for each in map(find, dict.fromkeys(names)):
        if isinstance(each, Settings):
            raise ValueError(f"{each.name} states settings, nothing of it is run: leave it out")
        check_rows(each, rows)
        check_counts(each, seeds, None)
        found.append(each)
    return found


def _seeds(exhibit: Table | Figure, seeds: int | None) -> int:
    if isinstance(exhibit, Figure):
        return 1
    return exhibit.seeds if seeds is None else seeds


def _places(
    exhibits: Sequence[Table | Figure], names: Sequence[str], rows: Sequence[str], data: str | None, scale: Scale,
    out: Path,
) -> tuple[dict[str, str], dict[str, str]]:  # fmt: skip
    """Where the images lie; and what has none at hand, and why, which is refused where it was named.

    Raises:
        ValueError: none has.
    """
    places: dict[str, str] = {}
    lacking: dict[str, str] = {}
    for each in exhibits:
        try:
            places |= at_hand(each, rows, data, scale, out)
        except ValueError as error:
            if list(names) != [ALL]:
                raise
            lacking[each.name] = str(error)
    if not places:
        raise ValueError(next(iter(lacking.values())))
    for name, spec in places.items():
        datasets.check_same(name, spec, scale, out)
    return places, lacking


def _work(found: Mapping[str, Sequence[Task]], context: RunContext, progress: Console, pace: Throughput) -> None:
    """Do what is missing, the cheapest first."""
    given_up: set[Place] = set()
    while tasks := next_tasks(found, context.store, given_up):
        parts, started = costs(tasks, context.store), time.perf_counter()
        with ProgressBoard(progress, parts) as context.board:
            run_tasks(tasks, context)
        pace.done += sum(parts.values())
        pace.spent += time.perf_counter() - started
        given_up |= {(task.run_spec.key, each.file) for task, each in missing(tasks, context.store)}


def left_lines(found: Mapping[str, Sequence[Task]], store: Store, pace: float, *, stopped: bool) -> list[str]:
    """What is left of each table and figure, with its hours as if it were run alone, within 80 columns.

    Args:
        found: the tasks of each.
        store: what was measured.
        pace: operations that are done in a second.
        stopped: whether a time limit ended the work.
    """
    rows = []
    for name, tasks in found.items():
        count, whole = len(missing(tasks, store)), sum(len(task.quantities) for task in tasks)
        if count:
            rows.append(f"{name:32}{f'{count} of {whole}':>14}{_hours(cost_of_missing(tasks, store), pace):>12}")
    if not rows:
        return ["nothing is left to do"]
    total = cost_of_missing([task for tasks in found.values() for task in tasks], store)
    head = "stopped at the time limit; the same command goes on" if stopped else "left to do"
    return [
        head,
        f"{'left':32}{'figures':>14}{'hours':>12}",
        *rows,
        f"{'all, what they share once':46}{_hours(total, pace):>12}",
    ]


def _hours(operations: float, pace: float) -> str:
    found = operations / pace / 3600
    return f"{found:,.0f}" if found >= 10 else f"{found:.1f}" if found >= 0.1 else "under 0.1"


def _trial(found: Mapping[str, Sequence[Task]], store: Store, device: str) -> float:
    """Operations for each second of a few gradients of the first net that is missing, where nothing was done yet."""
    left = missing([task for tasks in found.values() for task in tasks], store)
    if not left:
        return 1.0
    model, place = left[0][0].run_spec, pick_device(device)
    net = models.create(model.settings["model"], 10, SETS[model.data].shape, **model.settings["model_settings"])
    x = torch.zeros(16, *SETS[model.data].shape, device=place)
    one = float(flops(net, x[:1].cpu()))
    net.to(place)
    for _ in range(3):  # the first ones warm up
        started = time.perf_counter()
        net(x).sum().backward()
        float(net(x).sum())  # waits
        took = time.perf_counter() - started
    return 4 * 16 * one / took

"""Where time is short: the work first that costs least for each figure that it brings, and the end of the time."""

from __future__ import annotations

import _thread
import importlib
import itertools
import json
import signal
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from toughen.papers.costs import cost_of, training_cost
from toughen.papers.store import Quantity, Store
from toughen.papers.tasks import Task, missing_of

Place = tuple[str, str]  # of a figure: its run's name and its file's


@dataclass(frozen=True)
class Group:
    """What has to be trained together, and what can be measured then.

    Attributes:
        training: operations of what is not trained yet.
        figures: operations of each missing figure.
        whole: whether all of it is done at once, as where times are compared.
    """

    training: float | int
    figures: tuple[float | int, ...]
    whole: bool = False

    def best(self) -> tuple[float, int]:
        """The least cost for each figure, and, below 0, how many of the cheapest figures are measured for it."""
        sums = list(itertools.accumulate(sorted(self.figures), initial=self.training))
        counts = [len(self.figures)] if self.whole else range(1, len(sums))
        return min((sums[count] / count, -count) for count in counts)


def first(groups: Sequence[Group]) -> tuple[int, int]:
    """Which group comes first, and how many of its cheapest figures are measured."""
    place = min(range(len(groups)), key=lambda each: groups[each].best())
    return place, -groups[place].best()[1]


def next_tasks(tasks: Mapping[str, Sequence[Task]], store: Store, given_up: Collection[Place]) -> list[Task]:
    """The tasks, with some of their quantities, that cost least for each missing figure; none where none is missing.

    Args:
        tasks: those of each table or figure, by its name.
        store: what was measured.
        given_up: figures that could not be measured.
    """
    together = list(_together(tasks, store, given_up))
    if not together:
        return []
    groups = []
    for pairs in together:
        trained: set[str] = set()
        training = sum(training_cost(task.run_spec, store, trained) for task, _ in pairs)
        figures = tuple(_cost(task, each, store, set()) for task, each in pairs)
        groups.append(Group(training, figures, any(task.timed for task, _ in pairs)))
    place, count = first(groups)
    cheapest = sorted(range(len(together[place])), key=lambda each: groups[place].figures[each])[:count]
    quantities: dict[int, tuple[Task, list[Quantity]]] = {}
    for task, each in (together[place][number] for number in sorted(cheapest)):
        quantities.setdefault(id(task), (task, []))[1].append(each)
    return [replace(task, quantities=tuple(some)) for task, some in quantities.values()]


def _together(
    tasks: Mapping[str, Sequence[Task]], store: Store, given_up: Collection[Place]
) -> Collection[list[tuple[Task, Quantity]]]:
    """What is missing, by what is trained together: rows whose times are compared, else one model."""
    timed: dict[str, str] = {}  # the group of a model that takes turns with others
    for name, some in tasks.items():
        for task in some:
            if task.timed:
                timed.setdefault(_same(task), f"{name} {task.timed}")
    together: dict[str, list[tuple[Task, Quantity]]] = {}
    for task, each in missing([task for some in tasks.values() for task in some], store):
        if (task.run_spec.key, each.file) not in given_up:
            together.setdefault(timed.get(_same(task), _same(task)), []).append((task, each))
    return together.values()


def _same(task: Task) -> str:
    """What tells models apart, whatever weights are kept of them beside."""
    return json.dumps(task.run_spec.plain, sort_keys=True)


def _cost(task: Task, each: Quantity, store: Store, trained: set[str]) -> float:
    """Operations of a figure, with the training of the net whose images are shown."""
    return cost_of(task, each) + (training_cost(each.source, store, trained) if each.source else 0.0)


def missing(tasks: Sequence[Task], store: Store) -> list[tuple[Task, Quantity]]:
    """The figures that are missing, each once."""
    pairs: dict[Place, tuple[Task, Quantity]] = {}
    for task in tasks:
        for each in missing_of(task, store):
            pairs.setdefault((task.run_spec.key, each.file), (task, each))
    return list(pairs.values())


def cost_of_missing(tasks: Sequence[Task], store: Store) -> float:
    """Operations of all that is missing; what several need is counted once."""
    trained: set[str] = set()
    return sum(
        training_cost(task.run_spec, store, trained) + _cost(task, each, store, trained)
        for task, each in missing(tasks, store)
    )


def left_lines(tasks: Mapping[str, Sequence[Task]], store: Store, pace: float, *, stopped: bool) -> list[str]:
    """What is left of each table and figure, with its hours as if it were run alone, within 80 columns.

    Args:
        tasks: those of each.
        store: what was measured.
        pace: operations that are done in a second; 0 where nothing was done.
        stopped: whether a time limit ended the work.
    """
    rows = []
    for name, some in tasks.items():
        count, whole = len(missing(some, store)), sum(len(task.quantities) for task in some)
        if count:
            rows.append(f"{name:32}{f'{count} of {whole}':>14}{_hours(cost_of_missing(some, store), pace):>12}")
    if not rows:
        return ["nothing is left to do"]
    total = cost_of_missing([task for some in tasks.values() for task in some], store)
    return [
        "stopped at the time limit; the same command goes on" if stopped else "left to do",
        f"{'left':32}{'figures':>14}{'hours':>12}",
        *rows,
        f"{'all, what they share once':46}{_hours(total, pace):>12}",
    ]


def _hours(operations: float, pace: float) -> str:
    if not pace:
        return "-"
    hours = operations / pace / 3600
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}" if hours >= 0.1 else "under 0.1"


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
        self._ignored = False

    def __enter__(self) -> Deadline:
        if self._timer:
            # torch would import it with the first step, for seconds: interrupted there it can't be imported again
            importlib.import_module("torch._dynamo")
            self._ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # as in a script's background job
            if self._ignored:  # else interrupt_main would do nothing
                signal.signal(signal.SIGINT, signal.default_int_handler)
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
        if self._ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        return self.passed and kind is not None and issubclass(kind, KeyboardInterrupt)

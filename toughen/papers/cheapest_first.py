"""Orders the work so that results with the least cost come first, and stops it at a time limit.

A "figure" here is one number of a table or one line of a plot.
"""

from __future__ import annotations

import _thread
import importlib
import itertools
import json
import signal
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from toughen.papers.costs import cost_of, training_cost
from toughen.papers.store import Quantity, Store
from toughen.papers.tasks import Task, missing_of

Place = tuple[str, str]  # identifies a figure: the name of its run and of its file


@dataclass(frozen=True)
class Group:
    """Models that must be trained together, and the figures that can be measured then.

    Attributes:
        training: operations of the missing training.
        figures: operations of measuring each missing figure.
        whole: whether all figures must be measured together, because their times are compared.
    """

    training: float | int
    figures: tuple[float | int, ...]
    whole: bool = False

    def best(self) -> tuple[float, int]:
        """The least cost per figure, and minus the number of figures, cheapest first, that gives this cost."""
        sums = list(itertools.accumulate(sorted(self.figures), initial=self.training))
        counts = [len(self.figures)] if self.whole else range(1, len(sums))
        return min((sums[count] / count, -count) for count in counts)


def first(groups: Sequence[Group]) -> tuple[int, int]:
    """The index of the group to do first, and the number of its figures to measure, cheapest first."""
    place = min(range(len(groups)), key=lambda each: groups[each].best())
    return place, -groups[place].best()[1]


def next_tasks(tasks: Mapping[str, Sequence[Task]], store: Store, given_up: Collection[Place]) -> list[Task]:
    """The tasks, with some of their quantities, that cost least per missing figure; [] if nothing is missing.

    Args:
        tasks: the tasks of each table or figure, by its name.
        store: the results so far.
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
    """The missing figures, grouped by what is trained together: rows whose times are compared, or a single model."""
    timed: dict[str, str] = {}  # from a model to its group of models that are trained in turns
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
    """A text that identifies a model, without the setting that keeps weights of single steps."""
    return json.dumps(task.run_spec.plain, sort_keys=True)


def _cost(task: Task, each: Quantity, store: Store, trained: set[str]) -> float:
    """Operations of measuring a figure, with the training of its black-box source."""
    return cost_of(task, each) + (training_cost(each.source, store, trained) if each.source else 0.0)


def missing(tasks: Sequence[Task], store: Store) -> list[tuple[Task, Quantity]]:
    """The missing figures, without duplicates."""
    pairs: dict[Place, tuple[Task, Quantity]] = {}
    for task in tasks:
        for each in missing_of(task, store):
            pairs.setdefault((task.run_spec.key, each.file), (task, each))
    return list(pairs.values())


def cost_of_missing(tasks: Sequence[Task], store: Store) -> float:
    """Operations of everything that is missing; shared training is counted once."""
    trained: set[str] = set()
    return sum(
        training_cost(task.run_spec, store, trained) + _cost(task, each, store, trained)
        for task, each in missing(tasks, store)
    )


def left_lines(tasks: Mapping[str, Sequence[Task]], store: Store, pace: float, *, stopped: bool) -> list[str]:
    """The remaining work as a table of 80 columns: for each table and figure, the hours that it takes if run alone.

    Args:
        tasks: the tasks of each table or figure, by its name.
        store: the results so far.
        pace: operations per second; 0 if nothing was done.
        stopped: whether a time limit ended the work.
    """
    rows = []
    for name, some in tasks.items():
        count, whole = len(missing(some, store)), sum(len(task.quantities) for task in some)
        if count:
            rows.append(f"{name:32}{f'{count} of {whole}':>14}{_hours(cost_of_missing(some, store), pace):>12}")
    if not rows:
        return ["everything is done"]
    total = cost_of_missing([task for some in tasks.values() for task in some], store)
    return [
        "stopped at the time limit; the same command continues" if stopped else "remaining work",
        f"{'table or figure':32}{'missing':>14}{'hours':>12}",
        *rows,
        f"{'all, shared training counted once':46}{_hours(total, pace):>12}",
    ]


def _hours(operations: float, pace: float) -> str:
    if not pace:
        return "-"
    hours = operations / pace / 3600
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}" if hours >= 0.1 else "under 0.1"


class Deadline:
    """A context manager that interrupts its block after a time limit, as Ctrl-C does, so that it can be resumed.

    Args:
        limit: seconds; None for no limit.

    Attributes:
        passed: whether the time limit has passed.
    """

    def __init__(self, limit: float | None) -> None:
        self.passed, self._over, self._lock = False, False, threading.Lock()
        self._timer = None if limit is None else threading.Timer(limit, self._end)
        self._ignored = False

    def __enter__(self) -> Deadline:
        if self._timer:
            # torch imports it at the first step, which takes seconds; if that is interrupted, it cannot be repeated
            importlib.import_module("torch._dynamo")
            self._ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # as in a script's background job
            if self._ignored:  # then neither way of interrupting has an effect
                signal.signal(signal.SIGINT, signal.default_int_handler)
            self._timer.daemon = True
            self._timer.start()
        return self

    def _end(self) -> None:
        with self._lock:
            if not self._over:
                self.passed = True
                if hasattr(signal, "pthread_kill"):  # unlike interrupt_main it also ends a wait, such as for the hub
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                else:
                    _thread.interrupt_main()

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> bool:
        if self._timer:
            self._timer.cancel()
        try:
            with self._lock:
                self._over = True
            if kind is None and self.passed:
                time.sleep(0.05)  # the interrupt may still be pending after the last piece of work
        except KeyboardInterrupt:
            if not self.passed:  # the user's own
                raise
        if self._ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        return self.passed and kind is not None and issubclass(kind, KeyboardInterrupt)

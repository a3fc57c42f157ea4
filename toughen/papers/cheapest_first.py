"""What to do first where time is short: the work that costs least for each figure that it brings."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from toughen.papers.costs import cost_of, training_cost
from toughen.papers.kept_weights import plain
from toughen.papers.store import Quantity, Store
from toughen.papers.tasks import Task

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
        """The least cost for each figure, and how many of the cheapest figures are measured for it."""
        sums = list(itertools.accumulate(sorted(self.figures), initial=self.training))
        counts = [len(self.figures)] if self.whole else range(1, len(sums))
        return min((sums[count] / count, -count) for count in counts)


def first(groups: Sequence[Group]) -> tuple[int, int]:
    """Which group comes first, and how many of its cheapest figures are measured."""
    place = min(range(len(groups)), key=lambda each: groups[each].best())
    return place, -groups[place].best()[1]


def next_tasks(found: Mapping[str, Sequence[Task]], store: Store, given_up: Collection[Place]) -> list[Task]:
    """The tasks, with some of their quantities, that cost least for each missing figure; none where none is missing.

    Args:
        found: the tasks of each table or figure, by its name.
        store: what was measured.
        given_up: figures that could not be measured.
    """
    gathered = _gathered(found, store, given_up)
    if not gathered:
        return []
    names, groups, costs = list(gathered), [], []
    for name in names:
        seen: set[str] = set()
        training = sum(training_cost(task.run_spec, store, seen) for task, _ in gathered[name])
        each = [cost_of(task, one) + _of_source(one, store) for task, one in gathered[name]]
        groups.append(Group(training, tuple(each), any(task.timed for task, _ in gathered[name])))
        costs.append(each)
    place, count = first(groups)
    pairs = gathered[names[place]]
    cheapest = sorted(range(len(pairs)), key=lambda each: costs[place][each])[:count]
    return _tasks([pairs[each] for each in sorted(cheapest)])


def missing(found: Sequence[Task], store: Store) -> list[tuple[Task, Quantity]]:
    """The figures that are missing, each once."""
    pairs: dict[Place, tuple[Task, Quantity]] = {}
    for task in found:
        for each in task.quantities:
            if store.read(task.run_spec, each) is None:
                pairs.setdefault((task.run_spec.key, each.file), (task, each))
    return list(pairs.values())


def cost_of_missing(found: Sequence[Task], store: Store) -> float:
    """Operations of all that is missing; what several need is counted once."""
    seen: set[str] = set()
    total = 0.0
    for task, each in missing(found, store):
        total += training_cost(task.run_spec, store, seen) + cost_of(task, each)
        if each.source:
            total += training_cost(each.source, store, seen)
    return total


def _gathered(
    found: Mapping[str, Sequence[Task]], store: Store, given_up: Collection[Place]
) -> dict[str, list[tuple[Task, Quantity]]]:
    """What is missing, by what is trained together: rows whose times are compared, else one model."""
    timed: dict[str, str] = {}  # the group of a model that takes turns with others
    for name, tasks in found.items():
        for task in tasks:
            if task.timed:
                timed.setdefault(_same(task), f"{name} {task.timed}")
    gathered: dict[str, list[tuple[Task, Quantity]]] = {}
    for task, each in missing([task for tasks in found.values() for task in tasks], store):
        if (task.run_spec.key, each.file) not in given_up:
            gathered.setdefault(timed.get(_same(task), _same(task)), []).append((task, each))
    return gathered


def _same(task: Task) -> str:
    """What tells models apart, whatever weights are kept of them beside."""
    return json.dumps(plain(task.run_spec), sort_keys=True)


def _of_source(each: Quantity, store: Store) -> float:
    return training_cost(each.source, store, set()) if each.source else 0.0


def _tasks(pairs: Sequence[tuple[Task, Quantity]]) -> list[Task]:
    """Tasks with these quantities alone."""
    found: dict[int, tuple[Task, list[Quantity]]] = {}
    for task, each in pairs:
        found.setdefault(id(task), (task, []))[1].append(each)
    return [replace(task, quantities=tuple(some)) for task, some in found.values()]

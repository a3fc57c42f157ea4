"""What a command has to do for its tables and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from toughen.papers.arguments import places_of, seeds_of
from toughen.papers.cheapest_first import missing
from toughen.papers.published.exhibits import Figure, Table
from toughen.papers.scales import Scale
from toughen.papers.store import Store
from toughen.papers.tasks import Task, make_tasks
from toughen.papers.terminal import show_exhibit
from toughen.papers.values import View
from toughen.utils.console import say


@dataclass(frozen=True)
class Request:
    """The checked arguments of a command.

    Attributes:
        exhibits: the tables and figures.
        named: whether the user named them; False for "all".
        scale, folder: the scale, and the folder for runs and results.
        rows: only these rows; () means all.
        seeds, limit, data: as given; None means the default.
    """

    exhibits: Sequence[Table | Figure]
    named: bool
    scale: Scale
    folder: Path
    rows: Sequence[str]
    seeds: int | None
    limit: int | None
    data: str | None


@dataclass(frozen=True)
class Plan:
    """The tasks of each table and figure whose images are available.

    Attributes:
        request: what was asked for.
        tasks: by the name of the table or figure.
        places: the location of each data set.
        lacking: the tables and figures without images, with the reasons.
        absent: the missing data sets, with the reasons.
        before: the number of missing figures at the start, by the name of the table or figure.
    """

    request: Request
    tasks: Mapping[str, Sequence[Task]]
    places: Mapping[str, str]
    lacking: Mapping[str, str]
    absent: Mapping[str, str]
    before: Mapping[str, int]

    def show(self, console: Console) -> None:
        """Print the tables and figures that the user named, or those with new results."""
        request, store = self.request, Store(self.request.folder)
        for each in request.exhibits:
            tasks = self.tasks.get(each.name)
            if tasks is not None and (request.named or len(missing(tasks, store)) < self.before[each.name]):
                images, seeds = request.limit or request.scale.images, seeds_of(each, request.seeds)
                view = View(store, request.scale, images, seeds)
                show_exhibit(console, each, view, request.rows, self.places, self.absent)


def make_plan(request: Request, store: Store, progress: Console | None) -> Plan:
    """The plan of a command.

    Args:
        request: the command's arguments.
        store: the results so far.
        progress: where to say what takes long; None says nothing.

    Raises:
        ValueError: images are missing.
    """
    scale, rows = request.scale, request.rows
    places, lacking, absent = places_of(
        request.exhibits, request.named, rows, request.data, scale, request.folder, progress=progress
    )
    exhibits = [each for each in request.exhibits if each.name not in lacking]
    if progress is not None:
        named = exhibits[0].name if len(exhibits) == 1 else f"{len(exhibits)} tables and figures"
        say(progress, f"reading the settings of the rows of {named}")
    tasks = {
        each.name: make_tasks(each, list(places), rows, seeds_of(each, request.seeds), scale, request.limit)
        for each in exhibits
    }
    before = {name: len(missing(some, store)) for name, some in tasks.items()}
    return Plan(request, tasks, places, lacking, absent, before)

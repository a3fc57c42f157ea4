"""Does the work behind a table or figure: has trained what is missing, measures what is missing, and keeps both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from toughen.papers.exhibits import STATED, Figure, Line, Panel, Plot, Row, Table
from toughen.reproduction.curves import curve, settings_of
from toughen.reproduction.entrants import Entrant, entrant
from toughen.reproduction.images import ALL
from toughen.reproduction.measure import OF_TRAINING, Subject, quantity
from toughen.reproduction.scales import SCALES, Scale
from toughen.reproduction.store import Quantity
from toughen.reproduction.training import Bench, train_in_turns, trained
from toughen.runs.locks import held
from toughen.training.saving import Diverged

COMPUTED = (STATED, "hours saved")  # not measured of a run


@dataclass(frozen=True)
class Task:
    """A trained model and all that is measured of it.

    Attributes:
        title: what a display calls it.
        entrant: the model.
        quantities: what is measured.
        plot: where it is drawn; None for a row of a table.
        timed: what tells those apart whose times are compared, so that they are trained in turns; "" for others.
    """

    title: str
    entrant: Entrant
    quantities: tuple[Quantity, ...]
    plot: Plot | None = None
    timed: str = ""


def table_entrant(panel: Panel, row: Row, seed: int, scale: Scale) -> Entrant:
    """The model of a row."""
    return entrant(row.run, panel.data, seed, scale, row.sources)


def table_quantities(panel: Panel, seed: int, scale: Scale, images: int | None) -> dict[str, Quantity]:
    """What each column of a panel holds, by its name; without what is stated or follows from others."""
    found = {}
    for column in panel.columns:
        if column.of in OF_TRAINING:
            found[column.name] = Quantity(column.of)
        elif column.of not in COMPUTED:
            source = entrant(column.source, panel.data, seed, scale) if column.source else None
            found[column.name] = Quantity(column.of, panel.eps, images, source)
    return found


def figure_entrant(plot: Plot, line: Line, scale: Scale) -> Entrant:
    """The model of a line, with the weights kept that the plot needs."""
    plain = entrant(line.run, plot.data, 0, scale)
    paper = entrant(line.run, plot.data, 0, SCALES["full"]).settings["epochs"]
    epochs = plain.settings["epochs"]
    more = settings_of(plot, epochs, epochs / paper, small=scale.training_images is not None)
    return entrant(line.run, plot.data, 0, scale, more=more)


def figure_quantity(plot: Plot, images: int | None) -> Quantity:
    """What is drawn of each line."""
    images = images if plot.tested else None
    return Quantity(f"{plot.curve} {plot.attack}".strip(), plot.eps, images, settings=(list(plot.at), plot.every))


def tasks(
    exhibit: Table | Figure, data: Sequence[str], rows: Sequence[str], seeds: int, scale: Scale, images: int | None
) -> list[Task]:
    """All models of a table or figure whose data are at hand.

    Args:
        exhibit: the table or figure.
        data: the data sets at hand.
        rows: names of the rows that are wanted; none of them: all.
        seeds: how many seeds, from the recipes' own on; figures take one.
        scale: how much is run.
        images: test images, a sample; None means the scale's.
    """
    images = images or scale.images
    if isinstance(exhibit, Figure):
        return [
            Task(
                f"{line.name} on {plot.data}", figure_entrant(plot, line, scale), (figure_quantity(plot, images),), plot
            )
            for plot in exhibit.plots
            if plot.data in data
            for line in plot.lines
            if wanted(line.name, rows)
        ]
    return [
        Task(
            f"{row.name} on {panel.data}, {panel.net}" + f", seed {seed}" * (seeds > 1),
            table_entrant(panel, row, seed, scale),
            tuple(table_quantities(panel, seed, scale, images).values()),
            timed=f"{panel.data} {panel.net} {seed}" if any(column.timed for column in panel.columns) else "",
        )
        for panel in exhibit.panels
        if panel.data in data
        for row in panel.rows
        if wanted(row.name, rows) and not row.cannot
        for seed in range(seeds)
    ]


def wanted(name: str, rows: Sequence[str]) -> bool:
    """Whether a row is among those that were asked for."""
    return not rows or name.lower() in (row.lower() for row in rows)


def run(found: Sequence[Task], bench: Bench) -> None:
    """Train and measure what is missing, row after row; those whose times are compared are trained in turns.

    Raises:
        Stopped: on a signal; what was done is kept.
    """
    for timed in dict.fromkeys(task.timed for task in found if task.timed):
        group = {task.title: task.entrant for task in found if task.timed == timed and _missing(task, bench)}
        bench.failed |= {title: str(error) for title, error in train_in_turns(group, bench).items()}
    for task in found:
        if task.title in bench.failed:
            continue
        try:
            _row(task, bench)
        except Diverged as error:
            bench.failed[task.title] = str(error)


def _missing(task: Task, bench: Bench) -> list[Quantity]:
    return [each for each in task.quantities if bench.store.read(task.entrant, each) is None]


def _row(task: Task, bench: Bench) -> None:
    missing = _missing(task, bench)
    if not missing:
        bench.store.note(task.entrant)
        return
    folder = trained(task.entrant, task.title, bench)
    sources: dict[str, Path] = {}
    for source in {each.source.key: each.source for each in missing if each.source}.values():
        try:
            sources[source.key] = trained(source, source.title_for(task.title), bench)
        except Diverged as error:
            bench.failed[f"{source.words}, whose images {task.title} is shown"] = str(error)
    with held(folder.parent, partial(bench.board.wait, folder.parent)):
        _measure(task, folder, sources, bench)


def _measure(task: Task, folder: Path, sources: Mapping[str, Path], bench: Bench) -> None:
    """What is missing of a trained model, as far as its sources are trained; another process may have done it since."""
    subjects: dict[tuple[str, int | None], Subject] = {}
    for each in _missing(task, bench):
        if each.source and each.source.key not in sources:
            continue
        source = sources[each.source.key] if each.source else None
        subject = subjects.setdefault(
            (each.eps, each.images),
            Subject(
                folder, bench.places[task.entrant.data], each.eps, each.images, task.entrant.scale, bench.device,
                task.entrant.more.get("keep_at", ()),
            ),
        )  # fmt: skip
        bench.board.begin(f"{task.title}: {each.of}")
        if task.plot is not None:
            found = curve(subject, task.plot, bench.board)
        else:
            found = quantity(subject, each.of, source, bench.board)
        bench.store.write(
            task.entrant,
            each,
            found.value,
            images=found.images,
            drawn=subject.drawn if found.images else ALL,
            seconds=found.seconds,
            provenance=found.provenance,
        )
        bench.board.end()

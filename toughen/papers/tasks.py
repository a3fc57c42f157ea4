"""Does the work behind a table or figure: has trained what is missing, measures what is missing, and keeps both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from toughen.papers.curves import curve
from toughen.papers.datasets import ALL
from toughen.papers.kept_weights import figure_run_spec
from toughen.papers.measure import OF_TRAINING, Subject, quantity
from toughen.papers.published.exhibits import STATED, Figure, Panel, Plot, Row, Table
from toughen.papers.run_spec import RunSpec, run_spec
from toughen.papers.scales import Scale
from toughen.papers.store import Quantity
from toughen.papers.training import RunContext, train_in_turns, trained
from toughen.runs.locks import held
from toughen.training.saving import Diverged

COMPUTED = (STATED, "hours saved")  # not measured of a run


@dataclass(frozen=True)
class Task:
    """A trained model and all that is measured of it.

    Attributes:
        title: what a display calls it.
        run_spec: the model.
        quantities: what is measured.
        plot: where it is drawn; None for a row of a table.
        timed: what tells those apart whose times are compared, so that they are trained in turns; "" for others.
    """

    title: str
    run_spec: RunSpec
    quantities: tuple[Quantity, ...]
    plot: Plot | None = None
    timed: str = ""


def table_run_spec(panel: Panel, row: Row, seed: int, scale: Scale) -> RunSpec:
    """The model of a row."""
    return run_spec(row.run, panel.data, seed, scale, row.sources)


def table_quantities(panel: Panel, seed: int, scale: Scale, images: int | None) -> dict[str, Quantity]:
    """What each column of a panel holds, by its name; without what is stated or follows from others."""
    found = {}
    for column in panel.columns:
        if column.of in OF_TRAINING:
            found[column.name] = Quantity(column.of)
        elif column.of not in COMPUTED:
            source = run_spec(column.source, panel.data, seed, scale) if column.source else None
            found[column.name] = Quantity(column.of, panel.eps, images, source)
    return found


def figure_quantity(plot: Plot, images: int | None) -> Quantity:
    """What is drawn of each line."""
    images = images if plot.tested else None
    return Quantity(f"{plot.curve} {plot.attack}".strip(), plot.eps, images, settings=(list(plot.at), plot.every))


def make_tasks(
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
                f"{line.name} on {plot.data}",
                figure_run_spec(plot, line, scale),
                (figure_quantity(plot, images),),
                plot,
            )
            for plot in exhibit.plots
            if plot.data in data
            for line in plot.lines
            if wanted(line.name, rows)
        ]
    return [
        Task(
            f"{row.name} on {panel.data}, {panel.net}" + f", seed {seed}" * (seeds > 1),
            table_run_spec(panel, row, seed, scale),
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


def run_tasks(found: Sequence[Task], context: RunContext) -> None:
    """Train and measure what is missing, row after row; those whose times are compared are trained in turns.

    Raises:
        Stopped: on a signal; what was done is kept.
    """
    for timed in dict.fromkeys(task.timed for task in found if task.timed):
        group = {task.title: task.run_spec for task in found if task.timed == timed and _missing(task, context)}
        context.failed |= {title: str(error) for title, error in train_in_turns(group, context).items()}
    for task in found:
        if task.title in context.failed:
            continue
        try:
            _row(task, context)
        except Diverged as error:
            context.failed[task.title] = str(error)


def _missing(task: Task, context: RunContext) -> list[Quantity]:
    return [each for each in task.quantities if context.store.read(task.run_spec, each) is None]


def _row(task: Task, context: RunContext) -> None:
    missing = _missing(task, context)
    if not missing:
        context.store.note(task.run_spec)
        return
    folder = trained(task.run_spec, task.title, context)
    sources: dict[str, Path] = {}
    for source in {each.source.key: each.source for each in missing if each.source}.values():
        try:
            sources[source.key] = trained(source, source.title_for(task.title), context)
        except Diverged as error:
            context.failed[f"{source.words}, whose images {task.title} is shown"] = str(error)
    with held(folder.parent, partial(context.board.wait, folder.parent)):
        _measure(task, folder, sources, context)


def _measure(task: Task, folder: Path, sources: Mapping[str, Path], context: RunContext) -> None:
    """What is missing of a trained model, as far as its sources are trained; another process may have done it since."""
    subjects: dict[tuple[str, int | None], Subject] = {}
    for each in _missing(task, context):
        if each.source and each.source.key not in sources:
            continue
        source = sources[each.source.key] if each.source else None
        subject = subjects.setdefault(
            (each.eps, each.images),
            Subject(
                folder, context.places[task.run_spec.data], each.eps, each.images, task.run_spec.scale, context.device,
                task.run_spec.more.get("keep_at", ()),
            ),
        )  # fmt: skip
        context.board.begin(f"{task.title}: {each.of}")
        if task.plot is not None:
            found = curve(subject, task.plot, context.board)
        else:
            found = quantity(subject, each.of, source, context.board)
        context.store.write(
            task.run_spec,
            each,
            found.value,
            images=found.images,
            drawn=subject.drawn if found.images else ALL,
            seconds=found.seconds,
            provenance=found.provenance,
        )
        context.board.end()

"""Does the work for a table or figure: trains missing models, measures missing figures, and stores both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from toughen.papers.curves import curve
from toughen.papers.datasets import ALL
from toughen.papers.measure import OF_TRAINING, MeasuredRun, quantity
from toughen.papers.published.exhibits import STATED, Figure, Panel, Plot, Row, Table
from toughen.papers.run_spec import KEPT, RunSpec, figure_run_spec, run_spec
from toughen.papers.scales import Scale
from toughen.papers.store import Quantity, Store
from toughen.papers.training import RunContext, train_in_turns, trained
from toughen.runs.locks import held
from toughen.training.divergence import Diverged

COMPUTED = (STATED, "hours saved")  # columns that are not measured


@dataclass(frozen=True)
class Task:
    """A model and the quantities that are measured for it.

    Attributes:
        title: its title in the progress display.
        run_spec: the model.
        quantities: the quantities.
        plot: the plot that draws it; None for a row of a table.
        timed: the name of the group of models whose times are compared, and which are trained in turns; "" for none.
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
    """The quantity of each measured column of a panel, by the column's name."""
    quantities = {}
    for column in panel.columns:
        if column.of in OF_TRAINING:
            quantities[column.name] = Quantity(column.of)
        elif column.of not in COMPUTED:
            source = run_spec(column.source, panel.data, seed, scale) if column.source else None
            quantities[column.name] = Quantity(column.of, panel.eps, images, source)
    return quantities


def figure_quantity(plot: Plot, images: int | None) -> Quantity:
    """The quantity of each line of a plot."""
    images = images if plot.tested else None
    return Quantity(f"{plot.curve} {plot.attack}".strip(), plot.eps, images, settings=(list(plot.at), plot.every))


def make_tasks(
    exhibit: Table | Figure, data: Sequence[str], rows: Sequence[str], seeds: int, scale: Scale, images: int | None
) -> list[Task]:
    """A task for each model of a table or figure whose data are available.

    Args:
        exhibit: the table or figure.
        data: the available data sets.
        rows: the names of the rows; empty for all.
        seeds: the number of seeds, starting from the recipe's own; figures use one.
        scale: the scale.
        images: the number of test images; None means the scale's.
    """
    images = images or scale.images
    if isinstance(exhibit, Figure):
        return [
            Task(
                f"{each.name} on {plot.data}, {plot.net}",
                figure_run_spec(plot, each, scale),
                (figure_quantity(plot, images),),
                plot,
            )
            for plot in exhibit.plots
            if plot.data in data
            for each in plot.lines
            if wanted(each.name, rows)
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
    """Whether a row is one of the given rows; no given rows means all."""
    return not rows or name.lower() in (row.lower() for row in rows)


def missing_of(task: Task, store: Store) -> list[Quantity]:
    """The quantities of a task that are not measured yet."""
    return [each for each in task.quantities if store.read(task.run_spec, each) is None]


def run_tasks(tasks: Sequence[Task], context: RunContext) -> None:
    """Train and measure what is missing, row by row; rows whose times are compared are trained in turns.

    Raises:
        Stopped: on a signal; finished work is kept.
    """
    for timed in dict.fromkeys(task.timed for task in tasks if task.timed):
        some = [task for task in tasks if task.timed == timed and missing_of(task, context.store)]
        failed = train_in_turns({task.title: task.run_spec for task in some}, context)
        context.diverged |= {task.run_spec.key: str(failed[task.title]) for task in some if task.title in failed}
    for task in tasks:  # models of several tables may have the same title
        try:
            if task.run_spec.key not in context.diverged:
                _row(task, context)
        except Diverged as error:
            context.diverged[task.run_spec.key] = str(error)
        if task.run_spec.key in context.diverged:
            context.failed[task.title] = context.diverged[task.run_spec.key]


def _row(task: Task, context: RunContext) -> None:
    missing = missing_of(task, context.store)
    if not missing:
        context.store.note(task.run_spec)
        return
    folder = trained(task.run_spec, task.title, context)
    sources: dict[str, Path] = {}
    for source in {each.source.key: each.source for each in missing if each.source}.values():
        try:
            sources[source.key] = trained(source, source.title_for(task.title), context)
        except Diverged as error:
            context.failed[f"{source.words}, the black-box source for {task.title}"] = str(error)
    with held(folder.parent, partial(context.board.wait, folder.parent)):
        for each in missing_of(task, context.store):  # another process may have measured some since
            if not each.source or each.source.key in sources:
                _measure(task, each, folder, sources, context)


def _measure(task: Task, each: Quantity, folder: Path, sources: Mapping[str, Path], context: RunContext) -> None:
    model, place = task.run_spec, context.places[task.run_spec.data]
    subject = MeasuredRun(folder, place, each.eps, each.images, model.scale, context.device, model.more.get(KEPT, ()))
    context.board.begin(f"{task.title}: {each.of}")
    if task.plot is not None:
        measured = curve(subject, task.plot, context.board)
    else:
        measured = quantity(subject, each.of, sources[each.source.key] if each.source else None, context.board)
    context.store.write(
        model,
        each,
        measured.value,
        images=measured.images,
        drawn=subject.drawn if measured.images else ALL,
        seconds=measured.seconds,
        provenance=measured.provenance,
    )
    context.board.end()

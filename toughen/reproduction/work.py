"""Does the work behind a table or figure: trains what is missing, measures what is missing, and keeps both."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from toughen.commands.train import parse_train
from toughen.files import write_json, write_text
from toughen.papers.exhibits import STATED, Figure, Line, Panel, Plot, Row, Table
from toughen.reproduction.board import Board, Training
from toughen.reproduction.curves import curve, settings_of
from toughen.reproduction.entrants import Entrant, entrant
from toughen.reproduction.images import ALL
from toughen.reproduction.measure import OF_TRAINING, Subject, quantity, training_record
from toughen.reproduction.scales import SCALES, Scale, nodes
from toughen.reproduction.store import RUN, TRAINED, Quantity, Store
from toughen.runs import RECORD, WEIGHTS
from toughen.training.run import CONFIG, train
from toughen.training.trainer import Diverged

RECIPE = "recipe.yaml"
COMPUTED = (STATED, "hours saved")  # not measured of a run


@dataclass(frozen=True)
class Task:
    """A trained model and all that is measured of it.

    Attributes:
        title: what a display calls it.
        entrant: the model.
        quantities: what is measured.
        plot: where it is drawn; None for a row of a table.
    """

    title: str
    entrant: Entrant
    quantities: tuple[Quantity, ...]
    plot: Plot | None = None


@dataclass
class Bench:
    """Where the work is done.

    Attributes:
        store: what was measured, and the runs.
        places: where the images of each data set lie.
        device: what trains and attacks.
        board: is told how far it is.
        failed: what could not be trained, and why.
    """

    store: Store
    places: Mapping[str, str]
    device: str
    board: Board
    failed: dict[str, str] = field(default_factory=dict)


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
    """Train and measure what is missing, row after row.

    Raises:
        Stopped: on a signal; what was done is kept.
    """
    for task in found:
        try:
            _row(task, bench)
        except Diverged as error:
            bench.failed[task.title] = str(error)
            bench.board.end(f"failed ({error})")


def _row(task: Task, bench: Bench) -> None:
    missing = [each for each in task.quantities if bench.store.read(task.entrant, each) is None]
    if not missing:
        bench.store.note(task.entrant)
        return
    folder = trained(task.entrant, task.title, bench)
    subjects: dict[tuple[str, int | None], Subject] = {}
    for each in missing:
        source = trained(each.source, f"{task.title}: source", bench) if each.source else None
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


def trained(model: Entrant, title: str, bench: Bench) -> Path:
    """The run directory of a model, trained now or gone on with where it is not finished.

    Raises:
        Stopped: on a signal; the state is saved.
        Diverged: the loss became NaN or infinite.
    """
    folder = bench.store.folder(model)
    if (folder / TRAINED).is_file():
        for name in (RECORD, WEIGHTS):
            if not (folder / RUN / name).is_file():
                raise ValueError(f"{folder / RUN} was trained and lacks {name}: remove {folder}, and it is run again")
        return folder / RUN
    sources = [str(trained(each, f"{title}: source", bench).absolute()) for each in model.sources]
    (folder / RUN).parent.mkdir(parents=True, exist_ok=True)
    settings = model.recipe(str(Path(bench.places[model.data]).absolute()), sources, bench.device)
    if not Path(bench.places[model.data]).exists():
        settings["data"] = bench.places[model.data]  # a name
    write_text(folder / RECIPE, yaml.safe_dump(settings))
    recipe, config, _, _ = parse_train([str(folder / RECIPE)])
    _move(folder / RUN / CONFIG, config)
    bench.board.begin(f"{title}: train")

    def show(console: Console, run: Path, epochs: int, steps: int, done: int) -> Training:
        return Training(bench.board, run, steps)

    train(recipe, folder / RUN, config=config, resume=True, console=Console(quiet=True), show=show)
    write_json(folder / TRAINED, training_record(folder / RUN))
    bench.board.end()
    return folder / RUN


def _move(path: Path, config: str) -> None:
    """Let a run go on where its images and sources were moved; that images are the same is seen by their hashes."""
    before, now = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None, yaml.safe_load(config)
    if isinstance(before, dict) and _placeless(before) == _placeless(now):
        write_text(path, config)


def _placeless(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without where data and source models lie."""
    found = {**copy.deepcopy(settings), "data": ""}
    for node in nodes(found):
        if isinstance(node.get("sources"), list):
            node["sources"] = [Path(str(source)).parent.name for source in node["sources"]]
    return found

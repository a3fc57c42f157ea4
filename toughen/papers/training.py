"""Trains the models of a table or figure: one alone, or those whose times are compared in turns."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from toughen.config.train import parse_train
from toughen.papers import weights
from toughen.papers.measure import training_record
from toughen.papers.progress_board import ProgressBoard, Training
from toughen.papers.run_spec import KEPT, RunSpec, moments
from toughen.papers.scales import nodes
from toughen.papers.store import CELLS, RUN, TRAINED, TURNS, Store, turns_of
from toughen.runs import RECORD, WEIGHTS
from toughen.runs.files import write_json, write_text
from toughen.runs.locks import held
from toughen.training.folder import CONFIG
from toughen.training.run import by_epoch, open_run
from toughen.training.saving import Diverged
from toughen.training.trainer import Trainer
from toughen.utils.signals import GracefulShutdown, Stopped

RECIPE = "recipe.yaml"
QUIET = Console(quiet=True)


@dataclass
class RunContext:
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
    board: ProgressBoard
    failed: dict[str, str] = field(default_factory=dict)

    def show(self, console: Console, run: Path, epochs: int, steps: int, done: int) -> Training:
        """The board as the display of one run's training."""
        return Training(self.board, run, steps, done)


def trained(model: RunSpec, title: str, context: RunContext) -> Path:
    """The run directory of a model, trained now or gone on with where it is not finished.

    Raises:
        Stopped: on a signal; the state is saved.
        Diverged: the loss became NaN or infinite.
    """
    failed = train_in_turns({title: model}, context)
    if failed:
        raise failed[title]
    return context.store.folder(model) / RUN


def train_in_turns(models: Mapping[str, RunSpec], context: RunContext) -> dict[str, Diverged]:
    """Train models an epoch each in turn, the one that is least far first: what slows the machine slows all alike.

    Args:
        models: by what a display calls them; those that are trained already are passed over.
        context: where.

    Returns:
        What could not be trained, and why.

    Raises:
        Stopped: on a signal; what was done is kept.
    """
    failed: dict[str, Diverged] = {}
    models = {title: model for title, model in models.items() if not is_trained(model, context.store)}
    for title, model in models.items():
        try:
            for source in model.sources:
                trained(source, source.title_for(title), context)
        except Diverged as error:
            failed[title] = Diverged(f"{source.words}, which it learns from: {error}")
    models = {title: model for title, model in models.items() if title not in failed}
    with ExitStack() as stack:
        folders = {context.store.folder(model) for model in models.values()}
        for folder in sorted(folders):  # in one order in all processes
            stack.enter_context(held(folder, partial(context.board.wait, folder)))
        return failed | _in_turns(models, context)


def _in_turns(models: Mapping[str, RunSpec], context: RunContext) -> dict[str, Diverged]:
    """The same of models whose sources are trained, and that no other process is at."""
    failed: dict[str, Diverged] = {}
    left: dict[str, str] = {}  # a scale may make the same run of two rows: it is the first one's
    for title, model in models.items():  # less those that are sources of others
        if model.key not in left and not is_trained(model, context.store):
            left[model.key] = title
    group = [models[title] for title in left.values()]
    going = {title: _open(models[title], context, group) for title in left.values()}
    shares = dict.fromkeys(going, 0.0)
    with GracefulShutdown() as shutdown:
        turns = {title: by_epoch(trainer, shutdown, QUIET, context.show) for title, trainer in going.items()}
        while turns and not shutdown.requested:
            title = min(turns, key=lambda each: shares[each])
            context.board.begin(f"{title}: train")
            try:
                shares[title] = next(turns[title])
            except StopIteration:
                del turns[title]
                _finish(going[title].folder, models[title], context.store)
                context.store.note(models[title])
                context.board.end()
            except Diverged as error:
                del turns[title]
                failed[title] = error
                context.board.end(f"failed ({error})")
    if shutdown.requested:
        raise Stopped(shutdown.requested)  # between epochs, or in what came after the last step
    return failed


def is_trained(model: RunSpec, store: Store) -> bool:
    """Whether a model was trained to its end, and its run is there.

    Raises:
        ValueError: it was, and it lacks what is needed of it, or its weights have changed since.
    """
    folder = store.folder(model)
    if not (folder / TRAINED).is_file():
        return False
    for name in (RECORD, WEIGHTS):
        if not (folder / RUN / name).is_file():
            raise ValueError(f"{folder / RUN} was trained and lacks {name}: remove {folder}, and it is run again")
    if folder not in store.checked:
        weights.check(store.root, model, folder)
        store.checked.add(folder)
    return True


def _open(model: RunSpec, context: RunContext, group: Sequence[RunSpec]) -> Trainer:
    """A run, begun or where it stopped; the nets that it learns from are trained."""
    folder = context.store.folder(model)
    sources = [str((context.store.folder(each) / RUN).absolute()) for each in model.sources]
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / RUN).exists():
        _set_aside(folder / CELLS)
        context.store.note(model, moments(model))
    place = context.places[model.data]  # a folder, or a name
    data = str(Path(place).absolute()) if Path(place).exists() else place
    settings = model.recipe(data, sources, context.device) | {KEPT: _kept(folder, model)}
    write_text(folder / RECIPE, yaml.safe_dump(settings))
    recipe, config, _, _ = parse_train([str(folder / RECIPE)])
    _move(folder / RUN / CONFIG, config)
    _note_turns(folder, group, context.store)
    return open_run(recipe, folder / RUN, config=config, resume=True, console=QUIET)


def _kept(folder: Path, model: RunSpec) -> list[int | str]:
    """The moments whose weights a run keeps: those that it was begun with, or all that figures need of it."""
    if not (folder / RUN).exists():
        return moments(model)
    before = yaml.safe_load((folder / RECIPE).read_text(encoding="utf-8")) if (folder / RECIPE).is_file() else None
    kept: list[int | str] = (before if isinstance(before, dict) else model.settings).get(KEPT, [])
    return kept


def _set_aside(cells: Path) -> None:
    """Keep figures of a training whose run is gone apart from those of the one that begins."""
    if cells.exists():
        numbers = (number for number in itertools.count(1) if not cells.with_name(f"former-cells-{number}").exists())
        cells.rename(cells.with_name(f"former-cells-{next(numbers)}"))


def _finish(run: Path, model: RunSpec, store: Store) -> None:
    """Say beside a run that it was trained to its end, and how, and put its weights on the list."""
    record = training_record(run) | {"in_turns_with": turns_of(run.parent / TURNS)}
    weights.note(store.root, model, run.parent, record, hashed="when trained")
    write_json(run.parent / TRAINED, record)
    store.checked.add(run.parent)


def _note_turns(folder: Path, group: Sequence[RunSpec], store: Store) -> None:
    """Keep which others a run takes turns with from its first epoch to its last.

    One that goes on takes them with those alone that go on, too, or that have come to their end before it.
    """
    path, now = folder / TURNS, [store.folder(each) for each in group]
    if (folder / RUN).exists():
        before = [folder.parent / name for name in turns_of(path)]
        now = [each for each in before if each in now or (each / TRAINED).is_file()]
    write_json(path, sorted(each.name for each in now if each != folder))


def _move(path: Path, config: str) -> None:
    """Let a run go on where its images and sources were moved; that images are the same is seen by their hashes."""
    before, now = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None, yaml.safe_load(config)
    if isinstance(before, dict) and _placeless(before) == _placeless(now):
        write_text(path, config)


def _placeless(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without where data and source models lie."""
    placeless = {**copy.deepcopy(settings), "data": ""}
    for node in nodes(placeless):
        if isinstance(node.get("sources"), list):
            node["sources"] = [Path(str(source)).parent.name for source in node["sources"]]
    return placeless

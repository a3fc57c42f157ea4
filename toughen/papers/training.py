"""Trains the models of a table or figure; models whose times are compared are trained in turns."""

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
from toughen.training.divergence import Diverged
from toughen.training.folder import CONFIG
from toughen.training.recipe_yaml import recipe_yaml
from toughen.training.run import by_epoch, open_run
from toughen.training.trainer import Trainer
from toughen.utils import strict_yaml
from toughen.utils.signals import GracefulShutdown, Stopped

RECIPE = "recipe.yaml"
QUIET = Console(quiet=True)


@dataclass
class RunContext:
    """What all tasks of a command use.

    Attributes:
        store: the results and the runs.
        places: the location of each data set.
        device: the device.
        board: the progress display.
        failed: the titles of models that could not be trained, with the reasons.
        diverged: the reasons by the models' keys.
    """

    store: Store
    places: Mapping[str, str]
    device: str
    board: ProgressBoard
    failed: dict[str, str] = field(default_factory=dict)
    diverged: dict[str, str] = field(default_factory=dict)

    def show(self, console: Console, run: Path, epochs: int, steps: int, done: int) -> Training:
        """The board as the display of one run's training."""
        return Training(self.board, run, steps, done)


def trained(model: RunSpec, title: str, context: RunContext) -> Path:
    """The run directory of a model; the model is trained first, or its training resumed, if it is not finished.

    Raises:
        Stopped: on a signal; the state is saved.
        Diverged: the loss became NaN or infinite.
    """
    failed = train_in_turns({title: model}, context)
    if failed:
        raise failed[title]
    return context.store.folder(model) / RUN


def train_in_turns(models: Mapping[str, RunSpec], context: RunContext) -> dict[str, Diverged]:
    """Train models in turns, one epoch each, so that other load on the machine slows all of them equally.

    Args:
        models: the models by their titles; those that are already trained are skipped.
        context: the context.

    Returns:
        The models that could not be trained, with the errors.

    Raises:
        Stopped: on a signal; finished work is kept.
    """
    failed: dict[str, Diverged] = {}
    models = {title: model for title, model in models.items() if not is_trained(model, context.store)}
    for title, model in models.items():
        try:
            for source in model.sources:
                trained(source, source.title_for(title), context)
        except Diverged as error:
            failed[title] = Diverged(f"its source {source.words}: {error}")
    models = {title: model for title, model in models.items() if title not in failed}
    with ExitStack() as stack:
        folders = {context.store.folder(model) for model in models.values()}
        for folder in sorted(folders):  # in the same order in all processes, which avoids deadlocks
            stack.enter_context(held(folder, partial(context.board.wait, folder)))
        return failed | _in_turns(models, context)


def _in_turns(models: Mapping[str, RunSpec], context: RunContext) -> dict[str, Diverged]:
    """``train_in_turns`` for models whose sources are trained and whose folders are locked."""
    failed: dict[str, Diverged] = {}
    left: dict[str, str] = {}  # keys to titles; at some scales, two rows are the same run
    for title, model in models.items():  # a model may have been trained as a source of another
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
        raise Stopped(shutdown.requested)  # the signal came between epochs, or after the last step
    return failed


def is_trained(model: RunSpec, store: Store) -> bool:
    """Whether a model is completely trained.

    Raises:
        ValueError: it is, but files of its run are missing, or its weights have changed.
    """
    folder = store.folder(model)
    if not (folder / TRAINED).is_file():
        return False
    for name in (RECORD, WEIGHTS):
        if not (folder / RUN / name).is_file():
            raise ValueError(f"{folder / RUN} lacks {name}: remove {folder}, and the model is trained again")
    if folder not in store.checked:
        weights.check(store.root, model, folder)
        store.checked.add(folder)
    return True


def _open(model: RunSpec, context: RunContext, group: Sequence[RunSpec]) -> Trainer:
    """The trainer of a model, for a new run or for one that stopped; its sources must be trained."""
    folder = context.store.folder(model)
    sources = [str((context.store.folder(each) / RUN).absolute()) for each in model.sources]
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / RUN).exists():
        _set_aside(folder / CELLS)
        context.store.note(model, moments(model))
    place = context.places[model.data]  # a folder, or a name
    data = str(Path(place).absolute()) if Path(place).exists() else place
    settings = model.recipe(data, sources, context.device) | {KEPT: _kept(folder, model)}
    write_text(folder / RECIPE, strict_yaml.write(settings))
    recipe, _, _ = parse_train([str(folder / RECIPE)])
    _move(folder / RUN / CONFIG, recipe_yaml(recipe))
    _note_turns(folder, group, context.store)
    return open_run(recipe, folder / RUN, resume=True, console=QUIET)


def _kept(folder: Path, model: RunSpec) -> list[int | str]:
    """The moments whose weights a run keeps: those it was started with, or, for a new run, all that figures need."""
    if not (folder / RUN).exists():
        return moments(model)
    before = yaml.safe_load((folder / RECIPE).read_text(encoding="utf-8")) if (folder / RECIPE).is_file() else None
    kept: list[int | str] = (before if isinstance(before, dict) else model.settings).get(KEPT, [])
    return kept


def _set_aside(cells: Path) -> None:
    """Move the figures of a deleted run to another folder, so that they are not mixed with those of the new run."""
    if cells.exists():
        numbers = (number for number in itertools.count(1) if not cells.with_name(f"former-cells-{number}").exists())
        cells.rename(cells.with_name(f"former-cells-{next(numbers)}"))


def _finish(run: Path, model: RunSpec, store: Store) -> None:
    """Write the training record of a finished run, and add its weights to weights.json."""
    record = training_record(run) | {"in_turns_with": turns_of(run.parent / TURNS)}
    weights.note(store.root, model, run.parent, record, hashed="when trained")
    write_json(run.parent / TRAINED, record)
    store.checked.add(run.parent)


def _note_turns(folder: Path, group: Sequence[RunSpec], store: Store) -> None:
    """Store the other models that a run is trained in turns with, from its first epoch to its last.

    For a resumed run, only those stay that are resumed too, or are already finished.
    """
    path, now = folder / TURNS, [store.folder(each) for each in group]
    if (folder / RUN).exists():
        before = [folder.parent / name for name in turns_of(path)]
        now = [each for each in before if each in now or (each / TRAINED).is_file()]
    write_json(path, sorted(each.name for each in now if each != folder))


def _move(path: Path, config: str) -> None:
    """Update a run's config after its images or sources were moved; hashes verify that the images are the same."""
    before, now = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None, yaml.safe_load(config)
    if isinstance(before, dict) and _placeless(before) == _placeless(now):
        write_text(path, config)


def _placeless(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without the paths of data and source models."""
    placeless = {**copy.deepcopy(settings), "data": ""}
    for node in nodes(placeless):
        if isinstance(node.get("sources"), list):
            node["sources"] = [Path(str(source)).parent.name for source in node["sources"]]
    return placeless

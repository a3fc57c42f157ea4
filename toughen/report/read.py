"""Reads a run directory for the report, and notes what is missing or cannot be read."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from toughen.report.evaluations import Evaluation, evaluation
from toughen.report.history import History, read_history
from toughen.report.values import clean, items, mapping, real, text, whole
from toughen.report.words import count
from toughen.runs import follow_up
from toughen.runs.files import sha256
from toughen.utils.paths import did_you_mean

CONFIG, METRICS, RECORD, RESULT = "config.yaml", "metrics.jsonl", "model.json", "evaluation.json"
PROVENANCE, DIAGNOSTICS, WEIGHTS = "provenance.json", "diagnostics.json", "model.safetensors"
RUN_FILES = (CONFIG, METRICS, RECORD, RESULT)  # a folder with at least one of these is a run or an evaluation


@dataclass
class Run:
    """The content of a run directory, or of a folder with the evaluation of a model from elsewhere.

    Attributes:
        folder: the directory.
        name: the name in the report.
        method, model, data, norm: how the run was trained; "" if not known.
        eps: the radius of the threat in training; None for training without an attack.
        net: the net's name and settings, as in model.json.
        classes: the class names in the order of the logits; () if not known.
        weights: the kind of weights and their epoch, as text.
        epoch, kind: the same as in model.json: the epoch from 0, and "live" or "averaged".
        own: the evaluation in the run directory itself.
        outdated: that this evaluation was made with other weights, in a sentence; "" if it was not.
        others: evaluations on other data, at another threat, or made earlier.
        history: the training history.
        config, settings: the recipe's text and its settings; "" and {} until `read_recipe`.
        unfinished: that training is not finished, in a sentence; "" if it is, and until `read_recipe`.
        missing: sentences on what is missing or cannot be read, and what to do about it.
    """

    folder: Path
    name: str
    method: str = ""
    model: str = ""
    data: str = ""
    from_hub: bool = False
    norm: str = ""
    eps: float | None = None
    net: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    weights: str = ""
    epoch: int | None = None
    kind: str = ""
    own: Evaluation | None = None
    outdated: str = ""
    others: list[Evaluation] = field(default_factory=list)
    history: History = field(default_factory=History)
    config: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    unfinished: str = ""
    missing: list[str] = field(default_factory=list)

    @property
    def place(self) -> str:
        """The folder's path as text."""
        return clean(str(self.folder))

    @property
    def evaluate(self) -> str:
        """The command that evaluates these weights."""
        return follow_up.evaluate(self.place, self.net, self.eps, self.norm)

    @property
    def trained(self) -> bool:
        """Whether the folder contains weights written by `toughen train`, which `toughen evaluate` can load."""
        return (self.folder / RECORD).is_file() and (self.folder / WEIGHTS).is_file()

    @cached_property
    def weights_hash(self) -> str:
        """The SHA-256 hash of the weights' file."""
        return sha256(self.folder / WEIGHTS)

    def json(self, path: Path) -> Any:
        """The content of a JSON file; None if there is no file, or if it is damaged, which is noted in ``missing``."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError):
            self.missing.append(f"{self.inside(path)} cannot be read, so its content is left out.")
            return None
        if content is None:
            self.missing.append(f"{self.inside(path)} is not what toughen writes there, so it is left out.")
        return content

    def fields(self, path: Path) -> dict[str, Any]:
        """The fields of a JSON file; {} if there is no file, or if it is not valid, which is noted in ``missing``."""
        content = self.json(path)
        if content is not None and not isinstance(content, dict):
            self.missing.append(f"{self.inside(path)} is not what toughen writes there, so it is left out.")
        return mapping(content)

    def inside(self, path: Path) -> str:
        """A file's path relative to the run directory."""
        return clean(str(path.relative_to(self.folder) if path.is_relative_to(self.folder) else path))


def read_run(folder: Path, name: str) -> Run:
    """Read a run directory, without its recipe and the data of its figures.

    Raises:
        ValueError: the folder is not a run directory.
    """
    if folder.is_file():
        if (folder.parent / RECORD).is_file():
            raise ValueError(f"{folder} is a file of a run: name its folder, {folder.parent}")
        raise ValueError(f"there is no run directory {folder}, but a file: name the folder that `toughen train` wrote")
    if not folder.is_dir():
        raise ValueError(
            f"there is no run directory {folder}: {did_you_mean(folder)}name one that `toughen train` wrote"
        )
    if not any((folder / name).is_file() for name in RUN_FILES):
        raise ValueError(
            f"{folder} is not a run directory, as it has none of {', '.join(RUN_FILES)}: name one that `toughen train` "
            "wrote"
        )
    run = Run(folder, name)
    _read_record(run)
    _read_training(run)
    _read_evaluations(run)
    return run


def _read_record(run: Run) -> None:
    """Read model.json, which describes the weights."""
    fields = run.fields(run.folder / RECORD)
    if (run.folder / WEIGHTS).is_file() and not (run.folder / RECORD).is_file():
        run.missing.append("model.json is missing, so the model of these weights is not known.")
    run.method, run.data, run.norm = (text(fields.get(name)) for name in ("method", "data", "norm"))
    run.from_hub, run.net = fields.get("from_hub") is True, mapping(fields.get("model"))
    run.model, run.eps = text(run.net.get("name")), real(fields.get("eps"))
    run.classes = tuple(text(name) for name in items(fields.get("classes")))
    run.epoch, run.kind = whole(fields.get("epoch")), text(fields.get("weights"))
    if run.epoch is not None:
        run.weights = f"{run.kind or 'live'}, after epoch {run.epoch + 1}"


def _read_training(run: Run) -> None:
    """Read metrics.jsonl, which training writes."""
    try:
        run.history = read_history((run.folder / METRICS).read_bytes().splitlines())
    except FileNotFoundError:
        if (run.folder / WEIGHTS).is_file():
            run.missing.append("metrics.jsonl is missing, so there are no curves, and the cost is not known.")
        elif (run.folder / CONFIG).is_file():
            run.missing.append("No epoch has ended yet: metrics.jsonl is missing.")
    except OSError as error:
        run.missing.append(f"metrics.jsonl cannot be read ({error.strerror}).")
    if broken := run.history.broken:
        lines = ", ".join(map(str, broken[:5])) + (" and others" if len(broken) > 5 else "")
        run.missing.append(
            f"Line{'s' * (len(broken) > 1)} {lines} of metrics.jsonl cannot be read, so the curves and the cost are "
            "incomplete."
        )
    if lost := run.history.lost:
        run.missing.append(
            f"metrics.jsonl lacks {count(lost, 'line')} of epochs before the last one, so the curves and the cost are "
            "incomplete."
        )
    if run.history.epochs and not run.method:
        run.method = run.history.epochs[-1].method


def _read_evaluations(run: Run) -> None:
    """Read the run's own evaluation, earlier ones, and those in subfolders."""
    run.own = _evaluation(run, run.folder / RESULT, "")
    earlier = sorted(run.folder.glob("evaluation.*.json"))
    inside = [path for path in sorted(run.folder.glob(f"*/{RESULT}")) if not (path.parent / RECORD).exists()]
    others = [_evaluation(run, path, run.inside(path)) for path in (*earlier, *inside)]
    run.others = [other for other in others if other is not None]
    if run.own is None:
        begun = (run.folder / CONFIG).is_file()
        todo = f"there are no weights {'yet' if begun else 'here'} to evaluate"
        if (run.folder / WEIGHTS).is_file():
            todo = f"run `{run.evaluate}`"
        run.missing.append(f"The run has not been evaluated, so nothing is known about its robustness: {todo}.")
    elif not run.data:
        run.data, run.norm = run.own.data, run.own.norm
    if run.own and not run.classes:
        run.classes = run.own.classes
    run.outdated = _outdated(run, run.own) if run.own and of_other_weights(run, run.own) else ""


def of_other_weights(run: Run, evaluated: Evaluation) -> bool:
    """Whether an evaluation was made with other weights than the run has now; False if that is not known."""
    if evaluated.epoch is None or run.epoch is None:
        return False
    return evaluated.epoch != run.epoch or bool(evaluated.weights and run.kind and evaluated.weights != run.kind)


def _outdated(run: Run, own: Evaluation) -> str:
    evaluated, now = (f"after epoch {(epoch or 0) + 1}" for epoch in (own.epoch, run.epoch))
    if own.epoch == run.epoch:
        evaluated, now = f"{evaluated}, {own.weights}", f"{now}, {run.kind}"
    return f"This evaluation used the weights {evaluated}, but the run now has those {now}: run `{run.evaluate}` again."


def _evaluation(run: Run, path: Path, place: str) -> Evaluation | None:
    content = run.json(path)
    result = None if content is None else evaluation(content, place)
    if content is not None and result is None:
        run.missing.append(f"{run.inside(path)} is not what toughen writes there, so it is left out.")
    return result


def names(folders: Sequence[Path]) -> list[str]:
    """The name of each run: its folder's name, or a longer part of its path if several folders have the same name.

    Raises:
        ValueError: the same folder is named more than once.
    """
    if len({os.path.realpath(folder) for folder in folders}) < len(folders):
        raise ValueError("the same run is named more than once: name each run only once")
    short = [clean(folder.name or folder.resolve().name) for folder in folders]
    counts = Counter(short)
    above = [os.path.abspath(folder.parent) for name, folder in zip(short, folders, strict=True) if counts[name] > 1]
    common = os.path.commonpath(above) if above else ""
    labels = [
        name if counts[name] == 1 else clean(os.path.relpath(folder, common))
        for name, folder in zip(short, folders, strict=True)
    ]
    counts = Counter(labels)  # paths that are not UTF-8 can become equal when shown
    return [name if counts[name] == 1 else f"{name} ({at})" for at, name in enumerate(labels, 1)]

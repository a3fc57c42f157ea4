"""A run directory as a report shows it: whatever is there, and in words what is missing or cannot be read."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toughen.report.evaluations import Evaluation, evaluation
from toughen.report.history import History, read_history
from toughen.report.values import clean, items, mapping, real, text, whole
from toughen.report.words import count
from toughen.runs import follow_up
from toughen.utils.nearest import did_you_mean

CONFIG, METRICS, RECORD, RESULT = "config.yaml", "metrics.jsonl", "model.json", "evaluation.json"
PROVENANCE, DIAGNOSTICS, WEIGHTS = "provenance.json", "diagnostics.json", "model.safetensors"
SIGNS = (CONFIG, METRICS, RECORD, RESULT)  # a folder that holds one of these is a run, or what came out of one


@dataclass
class Run:
    """What is known of a run, or of the evaluation of a model from elsewhere.

    Attributes:
        folder: where its files are.
        name: what it is called in the report.
        method, model, data, norm: as the run was made; "" where nobody knows.
        eps: what it was trained against, None for nothing.
        net: the net's name and settings as model.json has them.
        classes: in the order of the logits; () where nobody knows.
        weights: which epoch's weights these are, in words.
        epoch, kind: the same as model.json has it: the epoch from 0, and "live" or "averaged".
        own: its own evaluation.
        outdated: that its evaluation is not of the weights that are there now, in a sentence; "" where it is.
        others: evaluations of it on other data, at another threat, or made before.
        history: of its training.
        config, settings: its recipe, as it was written and as it reads; "" and {} until `read_recipe`.
        unfinished: that it has not come to its end, in a sentence; "" where it has, and until `read_recipe`.
        missing: what is missing or cannot be read, and what to do about it.
    """

    folder: Path
    name: str
    method: str = ""
    model: str = ""
    data: str = ""
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
        """The folder, as it is shown."""
        return clean(str(self.folder))

    @property
    def evaluate(self) -> str:
        """The command that evaluates these weights."""
        return follow_up.evaluate(self.place, self.net, self.eps, self.norm)

    @property
    def trained(self) -> bool:
        """Whether these are weights that `toughen train` wrote, which `toughen evaluate` takes."""
        return (self.folder / RECORD).is_file() and (self.folder / WEIGHTS).is_file()

    def json(self, path: Path) -> Any:
        """The content of a JSON file; None where there is none, and where it is damaged, which is then said."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError):
            self.missing.append(f"{self.inside(path)} cannot be read, so what it says is left out.")
            return None
        if content is None:
            self.missing.append(f"{self.inside(path)} is not what toughen writes there, so it is left out.")
        return content

    def fields(self, path: Path) -> dict[str, Any]:
        """The fields of a JSON file; {} where there are none, and where it holds something else, which is then said."""
        content = self.json(path)
        if content is not None and not isinstance(content, dict):
            self.missing.append(f"{self.inside(path)} is not what toughen writes there, so it is left out.")
        return mapping(content)

    def inside(self, path: Path) -> str:
        """A file's name as seen from the run directory."""
        return clean(str(path.relative_to(self.folder) if path.is_relative_to(self.folder) else path))


def read_run(folder: Path, name: str) -> Run:
    """What a run directory says, but for the details of its pictures.

    Raises:
        ValueError: the folder is no run directory.
    """
    if not folder.is_dir():
        raise ValueError(
            f"there is no run directory {folder}: {did_you_mean(folder)}name one that `toughen train` wrote"
        )
    if not any((folder / sign).is_file() for sign in SIGNS):
        raise ValueError(f"{folder} is no run directory: it has none of {', '.join(SIGNS)}")
    run = Run(folder, name)
    _read_record(run)
    _read_training(run)
    _read_evaluations(run)
    return run


def _read_record(run: Run) -> None:
    """What the weights are, out of model.json."""
    fields = run.fields(run.folder / RECORD)
    if (run.folder / WEIGHTS).is_file() and not (run.folder / RECORD).is_file():
        run.missing.append("model.json is missing, so what these weights are is not known.")
    run.method, run.data, run.norm = (text(fields.get(name)) for name in ("method", "data", "norm"))
    run.net = mapping(fields.get("model"))
    run.model, run.eps = text(run.net.get("name")), real(fields.get("eps"))
    run.classes = tuple(text(name) for name in items(fields.get("classes")))
    run.epoch, run.kind = whole(fields.get("epoch")), text(fields.get("weights"))
    if run.epoch is not None:
        run.weights = f"{run.kind or 'live'}, after epoch {run.epoch + 1}"


def _read_training(run: Run) -> None:
    """What training said."""
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
            f"Line{'s' * (len(broken) > 1)} {lines} of metrics.jsonl cannot be read, so curves and cost lack "
            f"{'them' if len(broken) > 1 else 'it'}."
        )
    if lost := run.history.lost:
        run.missing.append(
            f"metrics.jsonl lacks {count(lost, 'line')} of epochs before the last one, so curves and cost do, too."
        )
    if run.history.epochs and not run.method:
        run.method = run.history.epochs[-1].method


def _read_evaluations(run: Run) -> None:
    """Its own evaluation, those made before, and those in folders of its own inside it."""
    run.own = _evaluation(run, run.folder / RESULT, "")
    earlier = sorted(run.folder.glob("evaluation.*.json"))
    beside = [path for path in sorted(run.folder.glob(f"*/{RESULT}")) if not (path.parent / RECORD).exists()]
    others = [_evaluation(run, path, run.inside(path)) for path in (*earlier, *beside)]
    run.others = [other for other in others if other is not None]
    if run.own is None:
        begun = (run.folder / CONFIG).is_file()
        todo = f"there are no weights {'yet' if begun else 'here'} to evaluate"
        if (run.folder / WEIGHTS).is_file():
            todo = f"run `{run.evaluate}`"
        run.missing.append(f"It has not been evaluated, so nothing is known about its robustness: {todo}.")
    elif not run.data:
        run.data, run.norm = run.own.data, run.own.norm
    if run.own and not run.classes:
        run.classes = run.own.classes
    run.outdated = _outdated(run, run.own) if run.own and of_other_weights(run, run.own) else ""


def of_other_weights(run: Run, evaluated: Evaluation) -> bool:
    """Whether an evaluation is of other weights than those that are there now, as far as both are known."""
    if evaluated.epoch is None or run.epoch is None:
        return False
    return evaluated.epoch != run.epoch or bool(evaluated.weights and run.kind and evaluated.weights != run.kind)


def _outdated(run: Run, own: Evaluation) -> str:
    evaluated, now = (f"after epoch {(epoch or 0) + 1}" for epoch in (own.epoch, run.epoch))
    if own.epoch == run.epoch:
        evaluated, now = f"{evaluated}, {own.weights}", f"{now}, {run.kind}"
    return f"This evaluation is of the weights {evaluated}; those here now are {now}: run `{run.evaluate}` again."


def _evaluation(run: Run, path: Path, place: str) -> Evaluation | None:
    content = run.json(path)
    result = None if content is None else evaluation(content, place)
    if content is not None and result is None:
        run.missing.append(f"{run.inside(path)} is not what toughen writes there, so it is left out.")
    return result


def names(folders: Sequence[Path]) -> list[str]:
    """What each run is called: its folder's name, or where others have that name too the path from where they part.

    Raises:
        ValueError: a folder is named twice.
    """
    if len({os.path.realpath(folder) for folder in folders}) < len(folders):
        raise ValueError("a run is named twice: name each of them once")
    short = [clean(folder.name or folder.resolve().name) for folder in folders]
    counts = Counter(short)
    above = [os.path.abspath(folder.parent) for name, folder in zip(short, folders, strict=True) if counts[name] > 1]
    common = os.path.commonpath(above) if above else ""
    labels = [
        name if counts[name] == 1 else clean(os.path.relpath(folder, common))
        for name, folder in zip(short, folders, strict=True)
    ]
    counts = Counter(labels)  # what is not UTF-8 can look alike
    return [name if counts[name] == 1 else f"{name} ({at})" for at, name in enumerate(labels, 1)]

"""An evaluation's results: each image's, the figures made of them, and the files that hold both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from toughen.core.types import Labels, Mask
from toughen.data import Split
from toughen.engine.batches import Counts
from toughen.engine.fixed_batch import TRIALS, WRONG_TRIALS
from toughen.evaluation.harness import AttackResult
from toughen.evaluation.state import State
from toughen.runs.files import read_fields, replace_file, write_json

RESULT, LEDGER, GALLERY = "evaluation.json", "examples.parquet", "gallery.parquet"


@dataclass
class Evaluation:
    """The results of all attacks on all images.

    Attributes:
        split: the n evaluated images, on the model's device.
        index: [n], their positions in the test set.
        predictions: [n], the classes predicted on the clean images.
        parts: by attack, the part that each of its rounds belongs to, such as "apgd-t".
        state: each attack's results.
        random: whether the model's outputs are random; an image is then broken where most of many outputs are wrong.
        gradient: whether the logits have a gradient with respect to the images.
    """

    split: Split
    index: Tensor
    predictions: Labels
    parts: dict[str, list[str]]
    state: State
    random: bool = False
    gradient: bool = True

    @property
    def correct(self) -> Mask:
        """[n], which clean images are classified correctly."""
        return self.predictions == self.split.labels

    @property
    def results(self) -> dict[str, AttackResult]:
        """Each attack's results, by its name."""
        device = self.split.labels.device
        progress = {name: self.state.of(name) for name in self.parts}
        return {name: AttackResult(each.broken.to(device), each.distance.to(device)) for name, each in progress.items()}

    @property
    def robust(self) -> Mask:
        """[n], which images are classified correctly, clean and under every attack."""
        robust = self.correct
        for result in self.results.values():
            robust = robust & ~result.broken
        return robust

    def accuracy(self, name: str) -> float:
        """Accuracy under one attack, 0..1: of all images, those classified correctly, clean and under it."""
        return share(self.correct & ~self.results[name].broken)

    def summary(self) -> dict[str, Any]:
        """The figures of evaluation.json; accuracies are 0..1."""
        draws = {"draws": {"total": TRIALS, "wrong": WRONG_TRIALS}} if self.random else {}
        return {
            "clean_accuracy": share(self.correct),
            "robust_accuracy": share(self.robust),
            "attacks": {name: self._figures(name) for name in self.parts},
            "images": len(self.split),
            **draws,
            **({} if self.gradient else {"no_gradient": True}),
        }

    def _figures(self, name: str) -> dict[str, Any]:
        """One attack's accuracy and cost, and those of its parts where it has several."""
        progress = self.state.of(name)
        names = list(dict.fromkeys(self.parts[name]))
        figures: dict[str, Any] = {"robust_accuracy": self.accuracy(name), **_cost(progress.seconds, progress.counts)}
        if len(names) > 1:
            figures["parts"] = {}
            rounds = progress.broken_by.tolist()
            for number, part in enumerate(names):  # each attacks the images that the parts before it left
                by_then = [each >= 0 and names.index(self.parts[name][each]) <= number for each in rounds]
                broken = progress.broken & torch.tensor(by_then)
                cost = _cost({part: progress.seconds.get(part, 0.0)}, {part: progress.counts.get(part, {})})
                figures["parts"][part] = {"robust_accuracy": share(self.correct.cpu() & ~broken), **cost}
        return figures

    def broken_by(self) -> tuple[list[str | None], list[float | None]]:
        """For each image the first attack, or part of one, that broke it, and the distance of its adversarial image."""
        names: list[str | None] = [None] * len(self.split)
        distance: list[float | None] = [None] * len(self.split)
        for name in self.parts:
            progress = self.state.of(name)
            for row in progress.broken.nonzero()[:, 0].tolist():
                if names[row] is None:
                    names[row] = self.parts[name][int(progress.broken_by[row])]
                    distance[row] = float(progress.distance[row])
        return names, distance

    def ledger(self) -> pa.Table:
        """The table of examples.parquet, a row for each image: clean prediction, what broke it first, its distance."""
        broken_by, distance = self.broken_by()
        columns: dict[str, Any] = {
            "index": self.index.tolist(),
            "label": self.split.labels.tolist(),
            "prediction": self.predictions.tolist(),
            "broken_by": pa.array(broken_by, pa.string()),
            "distance": pa.array(distance, pa.float32()),
        }
        for name, result in self.results.items():
            columns[f"stands_{name}"] = (self.correct & ~result.broken).tolist()
        return pa.table(columns)


def share(mask: Mask) -> float:
    """The share of True values in a mask [n], 0..1."""
    return int(mask.sum()) / len(mask)


def _cost(seconds: dict[str, float], counts: dict[str, dict[str, int]]) -> dict[str, Any]:
    """The sum of the parts' seconds and passes; a pass is one image's forward pass, or one image's gradient."""
    total = Counts(**{name: sum(each.get(name, 0) for each in counts.values()) for name in Counts.__dataclass_fields__})
    return {
        "seconds": round(sum(seconds.values()), 3),
        "passes": total.total,
        "gradients": total.gradient,
        "confirmations": total.confirmation,
        "padding": total.padding,
    }


def write_results(folder: Path, result: dict[str, Any], ledger: pa.Table, gallery: pa.Table | None, begun: str) -> None:
    """Write the files; an earlier evaluation's files there are renamed to evaluation.1.json and so on.

    Args:
        folder: where to write.
        result, ledger, gallery: the contents of the three files; None writes no gallery.
        begun: the name of this evaluation's state; its own unfinished results are replaced.

    Raises:
        ValueError: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / RESULT).exists() and read_fields(folder / RESULT).get("unfinished") != begun:
            number = next(n for n in range(1, 10**6) if not (folder / f"evaluation.{n}.json").exists())
            for name in (GALLERY, LEDGER, RESULT):
                if (folder / name).exists():
                    stem, suffix = name.split(".")
                    (folder / name).rename(folder / f"{stem}.{number}.{suffix}")
        if gallery is not None:
            replace_file(folder / GALLERY, lambda path: pq.write_table(gallery, path))
        replace_file(folder / LEDGER, lambda path: pq.write_table(ledger, path))
        write_json(folder / RESULT, result)
    except OSError as error:
        raise ValueError(f"cannot write to {folder} ({error.strerror}): choose another --out") from None

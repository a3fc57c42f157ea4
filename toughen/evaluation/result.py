"""What an evaluation found, image by image, its figures, and its files."""

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
from toughen.evaluation.attacked import share
from toughen.evaluation.harness import Verdicts
from toughen.evaluation.state import State
from toughen.runs.files import read_fields, replace_file, write_json
from toughen.utils.statistics import interval as interval

RESULT, LEDGER, GALLERY = "evaluation.json", "examples.parquet", "gallery.parquet"


@dataclass
class Evaluation:
    """What was found.

    Attributes:
        split: the evaluated images, on the model's device.
        index: their places in the test set.
        predictions: classes predicted on the clean images.
        parts: for each attack the part that each of its rounds belongs to.
        state: what each attack did.
        random: whether the model draws its answer, so that an image is broken where most of many draws are wrong.
    """

    split: Split
    index: Tensor
    predictions: Labels
    parts: dict[str, list[str]]
    state: State
    random: bool = False

    @property
    def correct(self) -> Mask:
        """Which images are right while clean."""
        return self.predictions == self.split.labels

    @property
    def verdicts(self) -> dict[str, Verdicts]:
        """Per attack, which images it broke and how far it moved them."""
        device = self.split.labels.device
        states = {name: self.state.of(name) for name in self.parts}
        return {name: Verdicts(each.fell.to(device), each.moved.to(device)) for name, each in states.items()}

    @property
    def robust(self) -> Mask:
        """Which images are right while clean and under every attack."""
        robust = self.correct
        for verdicts in self.verdicts.values():
            robust = robust & ~verdicts.broken
        return robust

    def accuracy(self, name: str) -> float:
        """The share of all images that are right while clean and under one attack."""
        return share(self.correct & ~self.verdicts[name].broken)

    def summary(self) -> dict[str, Any]:
        """The figures, accuracies 0..1."""
        draws = {"draws": {"asked": TRIALS, "wrong": WRONG_TRIALS}} if self.random else {}
        return {
            "clean_accuracy": share(self.correct),
            "robust_accuracy": share(self.robust),
            "attacks": {name: self._figures(name) for name in self.parts},
            "images": len(self.split),
            **draws,
        }

    def _figures(self, name: str) -> dict[str, Any]:
        progress = self.state.of(name)
        names = list(dict.fromkeys(self.parts[name]))
        figures: dict[str, Any] = {"robust_accuracy": self.accuracy(name), **_cost(progress.seconds, progress.counts)}
        if len(names) > 1:
            figures["parts"] = {}
            for part in names:  # each attacks what the ones before left
                broken = progress.fell & torch.tensor(
                    [by >= 0 and names.index(self.parts[name][by]) <= names.index(part) for by in progress.by.tolist()]
                )
                cost = _cost({part: progress.seconds.get(part, 0.0)}, {part: progress.counts.get(part, {})})
                figures["parts"][part] = {"robust_accuracy": share(self.correct.cpu() & ~broken), **cost}
        return figures

    def broken_by(self) -> tuple[list[str | None], list[float | None]]:
        """For each image the first attack (or part of one) that broke it, and how far it moved it."""
        names: list[str | None] = [None] * len(self.split)
        distance: list[float | None] = [None] * len(self.split)
        for name in self.parts:
            progress = self.state.of(name)
            for row in progress.fell.nonzero()[:, 0].tolist():
                if names[row] is None:
                    names[row] = self.parts[name][int(progress.by[row])]
                    distance[row] = float(progress.moved[row])
        return names, distance

    def ledger(self) -> pa.Table:
        """A row per image: place, label, clean prediction, the first attack that broke it, how far it moved it."""
        broken_by, distance = self.broken_by()
        columns: dict[str, Any] = {
            "index": self.index.tolist(),
            "label": self.split.labels.tolist(),
            "prediction": self.predictions.tolist(),
            "broken_by": pa.array(broken_by, pa.string()),
            "distance": pa.array(distance, pa.float32()),
        }
        for name, verdicts in self.verdicts.items():
            columns[f"stands_{name}"] = (self.correct & ~verdicts.broken).tolist()
        return pa.table(columns)


def _cost(seconds: dict[str, float], counts: dict[str, dict[str, int]]) -> dict[str, Any]:
    """Seconds, and passes over all images together: forward equivalents, and what else was spent."""
    total = Counts(**{name: sum(each.get(name, 0) for each in counts.values()) for name in Counts.__dataclass_fields__})
    return {
        "seconds": round(sum(seconds.values()), 3),
        "passes": total.total,
        "gradients": total.gradient,
        "confirmations": total.confirmation,
        "padding": total.padding,
    }


def write_results(
    folder: Path, result: dict[str, Any], ledger: pa.Table, gallery: pa.Table | None = None, begun: str = ""
) -> None:
    """Write the files; what an earlier evaluation left there is kept as evaluation.1.json and so on.

    Args:
        folder: where.
        result, ledger, gallery: what each of them holds.
        begun: the name of this evaluation, whose own unfinished results are replaced.

    Raises:
        ValueError: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / RESULT).exists() and not (begun and read_fields(folder / RESULT).get("unfinished") == begun):
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

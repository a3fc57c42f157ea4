"""Evaluates a model: every attack on every image that is right, a ledger of each image, and the figures out of it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.console import Console
from torch import Tensor, nn

from toughen import runs
from toughen.attacks.base import Attack
from toughen.data import Split
from toughen.device import pick_device, provenance
from toughen.evaluation.harness import Verdicts, predict, run_attack, share
from toughen.evaluation.images import load_test, refuse_seen, sample
from toughen.evaluation.suite import DEFAULT, parse_attack
from toughen.files import check_writable, read_json, replace_file, write_json
from toughen.passes import Passes
from toughen.progress import progress_bar
from toughen.types import Eps, Labels, Norm

RESULT, LEDGER = "evaluation.json", "examples.parquet"


@dataclass
class Evaluation:
    """What was found, image by image.

    Attributes:
        split: the evaluated images, on the model's device.
        index: their places in the test set.
        predictions: classes predicted on the clean images.
        verdicts: per attack, which images it broke and how far it moved them.
        seconds, passes: per attack; passes are forward equivalents over all images together.
    """

    split: Split
    index: Tensor
    predictions: Labels
    verdicts: dict[str, Verdicts] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    passes: dict[str, int] = field(default_factory=dict)

    @property
    def right(self) -> Tensor:
        """Which images are right while clean."""
        return self.predictions == self.split.labels

    @property
    def standing(self) -> Tensor:
        """Which images are right while clean and under every attack."""
        standing = self.right
        for verdicts in self.verdicts.values():
            standing = standing & ~verdicts.broken
        return standing

    def accuracy(self, name: str) -> float:
        """The share of all images that are right while clean and under one attack."""
        return share(self.right & ~self.verdicts[name].broken)

    def summary(self) -> dict[str, Any]:
        """The figures, accuracies 0..1."""
        attacks = {
            name: {
                "robust_accuracy": self.accuracy(name),
                "seconds": round(self.seconds[name], 3),
                "passes": self.passes[name],
            }
            for name in self.verdicts
        }
        return {
            "clean_accuracy": share(self.right),
            "robust_accuracy": share(self.standing),
            "attacks": attacks,
            "images": len(self.split),
        }

    def ledger(self) -> pa.Table:
        """A row per image: place, label, clean prediction, the first attack that broke it, how far it moved it."""
        broken_by: list[str | None] = [None] * len(self.split)
        distance: list[float | None] = [None] * len(self.split)
        for name, verdicts in self.verdicts.items():
            for row in verdicts.broken.nonzero()[:, 0].tolist():
                if broken_by[row] is None:
                    broken_by[row], distance[row] = name, float(verdicts.distance[row])
        columns: dict[str, Any] = {
            "index": self.index.tolist(),
            "label": self.split.labels.tolist(),
            "prediction": self.predictions.tolist(),
            "broken_by": pa.array(broken_by, pa.string()),
            "distance": pa.array(distance, pa.float32()),
        }
        for name, verdicts in self.verdicts.items():
            columns[f"stands_{name}"] = (self.right & ~verdicts.broken).tolist()
        return pa.table(columns)


def evaluate(
    model: nn.Module,
    split: Split,
    attacks: Mapping[str, Attack],
    *,
    seed: int = 0,
    index: Tensor | None = None,
    console: Console | None = None,
) -> Evaluation:
    """Run each attack on all images that are right while clean.

    Args:
        model: takes images in [0, 1], returns logits; its modes are restored.
        split: images and labels, on the model's device.
        attacks: by the names they get in the results.
        seed: of all random numbers, which are further keyed by attack, restart and image.
        index: each image's place in the whole test set; None means 0..n-1.
        console: where to show progress; None shows none.
    """
    index = torch.arange(len(split)) if index is None else index
    found = Evaluation(split, index, predict(model, split.images))
    right = found.right
    with progress_bar(console or Console(quiet=True)) as bar:
        for name, attack in attacks.items():
            restarts = getattr(attack, "restarts", 1)
            task = bar.add_task(name, total=restarts * int(right.sum()))
            started = time.perf_counter()
            with Passes(model) as passes:
                found.verdicts[name] = run_attack(
                    model,
                    split.images,
                    split.labels,
                    right,
                    attack,
                    name=name,
                    seed=seed,
                    index=index,
                    advance=lambda images, task=task: bar.advance(task, images),  # type: ignore[misc]
                )
            found.seconds[name], found.passes[name] = time.perf_counter() - started, int(passes.total)
            bar.remove_task(task)
    return found


def interval(accuracy: float, n: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy measured on ``n`` sampled images (Wilson, 1927)."""
    z = 1.959963984540054
    middle = (accuracy + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(accuracy * (1 - accuracy) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def evaluate_run(
    run: str | Path,
    *,
    data: str | None = None,
    attacks: Sequence[str] = DEFAULT,
    eps: Eps | None = None,
    norm: Norm | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str = "auto",
    out: str | Path | None = None,
    model: nn.Module | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Evaluate a run's weights on test images, and write evaluation.json and examples.parquet.

    Args:
        run: a run directory.
        data: the data set; None means the one that the run was trained on.
        attacks: short names, as ``parse_attack`` reads them.
        eps, norm: the threat; None means the one that was trained against.
        limit: evaluate a stratified sample of so many images, and report 95 % intervals.
        seed: of the sample and of the attacks.
        device: "auto", "cpu", "cuda" and the like.
        out: where to write; None means the run directory, where an earlier evaluation is kept under another name.
        model: the net, for a net of your own.
        console: where to show progress.

    Returns:
        What evaluation.json holds.

    Raises:
        ValueError: run, data, threat or attacks can't be used together.
    """
    folder = Path(run)
    record = runs.read_record(folder)
    eps = record.eps if eps is None else eps
    norm = norm or ("l2" if record.norm == "l2" else "linf")
    if eps is None:
        raise ValueError(f"{folder} was trained without a threat: give one, such as --eps 8/255")
    if not attacks:
        raise ValueError("no attack was named: give one or more, such as --attacks fgsm pgd-20")
    parsed = {spec: parse_attack(spec, eps, norm) for spec in attacks}
    check_writable(Path(out) if out else folder)
    place = pick_device(device)
    net = runs.load(folder, model).to(place)
    test = load_test(folder, record, data)
    split, index = sample(test, limit, seed)
    refuse_seen(folder, test, split)
    found = evaluate(net, split.to(place), parsed, seed=seed, index=index, console=console)
    result = found.summary()
    if len(split) < len(test.test):
        names = ("clean_accuracy", "robust_accuracy")
        result["interval_95"] = {name: interval(result[name], len(split)) for name in names}
    result |= {
        "threat": {"norm": norm, "eps": float(eps)},
        "data": data or record.data,
        "seed": seed,
        "weights": record.weights,
        "epoch": record.epoch,
        "method": record.method,
        "provenance": provenance(place),
    }
    write_results(Path(out) if out else folder, result, found.ledger())
    return result


def write_results(folder: Path, result: dict[str, Any], ledger: pa.Table) -> None:
    """Write both files; what an earlier evaluation left there is kept as evaluation.1.json and so on.

    Raises:
        ValueError: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / RESULT).exists():
            number = next(n for n in range(1, 10**6) if not (folder / f"evaluation.{n}.json").exists())
            for name in (LEDGER, RESULT):
                if (folder / name).exists():
                    stem, suffix = name.split(".")
                    (folder / name).rename(folder / f"{stem}.{number}.{suffix}")
        replace_file(folder / LEDGER, lambda path: pq.write_table(ledger, path))
        write_json(folder / RESULT, result)
    except OSError as error:
        raise ValueError(f"cannot write to {folder} ({error.strerror}): choose another --out") from None


def read_result(folder: Path) -> dict[str, Any]:
    """A folder's evaluation.json.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    if not (folder / RESULT).is_file():
        raise ValueError(f"{folder} has not been evaluated: run `toughen evaluate {folder}` first")
    result = read_json(folder / RESULT)
    wanted = {"clean_accuracy", "robust_accuracy", "attacks", "threat", "images"}
    if not isinstance(result, dict) or not wanted <= result.keys():
        raise ValueError(f"{folder / RESULT} is damaged: evaluate the run again")
    return result

"""Writes adversarial images as a data set: a parquet file that `datasets` can read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
import torch
from rich.console import Console
from torch import Tensor

from toughen.attacks.base import Attack
from toughen.core.gradients import mode
from toughen.core.rng import ImageNoise
from toughen.engine.device import Precision, pick_device
from toughen.engine.fixed_batch import FixedBatchModel, batch_size_for, search_precision
from toughen.evaluation.call_attack import call_attack
from toughen.evaluation.config import EvaluationConfig
from toughen.evaluation.harness import Harness, as_floats, chunk_size, predicted
from toughen.evaluation.job import check_fit
from toughen.evaluation.plan import with_early_stop
from toughen.evaluation.suite import parse_attack
from toughen.evaluation.target import EvaluationTarget, find_target
from toughen.runs.files import check_writable, replace_file
from toughen.utils.progress import ProgressLines, progress_bar


def attack_images(
    spec: str | Path,
    *,
    attack: str,
    out: str | Path,
    device: str = "auto",
    precision: Precision | Literal["auto"] = "auto",
    batch_size: int | None = None,
    console: Console | None = None,
    **which: Any,
) -> str:
    """Attack test images and write the adversarial images with their indices, labels and predictions.

    Args:
        spec: a run directory, ``package.module:function``, ``timm:NAME`` or a net of toughen's, such as ``resnet18``.
        attack: a short name, as ``parse_attack`` reads it.
        out: the parquet file; an image is float32 [c, h, w] in [0, 1], because bytes would round the perturbation.
        device, precision, batch_size: as in an evaluation.
        console: where to show progress.
        which: data, weights, eps, norm, limit, seed, model, image_size and resize, as ``find_target`` takes them.

    Returns:
        A line that says what was written.

    Raises:
        ValueError: model, data, threat and attack can't be used together, or ``out`` exists or can't be written.
    """
    path = Path(out)
    if path.exists():
        raise ValueError(f"{path} is there already: choose another --out")
    if path.suffix != ".parquet":
        raise ValueError(f"{path} must end in .parquet: adversarial images are written as parquet")
    check_writable(path.parent)
    EvaluationConfig(limit=which.get("limit"), precision=precision, batch_size=batch_size).check()
    torch_device = pick_device(device)
    target = find_target(spec, **which)
    parsed = with_early_stop(parse_attack(attack, target.threat))
    net, split = target.net.to(torch_device), target.split.to(torch_device)
    check_fit(net, target, precision)
    chosen = search_precision(net, as_floats(split.images[:1]), precision)
    model = FixedBatchModel(net, batch_size_for(net, split.images, batch_size), chosen)
    harness = Harness(model, split.images, split.labels, target.index, which.get("seed", 0))
    columns = _columns(harness, parsed, attack, target, console)
    _write(path, columns, target)
    predictions, labels = columns["adversarial_prediction"], columns["label"]
    wrong = sum(prediction != label for prediction, label in zip(predictions, labels, strict=True))
    return f"{path}: {len(split):,} images under {attack}, {wrong:,} of them misclassified"


def _columns(
    harness: Harness, attack: Attack, name: str, target: EvaluationTarget, console: Console | None
) -> dict[str, list[Any]]:
    """Attack all images, chunk by chunk, and return the table's columns."""
    clean = harness.predict().tolist()
    images: list[Tensor] = []
    predictions: list[Tensor] = []
    distances: list[Tensor] = []
    rows = torch.arange(len(harness.images), device=harness.images.device)
    with progress_bar(console or Console(quiet=True)) as bar, mode(harness.model, "eval"):
        task, lines = bar.add_task(name, total=len(rows)), ProgressLines(bar.console, name, "images", len(rows))
        for chunk in rows.split(chunk_size(harness.images, harness.model.size)):
            x = harness.floats(chunk)
            noise = ImageNoise(harness.seed, name, harness.index[chunk.cpu()].tolist())
            x_adv, distance = call_attack(attack, name, harness.model, x, harness.labels[chunk], noise)
            distances.append(distance.cpu())
            written = x_adv.float()  # the predictions are those of the images as they are written
            predictions.append(predicted(harness.model.exact(written.to(x.dtype))).cpu())
            images.append(written.cpu())
            bar.advance(task, len(chunk))
            lines.advance(len(chunk))
    return {
        "index": target.index.tolist(),
        "label": harness.labels.tolist(),
        "prediction": clean,
        "adversarial_prediction": torch.cat(predictions).tolist(),
        "distance": torch.cat(distances).tolist(),
        "image": list(torch.cat(images).numpy()),
    }


def _write(path: Path, columns: dict[str, list[Any]], target: EvaluationTarget) -> None:
    """Write the parquet file; labels and predictions have class names, where these are known."""
    from datasets import Array3D, ClassLabel, Dataset, Features, Value  # the import takes a second

    shape = tuple(target.split.images.shape[1:])
    class_type = ClassLabel(names=list(target.class_names)) if target.class_names else Value("int64")
    features = Features(
        {
            "index": Value("int64"),
            "label": class_type,
            "prediction": class_type,
            "adversarial_prediction": class_type,
            "distance": Value("float32"),
            "image": Array3D(shape=shape, dtype="float32"),
        }
    )
    table = Dataset.from_dict(columns, features=features)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(
        path, lambda temporary: pq.write_table(table.with_format("arrow")[:], temporary)
    )  # to_parquet would show a bar

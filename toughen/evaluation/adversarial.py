"""Writes adversarial images as a data set: a parquet file that `datasets` can read, or a folder of PNG files."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
import torch
from rich.console import Console
from torch import Tensor

from toughen.attacks.base import Attack
from toughen.core.gradients import mode
from toughen.core.rng import ImageNoise
from toughen.core.threat import Threat
from toughen.core.types import Images
from toughen.engine.batch_size import batch_size_for
from toughen.engine.device import Precision, pick_device
from toughen.engine.fixed_batch import FixedBatchModel, search_precision
from toughen.evaluation.call_attack import call_attack
from toughen.evaluation.config import EvaluationConfig
from toughen.evaluation.details import class_name, png
from toughen.evaluation.harness import Harness, as_floats, chunk_size, predicted
from toughen.evaluation.job import check_fit
from toughen.evaluation.plan import with_early_stop
from toughen.evaluation.suite import parse_attack
from toughen.evaluation.target import EvaluationTarget, find_target
from toughen.runs.files import check_writable, replace_file, temporary_name
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
        out: a parquet file, where an image is float32 [c, h, w] in [0, 1]; or a folder for PNG files, whose images are
            rounded to 8 bits inside the threat, and predicted after that.
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
    if path.suffix not in (".parquet", ""):
        raise ValueError(f"{path} must end in .parquet, or be a folder, for 8-bit PNG files")
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
    if path.suffix:
        columns = _columns(harness, parsed, attack, target, console)
        _write(path, columns, target)
        return f"{path}: {len(split):,} images under {attack}, {_wrong(columns):,} of them misclassified"
    if split.images.shape[1] not in (1, 3):
        raise ValueError(
            f"PNG files hold 1 or 3 channels, and the images have {split.images.shape[1]}: give a .parquet"
        )
    columns = _columns(harness, parsed, attack, target, console, target.threat)
    _write_pictures(path, columns, target.class_names)
    before = _wrong(columns, "unrounded_prediction")
    return (
        f"{path}: {len(split):,} PNG files under {attack}, {_wrong(columns):,} of them misclassified, "
        f"{before:,} before they were rounded to 8 bits"
    )


def _wrong(columns: dict[str, list[Any]], predictions: str = "adversarial_prediction") -> int:
    """The number of adversarial images that are misclassified."""
    pairs = zip(columns[predictions], columns["label"], strict=True)
    return sum(prediction != label for prediction, label in pairs)


def eight_bit(x_adv: Images, x: Images, threat: Threat) -> Images:
    """Adversarial images rounded to multiples of 1/255, none of which leaves the threat.

    A value goes to the nearest multiple. Where that is outside the threat, it goes to the next one towards ``x``: with
    L-inf only the pixels that would leave, with L2 all pixels of an image that would leave.

    Args:
        x_adv: adversarial images, [n, c, h, w] in [0, 1].
        x: the images that were attacked; multiples of 1/255.
        threat: the threat that ``x_adv`` obeys.
    """
    tolerance = 1e-3  # of a level: float32 keeps no multiple of 1/255 exactly
    nearest = (255 * x_adv).round() / 255
    towards = torch.where(x_adv > x, (255 * x_adv + tolerance).floor(), (255 * x_adv - tolerance).ceil()) / 255
    if threat.norm == "linf":
        outside = (nearest - x).abs() > threat.eps + tolerance / 255
    else:
        outside = (threat.distance(nearest, x) > threat.eps).view(-1, 1, 1, 1)
    return torch.where(outside, towards, nearest)


def _columns(
    harness: Harness,
    attack: Attack,
    name: str,
    target: EvaluationTarget,
    console: Console | None,
    rounded_in: Threat | None = None,
) -> dict[str, list[Any]]:
    """Attack all images, chunk by chunk, and return the table's columns.

    With a threat to round in, images are rounded to 8 bits, and there are also the predictions before that.
    """
    clean = harness.predict().tolist()
    images: list[Tensor] = []
    predictions: list[Tensor] = []
    unrounded: list[Tensor] = []
    distances: list[Tensor] = []
    rows = torch.arange(len(harness.images), device=harness.images.device)
    with progress_bar(console or Console(quiet=True)) as bar, mode(harness.model, "eval"):
        task, lines = bar.add_task(name, total=len(rows)), ProgressLines(bar.console, name, "images", len(rows))
        for chunk in rows.split(chunk_size(harness.images, harness.model.size)):
            x = harness.floats(chunk)
            noise = ImageNoise(harness.seed, name, harness.index[chunk.cpu()].tolist())
            x_adv, distance = call_attack(attack, name, harness.model, x, harness.labels[chunk], noise)
            if rounded_in is not None:
                unrounded.append(predicted(harness.model.exact(x_adv)).cpu())
                x_adv = eight_bit(x_adv, x, rounded_in)
                distance = rounded_in.distance(x_adv, x)
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
        **({"unrounded_prediction": torch.cat(unrounded).tolist()} if unrounded else {}),
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


def _write_pictures(folder: Path, columns: dict[str, list[Any]], class_names: Sequence[str]) -> None:
    """Write test/CLASS/INDEX.png and images.csv; the folder appears when it is complete.

    CLASS is a class's number if one of the names can be no folder's. Names come from files of strangers.
    """
    usable = all(re.fullmatch(r"(?!\.)[^/\\\0]+", name) for name in class_names)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(folder)
    try:
        temporary.mkdir()
        with (temporary / "images.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["file", *(name for name in columns if name not in ("index", "image"))])
            for values in zip(*columns.values(), strict=True):
                row = dict(zip(columns, values, strict=True))
                index, image, distance = row.pop("index"), row.pop("image"), row.pop("distance")
                names = [class_name(label, class_names) for label in row.values()]
                place = Path("test", names[0] if usable else str(row["label"]), f"{index}.png")
                (temporary / place).parent.mkdir(parents=True, exist_ok=True)
                (temporary / place).write_bytes(png(torch.from_numpy(image)))
                table.writerow([place.as_posix(), *names, distance])
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise

"""What an evaluation writes for its report.

gallery.parquet has some evaluated images, their adversarial images and the differences, as PNG; diagnostics.json has
diagnostics on a few images each.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from toughen.attacks.adaptive import Adaptive
from toughen.attacks.base import Attack
from toughen.core.rng import derive_seed
from toughen.data import stratified
from toughen.evaluation.diagnostics.cases import Case
from toughen.evaluation.diagnostics.common import exact_logits
from toughen.evaluation.diagnostics.names import confusion_matrices, eps_curve, steps_curve, surface
from toughen.evaluation.harness import Harness, chunk_size, predicted
from toughen.evaluation.job import Job
from toughen.evaluation.plan import AttackRound, attack_rounds
from toughen.evaluation.result import Evaluation
from toughen.evaluation.target import EvaluationTarget
from toughen.utils.progress import progress_bar

MULTIPLES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 4.0)  # of the threat's radius
STEPS = (1, 2, 5, 10, 20, 50)
MANY_CLASSES = 100  # with more, a confusion matrix of a sample is mostly zeros
DIAGNOSTICS: dict[str, tuple[int, Callable[[Case], dict[str, Any]]]] = {  # size of the sample, and the diagnostic
    "eps": (100, partial(eps_curve, multiples=MULTIPLES)),
    "steps": (100, partial(steps_curve, steps=STEPS)),
    "surface": (16, partial(surface, keep=0)),
    "confusion": (200, confusion_matrices),
}
OUTCOMES = {"broken": 8, "stands": 8, "wrong": 4}  # how many images: broken, robust, and misclassified without attack
LARGE = 96 * 96  # pixels; of images with as many, half the number is shown
TEXTS = ("label_name", "prediction_name", "attacked_prediction_name", "outcome", "attack")
PICTURES = ("image", "attacked", "difference")


def collect_report_data(job: Job, evaluation: Evaluation) -> tuple[pa.Table, dict[str, dict[str, Any]]]:
    """The table of gallery.parquet, and diagnostics by name, as `toughen diagnose` makes them.

    The attacks run in the evaluation's batches, so that they give the same images.
    """
    split, target = evaluation.split, job.target
    harness = Harness(job.model(), split.images, split.labels, evaluation.index, job.config.seed)
    diagnostics = {}
    classes = exact_logits(harness.model, harness.floats(torch.arange(1, device=job.device))).shape[1]
    with progress_bar(job.console or Console(quiet=True)) as bar:
        task = bar.add_task("gallery", total=1 + len(DIAGNOSTICS))
        images = _gallery(harness, evaluation, target, job.attacks)
        for name, (count, diagnostic) in DIAGNOSTICS.items():
            if name != "confusion" or classes <= MANY_CLASSES:
                bar.update(task, advance=1, description=name)
                diagnostics[name] = _diagnose(harness, target, count, diagnostic)
    return images, diagnostics


def _diagnose(
    harness: Harness, target: EvaluationTarget, count: int, diagnostic: Callable[[Case], dict[str, Any]]
) -> dict[str, Any]:
    """A diagnostic of a stratified sample of at most ``count`` of the evaluated images."""
    model, labels, seed = harness.model, harness.labels, harness.seed
    rows = stratified(labels, min(count, len(labels)), seed)
    index, here = harness.index[rows], rows.to(labels.device)
    case = Case(
        name=target.name, model=model, x=harness.floats(here), y=labels[here], index=index, threat=target.threat,
        data=target.data, seed=seed,
    )  # fmt: skip
    started, before = time.perf_counter(), model.counts.total
    result = diagnostic(case)
    about = {
        "images": len(case.y),
        "threat": {"norm": case.threat.norm, "eps": float(case.threat.eps)},
        "seconds": round(time.perf_counter() - started, 3),
        "passes": model.counts.total - before,
        "by": "evaluate",
        "data": case.data,
        "weights": [target.weights] if target.weights else [],
        "seed": seed,
        "precision": model.precision,
    }
    return result | {"about": about, "index": index.tolist()}


def _gallery(
    harness: Harness, evaluation: Evaluation, target: EvaluationTarget, attacks: Mapping[str, Attack]
) -> pa.Table:
    """A random sample of broken images, of robust images, and of images that are misclassified without an attack.

    A broken image's adversarial image is that of the round that broke it. A robust image's is that of the first
    round, which did not break it, of the last attack that does not couple the images of a batch, if there is one.
    """
    samples = _samples(evaluation, harness.seed)
    adversarial: dict[int, tuple[str, Tensor]] = {}
    for attack_round, rows in to_run(evaluation, samples, attacks):
        for together in _batches(harness, evaluation, attack_round, rows):
            result = harness.attack(attack_round, torch.tensor(together, device=harness.labels.device), keep=True)
            assert result.x_adv is not None
            pairs = zip(together, result.x_adv, strict=True)
            adversarial |= {row: (attack_round.part, x_adv) for row, x_adv in pairs if row in rows}
    table = [
        _row(harness, evaluation, target, row, outcome, adversarial.get(row))
        for outcome, rows in samples.items()
        for row in rows
    ]
    about = {"norm": target.threat.norm, "eps": float(target.threat.eps), "data": target.data}
    return pa.Table.from_pylist(table, _schema().with_metadata({"about": json.dumps(about)}))


def _schema() -> pa.Schema:
    numbers = {"index": pa.int64(), "label": pa.int64(), "prediction": pa.int64(), "attacked_prediction": pa.int64()}
    kinds = numbers | dict.fromkeys(TEXTS, pa.string()) | {"distance": pa.float32(), "gain": pa.float32()}
    return pa.schema(kinds | dict.fromkeys(PICTURES, pa.binary()))


def _samples(evaluation: Evaluation, seed: int) -> dict[str, list[int]]:
    """The rows of the images that are shown, by outcome."""
    small = evaluation.split.images[0, 0].numel() < LARGE
    masks = {
        "broken": evaluation.correct & ~evaluation.robust,
        "stands": evaluation.robust,
        "wrong": ~evaluation.correct,
    }
    index = evaluation.index.tolist()
    samples = {}
    for outcome, count in OUTCOMES.items():
        rows = masks[outcome].nonzero()[:, 0].tolist()
        shuffled = sorted(rows, key=lambda row: derive_seed("gallery", seed, index[row]))
        sample = shuffled[: count if small else count // 2]
        samples[outcome] = sorted(sample, key=lambda row: (int(evaluation.split.labels[row]), index[row]))
    return samples


def to_run(
    evaluation: Evaluation, rows: Mapping[str, Sequence[int]], attacks: Mapping[str, Attack]
) -> list[tuple[AttackRound, list[int]]]:
    """The rounds that must be run again for the sampled rows, each with its rows."""
    plans = {name: attack_rounds(name, attack) for name, attack in attacks.items()}
    chosen: dict[tuple[str, int], list[int]] = {}
    for row in rows["broken"]:
        name = next(name for name in plans if bool(evaluation.state.of(name).broken[row]))
        chosen.setdefault((name, int(evaluation.state.of(name).broken_by[row])), []).append(row)
    if rows["stands"]:
        single = [name for name, attack in attacks.items() if not getattr(attack, "batchwise", False)]
        chosen.setdefault(((single or list(plans))[-1], 0), []).extend(rows["stands"])
    return [(plans[name][number], group) for (name, number), group in chosen.items()]


def _batches(
    harness: Harness, evaluation: Evaluation, attack_round: AttackRound, rows: list[int]
) -> Iterator[list[int]]:
    """The rows to attack together: where an attack couples the images of a batch, all that the evaluation did."""
    attack = attack_round.attack
    if not getattr(attack, "batchwise", False):
        yield rows
        return
    progress = evaluation.state.of(attack_round.key)
    attacked = evaluation.correct.cpu() & (~progress.broken | (progress.broken_by >= attack_round.number))
    for chunk in attacked.nonzero()[:, 0].split(chunk_size(harness.images, harness.model.size)):
        for part in chunk.split(attack.group if isinstance(attack, Adaptive) else len(chunk)):
            if not set(rows).isdisjoint(together := part.tolist()):
                yield together


def _row(
    harness: Harness,
    evaluation: Evaluation,
    target: EvaluationTarget,
    row: int,
    outcome: str,
    adversarial: tuple[str, Tensor] | None,
) -> dict[str, Any]:
    """One image's row of the table; ``adversarial`` is the attack's name and its image [c, h, w]."""
    names = target.class_names
    x = harness.floats(torch.tensor([row], device=evaluation.split.labels.device))
    label, prediction = int(evaluation.split.labels[row]), int(evaluation.predictions[row])
    columns: dict[str, Any] = {"index": int(evaluation.index[row]), "label": label, "prediction": prediction}
    columns |= {"outcome": outcome, "image": png(x[0])}
    columns |= {"label_name": class_name(label, names), "prediction_name": class_name(prediction, names)}
    if adversarial is None:
        return columns
    attack, x_adv = adversarial
    after = int(predicted(exact_logits(harness.model, x_adv[None])))
    delta = x_adv - x[0]
    gain = 0.5 / max(float(delta.abs().max()), 1e-6)
    columns |= {"attack": attack, "attacked_prediction": after, "attacked_prediction_name": class_name(after, names)}
    columns |= {"attacked": png(x_adv), "difference": png(0.5 + gain * delta), "gain": gain}
    return columns | {"distance": float(target.threat.distance(x_adv[None], x)[0])}


def class_name(number: int, names: Sequence[str]) -> str:
    """A class's name; its number where it has no name; "none" for -1, a prediction with logits that are not finite."""
    if number < 0:
        return "none"
    return names[number] if number < len(names) else str(number)


def png(image: Tensor) -> bytes:
    """One image [c, h, w] in [0, 1] as a PNG: RGB with three channels, else the first channel in grey."""
    pixels = image.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
    grey = len(pixels) != 3
    picture = Image.fromarray(pixels[0].numpy()) if grey else Image.fromarray(pixels.permute(1, 2, 0).numpy())
    file = io.BytesIO()
    picture.save(file, "png", optimize=True)
    return file.getvalue()

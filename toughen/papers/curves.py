"""Measures the curves of a plot for one trained run, as numbers: x values, and a series for each line."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import yaml
from torch import nn

from toughen import data as data_sets
from toughen import runs
from toughen.attacks.logit_matrix import LogitMatrix
from toughen.core.types import Images, Labels
from toughen.engine.batch_size import batch_size_for
from toughen.engine.device import provenance
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation.diagnostics import (
    accuracy_by_eps,
    accuracy_by_restarts,
    accuracy_by_steps,
    attack_entropy,
    loss_by_eps,
    loss_surface,
    nuclear_norms,
)
from toughen.evaluation.diagnostics.common import attack_chunks, correct
from toughen.evaluation.harness import as_floats
from toughen.papers.datasets import some
from toughen.papers.measure import Measured, MeasuredRun
from toughen.papers.progress_board import ProgressBoard, logit_distances
from toughen.papers.published.exhibits import Plot
from toughen.runs.files import read_tensors
from toughen.training.checkpoint import kept_file
from toughen.training.folder import CONFIG
from toughen.utils.units import Fraction

SURFACE_IMAGES, SURFACE_POINTS = 64, 9


def curve(subject: MeasuredRun, plot: Plot, board: ProgressBoard) -> Measured:
    """Everything that a plot draws for one model.

    Args:
        subject: the run and the images.
        plot: the plot.
        board: the progress display.

    Returns:
        The value has "x" (the axis's name), "at" (the x values) and "series" (for each name as many numbers); or, for
        values over two variables, "rows", "columns" and "values"; and "note", a remark for the reader.
    """
    started = time.perf_counter()
    value = KINDS[plot.curve](subject, plot, board)
    images = len(subject.y) if plot.tested and plot.curve != "surface" else None  # its note gives the number of images
    return Measured(value, images, time.perf_counter() - started, provenance(subject.place))


def _eps(subject: MeasuredRun, plot: Plot, board: ProgressBoard) -> dict[str, Any]:
    radii = [Fraction(str(radius)) for radius in plot.at]
    curve = accuracy_by_eps(subject.fixed_batch, subject.x, subject.y, subject.attack(plot.attack), radii)
    return {"x": "eps", "at": list(plot.at), "series": {"accuracy": curve["accuracy"]}}


def _steps(subject: MeasuredRun, plot: Plot, board: ProgressBoard) -> dict[str, Any]:
    counts = [int(count) for count in plot.at]
    counts = counts if subject.scale.cap is None else list(range(1, subject.scale.cap + 1))
    curve = accuracy_by_steps(subject.fixed_batch, subject.x, subject.y, subject.attack(plot.attack), counts)
    return {"x": "steps", "at": counts, "series": {"accuracy": curve["accuracy"]}}


def _restarts(subject: MeasuredRun, plot: Plot, board: ProgressBoard) -> dict[str, Any]:
    count = min(max(int(each) for each in plot.at), subject.scale.cap or 10**6)
    curve = accuracy_by_restarts(subject.fixed_batch, subject.x, subject.y, subject.attack(plot.attack), count)
    return {"x": "random starts", "at": curve["restarts"], "series": {"accuracy": curve["accuracy"]}}


def _loss(subject: MeasuredRun, plot: Plot, board: ProgressBoard) -> dict[str, Any]:
    return _losses(subject, subject.fixed_batch, subject.x, subject.y, plot.at, plot.attack)


def _losses(
    subject: MeasuredRun, model: nn.Module, x: Images, y: Labels, radii: Sequence[str | int], attack: str
) -> dict[str, Any]:
    steps = int(getattr(subject.attack(attack or "pgd-40"), "steps", 40))
    at = [Fraction(str(radius)) for radius in radii]
    losses = loss_by_eps(model, x, y, subject.threat, at, steps=steps)
    return {"x": "eps", "at": [str(radius) for radius in radii], "series": losses["loss"]}


WATCHED_RADII = ("0", "0.05", "0.1", "0.15", "0.2", "0.25", "0.3")


def _watched(subject: MeasuredRun, plot: Plot, board: ProgressBoard) -> dict[str, Any]:
    """Losses on validation images for each of the kept weights, and the distance of logits during training."""
    x, y = validation_images(subject)
    series: dict[str, Any] = {}
    for name, model in kept_models(subject):
        losses = _losses(subject, model, x, y, WATCHED_RADII, "pgd-40")["series"]
        series |= {f"{attack}, step {name}": values for attack, values in losses.items()}
        board.at(len(series) / 6)
    distances = logit_distances(subject.run)
    at = sorted(distances)
    return {
        "x": "eps", "at": list(WATCHED_RADII), "series": series, "note": f"losses on {len(y):,} validation images",
        "also": {"x": "step", "at": at, "series": {"logit distance": [distances[step] for step in at]}},
    }  # fmt: skip


def validation_images(subject: MeasuredRun) -> tuple[Images, Labels]:
    """The held-out images that the run chose its weights with."""
    settings = yaml.safe_load((subject.run / CONFIG).read_text(encoding="utf-8"))
    # settings that are null are not in the file
    split = data_sets.load(subject.data).split(settings.get("validation"), settings["seed"])[1].to(subject.place)
    return as_floats(split.images), split.labels


def kept_models(subject: MeasuredRun) -> Iterator[tuple[int, FixedBatchModel]]:
    """For each of the subject's moments, in order: the step or epoch, and the net with the weights of that moment.

    Raises:
        ValueError: the weights are missing.
    """
    net = copy.deepcopy(subject.target.net)
    for moment in subject.moments:
        path = kept_file(subject.run, moment)
        if not path.is_file():
            raise ValueError(f"{path} is missing: remove {subject.run.parent}, and the model is trained again")
        net.load_state_dict(read_tensors(path)[0])
        yield int(str(moment).removeprefix("epoch ")), FixedBatchModel(net, batch_size_for(net, subject.x))


def _surface(subject: MeasuredRun, plot: Plot, board: ProgressBoard) -> dict[str, Any]:
    half = SURFACE_POINTS // 2
    along = [float(subject.threat.eps) * step / half for step in range(-half, half + 1)]
    index, _ = some(subject.y, SURFACE_IMAGES)  # of all classes, even if the set is sorted
    surface = loss_surface(
        subject.fixed_batch, subject.x[index], subject.y[index], subject.threat, along=along, across=along, keep=0
    )
    names = [f"{step / half:+.2f}" for step in range(-half, half + 1)]
    return {
        "x": "along the gradient, in eps", "rows": names, "columns": names, "values": surface["mean"],
        "note": f"mean loss in nats over {min(SURFACE_IMAGES, len(subject.y))} images; columns: across, in eps",
    }  # fmt: skip


def _confusion(subject: MeasuredRun, plot: Plot, board: ProgressBoard) -> dict[str, Any]:
    names = list(subject.target.class_names)
    tables = []
    for kind in ("nuclear", "frobenius"):
        attack = subject.scale.shorten(LogitMatrix(eps=subject.threat.eps, norm="linf", kind=kind))
        result = attack_entropy(subject.fixed_batch, subject.x, subject.y, {kind: attack})[kind]
        note = f"{kind} norm: images by true class (rows) and predicted class (columns)"
        tables.append({"x": kind, "rows": names, "columns": names, "values": result["confusion"], "note": note})
    return {"tables": tables}


def _nuclear(subject: MeasuredRun, plot: Plot, board: ProgressBoard) -> dict[str, Any]:
    norms = nuclear_norms(subject.fixed_batch, subject.x, subject.y, subject.attack(plot.attack), batch=16)
    means = [norms["robust"]["per_image"], norms["broken"]["per_image"]]
    return {
        "x": "images", "at": ["robust", "broken"], "series": {"nuclear norm": means},
        "note": f"of batches of {norms['batch']} images, divided by the number of images",
    }  # fmt: skip


def _old_weights(subject: MeasuredRun, plot: Plot, board: ProgressBoard) -> dict[str, Any]:
    """The final model's accuracy on images made with the weights of each kept epoch."""
    epochs, accuracies = _of_kept(subject, plot, board, subject.fixed_batch)
    return {"x": "attacks from epoch", "at": epochs, "series": {"final model's accuracy": accuracies}}


def _by_epoch(subject: MeasuredRun, plot: Plot, board: ProgressBoard) -> dict[str, Any]:
    """Training loss by epoch; where the plot names an attack, accuracy of each kept epoch's weights under it."""
    if plot.attack:
        epochs, accuracies = _of_kept(subject, plot, board, None)
        return {"x": "epoch", "at": epochs, "series": {"accuracy": accuracies}}
    lines = runs.read_history(subject.run)
    at = [line["epoch"] + 1 for line in lines]
    return {"x": "epoch", "at": at, "series": {"training loss": [line["loss"] for line in lines]}}


def _of_kept(
    subject: MeasuredRun, plot: Plot, board: ProgressBoard, target: FixedBatchModel | None
) -> tuple[list[int], list[float]]:
    """Accuracies of ``target`` (None: of the attacked net itself) on images made with each kept epoch's weights."""
    attack, epochs, accuracies = subject.attack(plot.attack), [], []
    for epoch, source in kept_models(subject):
        correct_count = 0
        for rows, x_adv in attack_chunks(source, subject.x, subject.y, attack, 0):
            correct_count += int(correct(source if target is None else target, x_adv, subject.y[rows]).sum())
        epochs.append(epoch + 1)
        accuracies.append(correct_count / len(subject.y))
        board.at(0.5)
    return epochs, accuracies


KINDS: dict[str, Callable[[MeasuredRun, Plot, ProgressBoard], dict[str, Any]]] = {
    "eps": _eps,
    "steps": _steps,
    "restarts": _restarts,
    "loss": _loss,
    "watched": _watched,
    "surface": _surface,
    "confusion": _confusion,
    "nuclear": _nuclear,
    "old weights": _old_weights,
    "by epoch": _by_epoch,
}

"""Measures the quantities of one trained run: accuracies, times, entropies, distances."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from toughen import runs
from toughen.attacks.base import Attack
from toughen.attacks.logit_matrix import LogitMatrix
from toughen.attacks.transfer import Transfer
from toughen.core.gradients import input_gradient, mode
from toughen.core.objectives import cross_entropy
from toughen.core.rng import ImageNoise
from toughen.core.threat import Threat
from toughen.core.types import Images, Labels, Real
from toughen.engine.batch_size import batch_size_for
from toughen.engine.device import pick_device, provenance
from toughen.engine.fixed_batch import FixedBatchModel, search_precision
from toughen.evaluation.diagnostics import attack_entropy
from toughen.evaluation.harness import as_floats
from toughen.evaluation.result import share
from toughen.evaluation.runner import measure
from toughen.evaluation.suite import parse_attack
from toughen.evaluation.target import EvaluationTarget, find_target
from toughen.methods.efgsm import start_along, to_boundary
from toughen.papers.datasets import some
from toughen.papers.progress_board import Evaluating, ProgressBoard
from toughen.papers.scales import Scale
from toughen.runs.files import read_json
from toughen.utils.units import Fraction

OF_TRAINING = ("gamma", "epoch seconds", "train seconds", "train hours")


@dataclass(frozen=True)
class Measured:
    """A figure, the number of images, the seconds that the measurement took, and its provenance."""

    value: Any
    images: int | None
    seconds: float
    provenance: dict[str, Any]


@dataclass
class MeasuredRun:
    """A trained run and the images that it is measured on.

    Attributes:
        run: its directory.
        data: the data set.
        eps: radius of the threat, as text.
        images: the number of test images (``datasets.some``); None means all.
        scale: the scale, which may shorten attacks.
        device: the device.
        moments: steps and epochs whose weights are measured, in the form of the setting ``keep_at``.
    """

    run: Path
    data: str
    eps: str
    images: int | None
    scale: Scale
    device: str
    moments: Sequence[int | str] = ()

    @cached_property
    def place(self) -> torch.device:
        return pick_device(self.device)

    @cached_property
    def threat(self) -> Threat:
        return Threat("linf", Fraction(self.eps))

    @cached_property
    def _all(self) -> EvaluationTarget:
        return find_target(self.run, data=self.data, eps=self.threat.eps, norm="linf")

    @cached_property
    def target(self) -> EvaluationTarget:
        whole = self._all
        index, _ = some(whole.split.labels, self.images)
        split = whole.split.take(index).to(self.place)
        return replace(whole, net=whole.net.to(self.place), split=split, index=whole.index[index])

    @property
    def drawn(self) -> str:
        """How its images were chosen from the test set."""
        return some(self._all.split.labels, self.images)[1]

    @property
    def x(self) -> Images:
        """The images, in [0, 1]."""
        return as_floats(self.target.split.images)

    @property
    def y(self) -> Labels:
        return self.target.split.labels

    @cached_property
    def fixed_batch(self) -> FixedBatchModel:
        """The model with a fixed batch size, as diagnostics call it."""
        return FixedBatchModel(self.target.net, batch_size_for(self.target.net, self.x))

    def attack(self, spec: str) -> Attack:
        """An attack by its short name, at this scale."""
        return self.scale.shorten(parse_attack(spec, self.threat))


def quantity(subject: MeasuredRun, of: str, source: Path | None, board: ProgressBoard) -> Measured:
    """Measure one quantity of a run.

    Args:
        subject: the run.
        of: as in ``toughen.papers.published.exhibits.Column``.
        source: for a black-box attack, the run whose adversarial images are used.
        board: the progress display.
    """
    if of in OF_TRAINING:
        return training(subject.run, of)
    started = time.perf_counter()
    if of == "clean":
        value = share(measure(subject.target.net, subject.target.split, {}).correct)
    elif of == "close":
        value = close(subject.fixed_batch, subject.x, subject.y, subject.threat)
    elif of == "close at start":
        index = subject.target.index.tolist()
        x_e = efgsm_start(subject.fixed_batch, subject.x, subject.y, subject.threat, subject.threat.eps / 2, index)
        value = close(subject.fixed_batch, x_e, subject.y, subject.threat)
    elif of.startswith("entropy "):
        value = entropy(subject, of.removeprefix("entropy "))
    else:
        value = accuracy(subject, of, source, board)
    return Measured(value, len(subject.y), time.perf_counter() - started, provenance(subject.place))


def accuracy(subject: MeasuredRun, of: str, source: Path | None, board: ProgressBoard) -> float:
    """Accuracy under one attack; its state is saved in the run's folder until it ends, so that a kill loses little."""
    attack, target = subject.attack(of), subject.target
    if source is not None:
        net = runs.load(source).to(subject.place)
        attack = Transfer(eps=subject.threat.eps, norm="linf", source=net, attack=attack)
    given: Any = subject.scale.precision
    precision = search_precision(target.net, as_floats(target.split.images[:1]), given)
    result = measure(
        target.net, target.split, {of: attack}, index=target.index, precision=precision, folder=subject.run,
        show=lambda evaluation, plans, console: Evaluating(board, evaluation, plans),
    )  # fmt: skip
    result.state.remove()
    return result.accuracy(of)


def training(run: Path, of: str) -> Measured:
    """The cost of training, from the run's own record."""
    lines = runs.read_history(run)
    seconds = sum(line["seconds"] for line in lines)
    value = {
        "gamma": sum(line["gamma"] for line in lines) / len(lines),
        "epoch seconds": seconds / len(lines),
        "train seconds": seconds,
        "train hours": seconds / 3600,
    }[of]
    return Measured(value, None, seconds, read_json(run / "provenance.json"))


def training_record(run: Path) -> dict[str, Any]:
    """How a run was trained: the number of epochs, their seconds, and the provenance.

    Raises:
        ValueError: the run's history is missing or damaged.
    """
    lines = runs.read_history(run)
    return {
        "epochs": len(lines),
        "seconds": round(sum(line["seconds"] for line in lines), 1),
        "provenance": read_json(run / "provenance.json"),
    }


def entropy(subject: MeasuredRun, kind: Any) -> float:
    """The entropy of the predicted classes under an attack on this norm, in units of log k."""
    attack = LogitMatrix(eps=subject.threat.eps, norm="linf", kind=kind)
    result = attack_entropy(subject.fixed_batch, subject.x, subject.y, {kind: subject.scale.shorten(attack)})
    return float(result[kind]["normalised"])


def close(model: FixedBatchModel, x: Images, y: Labels, threat: Threat) -> float:
    """The fraction of images that are misclassified or whose nearest linear boundary is within eps (eFGSM, Eq. 9)."""
    out = model.exact(x)
    _, nearest, _ = to_boundary(model, x, y, threat, out.shape[1] - 1)
    return share((out.argmax(1) != y) | (nearest <= threat.eps))


def efgsm_start(model: FixedBatchModel, x: Images, y: Labels, threat: Threat, sigma: Real, index: list[int]) -> Images:
    """x_e, the start of eFGSM's step, for test images: FGSM's direction replaces the history, which they do not have.

    Args:
        model: the trained model.
        x, y: images and their classes.
        threat: the threat.
        sigma: standard deviation of the start.
        index: the images' indices in the test set, which seed their noise.
    """
    with mode(model, "eval"):
        past = input_gradient(model, x, y, cross_entropy).gradient
    return start_along(threat, x, past, sigma, ImageNoise(0, "efgsm-start", index))

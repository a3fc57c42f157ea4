"""Helpers of the diagnostics: the model in blocks, attacks chunk by chunk, and figures as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toughen.attacks.base import Attack
from toughen.core.classifier import misclassified
from toughen.core.gradients import mode
from toughen.core.rng import ImageNoise
from toughen.core.types import Images, Labels, Logits, Mask, PerExample
from toughen.engine.batches import block_size
from toughen.engine.device import Precision
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation.call_attack import call_attack

NUMBERS = 2**22  # numbers in the images attacked at a time, so that memory does not grow with the data set


def blocked(model: nn.Module, x: Images, precision: Precision = "fp32") -> FixedBatchModel:
    """The model in blocks of the size that suits the images' device; one that is in blocks already stays as it is.

    Raises:
        ValueError: there are no images.
    """
    if not len(x):
        raise ValueError("there are no images to diagnose the model by: give some")
    return (
        model if isinstance(model, FixedBatchModel) else FixedBatchModel(model, block_size(x.device, len(x)), precision)
    )


def chunk_size(x: Images) -> int:
    """How many images to work on at a time."""
    return max(block_size(x.device, len(x)), NUMBERS // x.shape[1:].numel())


def exact_logits(model: FixedBatchModel, x: Images) -> Logits:
    """The judged model's own logits, in evaluation mode."""
    with mode(model, "eval"):
        return model.exact(x)


def classes(logits: Logits) -> Labels:
    """The predicted classes; -1 where a logit is not finite."""
    return torch.where(logits.isfinite().all(1), logits.argmax(1), -1)


def losses(logits: Logits, y: Labels) -> PerExample:
    """Each image's cross-entropy, in nats."""
    return F.cross_entropy(logits, y, reduction="none")


def correct(model: FixedBatchModel, x: Images, y: Labels) -> Mask:
    """Which images are classified correctly."""
    return ~misclassified(exact_logits(model, x), y)


def crafted(
    model: FixedBatchModel,
    x: Images,
    y: Labels,
    attack: Attack,
    seed: int,
    rows: Tensor | None = None,
    *,
    restart: int = 0,
    together: int | None = None,
) -> Iterator[tuple[Tensor, Images]]:
    """The attacked images, some at a time, with their places.

    The random numbers are keyed by seed, restart and place alone: every model, radius and number of steps meets the
    same ones, so that what differs between two figures is not their draws.

    Args:
        model: whose gradients are followed.
        x: clean images in [0, 1].
        y: their true classes.
        attack: is run in evaluation mode.
        seed: of the random numbers.
        rows: which images to attack; None means all.
        restart: which of the attack's random starts is the first.
        together: how many to attack at a time; None means what memory holds well.

    Raises:
        RuntimeError: the attack left its threat (unless it searches for the nearest image) or the box [0, 1].
    """
    name = type(attack).__name__
    for part in (torch.arange(len(x), device=x.device) if rows is None else rows).split(together or chunk_size(x)):
        if not len(part):
            return
        noise = ImageNoise(seed, "diagnostics", part.tolist(), restart)
        with mode(model, "eval"):
            any_distance = getattr(attack, "minimise", False)
            x_adv, _ = call_attack(attack, name, model, x[part], y[part], noise, any_distance=any_distance)
        yield part, x_adv


def standing_after(
    model: FixedBatchModel, x: Images, y: Labels, attack: Attack, seed: int, robust: Mask, restart: int = 0
) -> Mask:
    """Which of the images that stand still do after an attack on them."""
    left = robust.clone()
    for rows, x_adv in crafted(model, x, y, attack, seed, robust.nonzero()[:, 0], restart=restart):
        left[rows] = correct(model, x_adv, y[rows])
    return left


def ending_early(attack: Attack) -> Attack:
    """The attack as an evaluation runs it: an image is done once it is broken, where the attack can do that."""
    return with_settings(attack, stop_early=True) if hasattr(attack, "stop_early") else attack


def with_settings(attack: Attack, **settings: Any) -> Attack:
    """The attack with other settings.

    Raises:
        ValueError: it has no such setting.
    """
    for name in settings:
        if not hasattr(attack, name):
            raise ValueError(f"{type(attack).__name__} has no {name} to vary: choose another attack, such as PGD")
    return replace(attack, **settings)  # type: ignore[type-var]


def described(attack: Attack) -> dict[str, Any]:
    """An attack's name and settings, as JSON can hold them."""
    settings: dict[str, Any] = {"attack": type(attack).__name__}
    for field in fields(attack):  # type: ignore[arg-type]
        value = getattr(attack, field.name)
        if isinstance(value, float):
            value = float(value)
        settings[field.name] = value if isinstance(value, str | int | float | None) else type(value).__name__
    return settings


def number(value: Tensor | float) -> float | None:
    """A figure to seven digits; None where it is not finite, which JSON cannot hold."""
    value = float(value)
    return float(f"{value:.7g}") if math.isfinite(value) else None


def numbers(values: Tensor) -> list[Any]:
    """A tensor of figures as nested lists."""
    return _rounded(values.tolist())


def _rounded(values: list[Any]) -> list[Any]:
    return [_rounded(value) if isinstance(value, list) else number(value) for value in values]

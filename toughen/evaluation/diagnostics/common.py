"""Helpers of the diagnostics: the model in batches of one size, attacks chunk by chunk, and figures as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from toughen.attacks.base import Attack
from toughen.core.gradients import mode
from toughen.core.objectives import misclassified
from toughen.core.rng import ImageNoise
from toughen.core.types import Images, Labels, Logits, Mask
from toughen.engine.batch_size import batch_size_for, block_size
from toughen.engine.device import Precision
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation.call_attack import call_attack

NUMBERS = 2**22  # in the images attacked at once, so that memory does not grow with the data set


def as_fixed_batch(model: nn.Module, x: Images, precision: Precision = "fp32") -> FixedBatchModel:
    """The model, run in batches of a size that suits the images' device; a ``FixedBatchModel`` is returned as it is.

    Raises:
        ValueError: there are no images.
    """
    if not len(x):
        raise ValueError("there are no images to diagnose the model by: give some")
    if isinstance(model, FixedBatchModel):
        return model
    return FixedBatchModel(model, batch_size_for(model, x), precision)


def chunk_size(x: Images) -> int:
    """How many images to work on at once."""
    return max(block_size(x.device, len(x)), NUMBERS // x.shape[1:].numel())


def exact_logits(model: FixedBatchModel, x: Images) -> Logits:
    """The model's own logits [n, k] in float32 or float64, in evaluation mode."""
    with mode(model, "eval"):
        return model.exact(x)


def correct(model: FixedBatchModel, x: Images, y: Labels) -> Mask:
    """[n], which images are classified correctly."""
    return ~misclassified(exact_logits(model, x), y)


def attack_chunks(
    model: FixedBatchModel,
    x: Images,
    y: Labels,
    attack: Attack,
    seed: int,
    rows: Tensor | None = None,
    *,
    restart: int = 0,
    chunk: int | None = None,
) -> Iterator[tuple[Tensor, Images]]:
    """Attack images chunk by chunk; yields the rows of each chunk with its adversarial images.

    The random numbers are keyed by seed, restart and row alone. All models, radii and numbers of steps get the same
    ones, so figures don't differ by their random numbers.

    Args:
        model: the model that is attacked; any mode.
        x: [n, c, h, w], clean images in [0, 1].
        y: [n], their classes.
        attack: run in evaluation mode.
        seed: of the random numbers.
        rows: which images to attack; None means all.
        restart: number of the attack's first random start.
        chunk: how many to attack at once; None means as many as fit well into memory.

    Raises:
        RuntimeError: the attack left its threat or the box [0, 1]. An attack that searches for the nearest adversarial
            image may leave its threat.
    """
    name, any_distance = type(attack).__name__, getattr(attack, "minimise", False)
    for part in (torch.arange(len(x), device=x.device) if rows is None else rows).split(chunk or chunk_size(x)):
        if not len(part):
            return
        noise = ImageNoise(seed, "diagnostics", part.tolist(), restart)
        with mode(model, "eval"):
            x_adv, _ = call_attack(attack, name, model, x[part], y[part], noise, any_distance=any_distance)
        yield part, x_adv


def robust_after(
    model: FixedBatchModel, x: Images, y: Labels, attack: Attack, seed: int, robust: Mask, restart: int = 0
) -> Mask:
    """[n], which of the images in ``robust`` the model still classifies correctly after an attack on them."""
    still_robust = robust.clone()
    for rows, x_adv in attack_chunks(model, x, y, attack, seed, robust.nonzero()[:, 0], restart=restart):
        still_robust[rows] = correct(model, x_adv, y[rows])
    return still_robust


def with_settings(attack: Attack, **settings: Any) -> Attack:
    """The attack with other settings.

    Raises:
        ValueError: it has no such setting.
    """
    for name in settings:
        if not hasattr(attack, name):
            raise ValueError(f"{type(attack).__name__} has no {name} to vary: choose another attack, such as PGD")
    return replace(attack, **settings)  # type: ignore[type-var]


def describe_attack(attack: Attack) -> dict[str, Any]:
    """An attack's class and settings, for JSON."""
    settings: dict[str, Any] = {"attack": type(attack).__name__}
    for field in fields(attack):  # type: ignore[arg-type]
        value = getattr(attack, field.name)
        if isinstance(value, float):
            value = float(value)  # of a Fraction
        settings[field.name] = value if isinstance(value, str | int | float | None) else type(value).__name__
    return settings


def number(value: Tensor | float) -> float | None:
    """A figure rounded to seven digits, for JSON; None where it is not finite, which JSON can't hold."""
    value = float(value)
    return float(f"{value:.7g}") if math.isfinite(value) else None


def numbers(values: Tensor) -> list[Any]:
    """A tensor as nested lists of such figures."""
    return _rounded(values.tolist())


def _rounded(values: list[Any]) -> list[Any]:
    return [_rounded(value) if isinstance(value, list) else number(value) for value in values]

"""Which classes are taken for which, clean and under an attack, and how well each class holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from toughen.attacks.base import Attack
from toughen.core.types import Images, Labels
from toughen.evaluation.diagnostics.common import (
    blocked,
    classes,
    crafted,
    described,
    ending_early,
    exact_logits,
)


def matrix(y: Labels, predictions: Labels, count: int) -> list[list[int]]:
    """How often each true class (row) was predicted as each class (column).

    Args:
        y: true classes.
        predictions: predicted classes; -1, a prediction that is none, is counted nowhere.
        count: number of classes.
    """
    valid = predictions >= 0
    cells = torch.bincount(y[valid] * count + predictions[valid], minlength=count * count)
    rows: list[list[int]] = cells.view(count, count).tolist()
    return rows


def class_accuracy(y: Labels, predictions: Labels, count: int) -> list[float | None]:
    """The share of each class's images that are predicted as it, 0..1; None for a class without images."""
    of, hits = torch.bincount(y, minlength=count), torch.bincount(y[predictions == y], minlength=count)
    return [hit / all_ if all_ else None for hit, all_ in zip(hits.tolist(), of.tolist(), strict=True)]


def confusion(model: nn.Module, x: Images, y: Labels, attack: Attack, seed: int = 0) -> dict[str, Any]:
    """Confusion matrices and each class's accuracy, clean and under an attack.

    An image that is wrong while clean needs no attack and keeps its prediction, so the diagonal under attack adds up
    to the robust accuracy of an evaluation. An attack that can stop early does: a broken image is then predicted as
    the first wrong class that it met.

    Args:
        model: returns logits; any mode.
        x: clean images in [0, 1].
        y: their classes.
        attack: run on the images that are right while clean.
        seed: of its random numbers.

    Returns:
        for "clean" and "attacked": ``matrix`` [true][predicted] in images, ``class_accuracy``, ``accuracy``, and
        ``invalid``, the number of images with a logit that is not finite, which are in no column.
    """
    model = blocked(model, x)
    logits = exact_logits(model, x)
    count, clean = logits.shape[1], classes(logits)
    attacked = clean.clone()
    rows_right = (clean == y).nonzero()[:, 0]
    for rows, x_adv in crafted(model, x, y, ending_early(attack), seed, rows_right):
        attacked[rows] = classes(exact_logits(model, x_adv))
    predictions_of = {"clean": clean, "attacked": attacked}
    return {
        "attack": described(attack),
        **{name: _summary(y, predictions, count) for name, predictions in predictions_of.items()},
    }


def _summary(y: Labels, predictions: Labels, count: int) -> dict[str, Any]:
    return {
        "matrix": matrix(y, predictions, count),
        "class_accuracy": class_accuracy(y, predictions, count),
        "accuracy": int((predictions == y).sum()) / len(y),
        "invalid": int((predictions < 0).sum()),
    }

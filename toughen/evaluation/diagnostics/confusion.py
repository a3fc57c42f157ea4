"""Confusion matrices and each class's accuracy, clean and under an attack."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from toughen.attacks.base import Attack
from toughen.core.types import Images, Labels
from toughen.evaluation.diagnostics.common import (
    as_fixed_batch,
    attack_chunks,
    describe_attack,
    exact_logits,
)
from toughen.evaluation.harness import predicted
from toughen.evaluation.plan import with_early_stop


def matrix(y: Labels, predictions: Labels, count: int) -> list[list[int]]:
    """How often each true class (row) was predicted as each class (column).

    Args:
        y: [n], true classes.
        predictions: [n], predicted classes; those of -1, where a logit is not finite, are left out.
        count: number of classes.
    """
    valid = predictions >= 0
    cells = torch.bincount(y[valid] * count + predictions[valid], minlength=count * count)
    rows: list[list[int]] = cells.view(count, count).tolist()
    return rows


def class_accuracy(y: Labels, predictions: Labels, count: int) -> list[float | None]:
    """Each class's accuracy, 0..1; None for a class without images."""
    totals, hits = torch.bincount(y, minlength=count), torch.bincount(y[predictions == y], minlength=count)
    return [hit / total if total else None for hit, total in zip(hits.tolist(), totals.tolist(), strict=True)]


def confusion(model: nn.Module, x: Images, y: Labels, attack: Attack, seed: int = 0) -> dict[str, Any]:
    """Confusion matrices and each class's accuracy, clean and under an attack.

    Images that are misclassified without an attack keep their prediction, so the diagonal under attack adds up to the
    robust accuracy of an evaluation. The attack stops early if it can: a broken image then counts for the first wrong
    class that the attack reached.

    Args:
        model: returns logits; in any mode.
        x: [n, c, h, w], clean images in [0, 1].
        y: [n], their classes.
        attack: run on the images that are classified correctly.
        seed: of its random numbers.

    Returns:
        For "clean" and "attacked": ``matrix`` [true][predicted], in images; ``class_accuracy``; ``accuracy``;
        ``invalid``, the number of images with a logit that is not finite, which the matrix leaves out.
    """
    model, attack = as_fixed_batch(model, x), with_early_stop(attack)
    logits = exact_logits(model, x)
    count, clean = logits.shape[1], predicted(logits)
    attacked = clean.clone()
    correct = (clean == y).nonzero()[:, 0]
    for rows, x_adv in attack_chunks(model, x, y, attack, seed, correct):
        attacked[rows] = predicted(exact_logits(model, x_adv))
    predictions = {"clean": clean, "attacked": attacked}
    return {
        "attack": describe_attack(attack),
        **{name: _summary(y, each, count) for name, each in predictions.items()},
    }


def _summary(y: Labels, predictions: Labels, count: int) -> dict[str, Any]:
    return {
        "matrix": matrix(y, predictions, count),
        "class_accuracy": class_accuracy(y, predictions, count),
        "accuracy": int((predictions == y).sum()) / len(y),
        "invalid": int((predictions < 0).sum()),
    }

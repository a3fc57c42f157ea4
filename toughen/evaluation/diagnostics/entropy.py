"""The entropy of the predictions for one class's images under an attack."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from toughen.attacks.base import Attack
from toughen.core.types import Images, Labels, Logits, Scalar
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation.diagnostics.common import (
    as_fixed_batch,
    attack_chunks,
    describe_attack,
    exact_logits,
    number,
)
from toughen.evaluation.diagnostics.confusion import matrix
from toughen.evaluation.harness import predicted

BATCH = 100  # images of one class that are attacked together, the paper's number


def entropy(probabilities: Tensor) -> Scalar:
    """The entropy of one distribution [k], in nats."""
    terms: Tensor = torch.special.entr(probabilities)
    return terms.sum()


def attack_entropy(
    model: nn.Module, x: Images, y: Labels, attacks: Mapping[str, Attack], seed: int = 0, batch: int = BATCH
) -> dict[str, Any]:
    """The entropy of each class's mean softmax vector when its images are attacked together (NuAT, section 5.1).

    Each batch has images of one class: these attacks maximise a norm of the batch's logit matrix, so the result for an
    image depends on the others. ``entropy`` is in nats; ``normalised`` is divided by log k, and 1 for a uniform
    distribution over k classes. The paper reports 0.97 (nuclear) and 0.87 (Frobenius, ten classes) without a unit. A
    normally trained MNIST net has 1.8 and 1.6 nats, 0.79 and 0.69 when divided by log k, under a single step. So the
    paper's figures are probably divided by log k, too.

    Args:
        model: returns logits; in any mode.
        x: [n, c, h, w], clean images in [0, 1].
        y: [n], their classes; classes without images are left out of the means.
        attacks: by name, usually ``LogitMatrix`` with the nuclear and with the Frobenius norm.
        seed: of their random numbers.
        batch: images attacked together; a class's last batch may hold fewer.

    Returns:
        For each attack: ``entropy``, the mean over classes; ``normalised``; ``class_entropy``, None for a class without
        images; ``accuracy``; ``confusion`` [true][predicted], in images.

    Raises:
        ValueError: the batch is below 1.
    """
    if batch < 1:
        raise ValueError(f"batch is {batch}: use 1 image or more per batch")
    model = as_fixed_batch(model, x)
    return {name: _of_attack(model, x, y, attack, seed, batch) for name, attack in attacks.items()}


def _of_attack(model: FixedBatchModel, x: Images, y: Labels, attack: Attack, seed: int, batch: int) -> dict[str, Any]:
    parts = list(_attacked(model, x, y, attack, seed, batch))
    order, logits = torch.cat([rows for rows, _ in parts]), torch.cat([out for _, out in parts])
    probabilities, labels = logits.double().softmax(1), y[order]
    entropies = [
        entropy(probabilities[labels == label].mean(0)) if (labels == label).any() else None
        for label in range(logits.shape[1])
    ]
    mean = torch.stack([value for value in entropies if value is not None]).mean()
    predictions = predicted(logits)
    return {
        "entropy": number(mean),
        "normalised": number(mean / math.log(logits.shape[1])),
        "class_entropy": [None if value is None else number(value) for value in entropies],
        "accuracy": int((predictions == labels).sum()) / len(labels),
        "confusion": matrix(labels, predictions, logits.shape[1]),
        "batch": batch,
        "attack": describe_attack(attack),
    }


def _attacked(
    model: FixedBatchModel, x: Images, y: Labels, attack: Attack, seed: int, batch: int
) -> Iterator[tuple[Tensor, Logits]]:
    """The rows of each batch, and their logits [n, k] under the attack."""
    for label in y.unique().tolist():
        for part in (y == label).nonzero()[:, 0].split(batch):
            for rows, x_adv in attack_chunks(model, x, y, attack, seed, part, chunk=batch):
                yield rows, exact_logits(model, x_adv)

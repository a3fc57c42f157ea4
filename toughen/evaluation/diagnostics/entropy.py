"""How many classes an attack spreads the images of one class over."""

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
    blocked,
    classes,
    crafted,
    described,
    exact_logits,
    number,
)
from toughen.evaluation.diagnostics.confusion import matrix

BATCH = 100  # images of one class that are attacked together, the paper's number


def entropy(probabilities: Tensor) -> Scalar:
    """The entropy of one distribution [k], in nats."""
    summands: Tensor = torch.special.entr(probabilities)
    return summands.sum()


def attack_entropy(
    model: nn.Module, x: Images, y: Labels, attacks: Mapping[str, Attack], seed: int = 0, batch: int = BATCH
) -> dict[str, Any]:
    """The entropy of each class's mean softmax vector when its images are attacked together (NuAT, section 5.1).

    Every batch holds images of one class, because these attacks raise a norm of the batch's logit matrix and so let
    the images' targets depend on each other. ``entropy`` is in nats, ``normalised`` in units of log k, where 1 is all
    k classes alike. The paper names no unit for its 0.97 (nuclear) and 0.87 (Frobenius, ten classes); a normal MNIST
    net gives 1.8 and 1.6 nats, or 0.79 and 0.69 of log k, under a single step, so units of log k are the likelier.

    Args:
        model: returns logits; any mode.
        x: clean images in [0, 1].
        y: their classes; those without images are left out of the means.
        attacks: by name, usually one that raises the nuclear and one that raises the Frobenius norm.
        seed: of their random numbers.
        batch: images attacked together; a class's last batch may hold fewer.

    Returns:
        per attack: ``entropy`` averaged over classes, ``normalised``, ``class_entropy`` (None without images),
        ``accuracy`` and ``confusion`` [true][predicted] in images.

    Raises:
        ValueError: the batch is below 1.
    """
    if batch < 1:
        raise ValueError(f"batch is {batch}: use 1 image or more per batch")
    model = blocked(model, x)
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
    predictions = classes(logits)
    return {
        "entropy": number(mean),
        "normalised": number(mean / math.log(logits.shape[1])),
        "class_entropy": [None if value is None else number(value) for value in entropies],
        "accuracy": int((predictions == labels).sum()) / len(labels),
        "confusion": matrix(labels, predictions, logits.shape[1]),
        "batch": batch,
        "attack": described(attack),
    }


def _attacked(
    model: FixedBatchModel, x: Images, y: Labels, attack: Attack, seed: int, batch: int
) -> Iterator[tuple[Tensor, Logits]]:
    """Each batch's places and its logits under the attack."""
    for label in y.unique().tolist():
        for part in (y == label).nonzero()[:, 0].split(batch):
            for rows, x_adv in crafted(model, x, y, attack, seed, part, together=batch):
                yield rows, exact_logits(model, x_adv)

"""What a classifier says of single images, and whether an attack changes it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from toughen.attacks.base import Attack
from toughen.core.gradients import mode
from toughen.core.rng import ImageNoise
from toughen.core.types import Images
from toughen.evaluation.call_attack import call_attack


@dataclass(frozen=True)
class Prediction:
    """The answer for one image.

    Attributes:
        label: the class, as a number.
        confidence: its softmax probability, 0..1. It is the net's own, and says nothing of attacks.
        attacked: the class of the adversarial image; None where no attack was made.
    """

    label: int
    confidence: float
    attacked: int | None = None


def predict(
    model: nn.Module, x: Images, attack: Attack | None = None, name: str = "", seed: int = 0, batch_size: int = 64
) -> list[Prediction]:
    """Classify images, and attack each with the predicted class as its label.

    Args:
        model: takes images in [0, 1], returns logits.
        x: float [n, c, h, w] in [0, 1].
        attack: searches for an image that is classified otherwise; None: none is searched.
        name: what messages call the attack.
        seed: of the attack's random numbers.
        batch_size: images per forward pass.

    Returns:
        A prediction for each image, in order.
    """
    predictions: list[Prediction] = []
    with mode(model, "eval"):
        for rows in torch.arange(len(x), device=x.device).split(batch_size):
            part = x[rows]
            with torch.no_grad():
                confidence, label = model(part).float().softmax(1).max(1)
            after: list[int | None] = [None] * len(rows)
            if attack is not None:
                noise = ImageNoise(seed, name, rows.tolist())
                x_adv, _ = call_attack(attack, name, model, part, label, noise)
                with torch.no_grad():
                    after = list(model(x_adv).argmax(1).tolist())
            predictions += map(Prediction, label.tolist(), confidence.tolist(), after)
    return predictions

"""The classes of single images, with and without an attack."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from toughen.attacks.base import Attack
from toughen.core.gradients import logits, mode
from toughen.core.rng import ImageNoise
from toughen.core.types import Images
from toughen.evaluation.call_attack import call_attack
from toughen.evaluation.harness import predicted


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        label: the predicted class, a number.
        confidence: its softmax probability, 0..1, without an attack.
        attacked: the predicted class of the adversarial image, -1 where a logit is not finite; None if no attack was
            run.
    """

    label: int
    confidence: float
    attacked: int | None = None


def predict(
    model: nn.Module, x: Images, attack: Attack | None = None, name: str = "", seed: int = 0, batch_size: int = 64
) -> list[Prediction]:
    """Classify images, and attack each of them with its predicted class as the label.

    Args:
        model: takes images in [0, 1], returns logits.
        x: float [n, c, h, w] in [0, 1].
        attack: the attack; None means no attack.
        name: the attack's name in messages; its random numbers are keyed by it, too.
        seed: of the attack's random numbers.
        batch_size: images per forward pass.

    Returns:
        A prediction for each image, in order.

    Raises:
        ValueError: a logit of an image is NaN or infinite without an attack.
    """
    predictions: list[Prediction] = []
    with mode(model, "eval"):
        for rows in torch.arange(len(x), device=x.device).split(batch_size):
            batch = x[rows]
            with torch.no_grad():
                out = logits(model, batch)
            if not out.isfinite().all():
                raise ValueError(
                    "the model's logits of some of these images are NaN or infinite, so no class is predicted: fix the "
                    "model, or leave these images out"
                )
            confidence, label = out.float().softmax(1).max(1)
            attacked: list[int | None] = [None] * len(rows)
            if attack is not None:
                noise = ImageNoise(seed, name, rows.tolist())
                x_adv, _ = call_attack(attack, name, model, batch, label, noise)
                with torch.no_grad():
                    attacked = list(predicted(logits(model, x_adv)).tolist())
            predictions += map(Prediction, label.tolist(), confidence.tolist(), attacked)
    return predictions

"""Transfer attacks: the accuracy of each model on adversarial images made on each other model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from toughen.attacks.base import Attack
from toughen.core.types import Images, Labels
from toughen.evaluation.diagnostics.common import as_fixed_batch, attack_chunks, correct, describe_attack
from toughen.evaluation.result import share


def transfer_matrix(
    models: Mapping[str, nn.Module], x: Images, y: Labels, attack: Attack, seed: int = 0
) -> dict[str, Any]:
    """Every model's accuracy on the adversarial images made on every model, including itself.

    All images are attacked, including those that the source misclassifies. The attack stops early only if it is set to:
    adversarial images close to the source's decision boundary transfer worst. Random starts are the same for all
    sources.

    Args:
        models: by name; each returns logits.
        x: [n, c, h, w], clean images in [0, 1].
        y: [n], their classes.
        attack: run once on each model.
        seed: of its random numbers.

    Returns:
        ``models``, the names; ``clean_accuracy`` of each; ``accuracy`` [source][target] of the target on images made on
        the source; ``transfer_rate`` [source][target], the share of the images that the target classifies correctly
        when clean and misclassifies when made on the source (None where it classifies no clean image correctly).
    """
    nets = {name: as_fixed_batch(model, x) for name, model in models.items()}
    clean = {name: correct(model, x, y) for name, model in nets.items()}
    accuracy, transfer_rate = [], []
    for source in nets.values():
        after = {name: mask.clone() for name, mask in clean.items()}
        for rows, x_adv in attack_chunks(source, x, y, attack, seed):
            for name, target in nets.items():
                after[name][rows] = correct(target, x_adv, y[rows])
        accuracy.append([share(after[name]) for name in nets])
        transfer_rate.append([_transfer_rate(clean[name], after[name]) for name in nets])
    return {
        "models": list(nets),
        "clean_accuracy": [share(mask) for mask in clean.values()],
        "accuracy": accuracy,
        "transfer_rate": transfer_rate,
        "attack": describe_attack(attack),
    }


def _transfer_rate(before: Tensor, after: Tensor) -> float | None:
    return int((before & ~after).sum()) / int(before.sum()) if before.any() else None

"""What images crafted on one model do to another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from toughen.attacks.base import Attack
from toughen.core.types import Images, Labels
from toughen.evaluation.diagnostics.common import blocked, correct, crafted, described
from toughen.evaluation.result import share


def transfer_matrix(
    models: Mapping[str, nn.Module], x: Images, y: Labels, attack: Attack, seed: int = 0
) -> dict[str, Any]:
    """How every model fares on the images crafted on every model, itself among them.

    All images are attacked, whether or not the source is right on them, and none ends early unless the attack says
    so: images that are barely wrong for their source transfer worst. Random starts are the same for all sources.

    Args:
        models: by name; each returns logits.
        x: clean images in [0, 1].
        y: their classes.
        attack: run once on each model.
        seed: of its random numbers.

    Returns:
        ``models``, the names; ``clean_accuracy`` of each; ``accuracy`` [source][target], the share of all images that
        the target gets right when they were crafted on the source; ``fell`` [source][target], the share of those
        right while clean that are then wrong (None where none was right).
    """
    nets = {name: blocked(model, x) for name, model in models.items()}
    clean = {name: correct(model, x, y) for name, model in nets.items()}
    accuracy, fell = [], []
    for source in nets.values():
        after = {name: mask.clone() for name, mask in clean.items()}
        for rows, x_adv in crafted(source, x, y, attack, seed):
            for name, target in nets.items():
                after[name][rows] = correct(target, x_adv, y[rows])
        accuracy.append([share(after[name]) for name in nets])
        fell.append([_fell(clean[name], after[name]) for name in nets])
    return {
        "models": list(nets),
        "clean_accuracy": [share(mask) for mask in clean.values()],
        "accuracy": accuracy,
        "fell": fell,
        "attack": described(attack),
    }


def _fell(before: Tensor, after: Tensor) -> float | None:
    return int((before & ~after).sum()) / int(before.sum()) if before.any() else None


def transfer_matrices(
    models: Mapping[str, nn.Module], x: Images, y: Labels, attacks: Mapping[str, Attack], seed: int = 0
) -> dict[str, Any]:
    """A transfer matrix for each attack, by its name."""
    return {name: transfer_matrix(models, x, y, attack, seed) for name, attack in attacks.items()}

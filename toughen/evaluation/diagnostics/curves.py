"""How accuracy and loss change with an attack's radius, its steps and its restarts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from toughen.attacks.base import Attack
from toughen.attacks.fgsm import FGSM
from toughen.attacks.pgd import PGD
from toughen.core.objectives import cross_entropy
from toughen.core.threat import Threat
from toughen.core.types import Eps, Images, Labels
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation.diagnostics.common import (
    as_fixed_batch,
    attack_chunks,
    correct,
    describe_attack,
    exact_logits,
    number,
    robust_after,
    with_settings,
)
from toughen.evaluation.plan import with_early_stop
from toughen.evaluation.result import share

MULTIPLES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 8.0)
STEPS = (1, 2, 5, 10, 20, 50, 100)


def radii(threat: Threat, shape: Sequence[int], multiples: Sequence[float] = MULTIPLES) -> list[float]:
    """Multiples of the threat's radius, up to the longest distance between two images.

    Args:
        threat: norm and radius.
        shape: [c, h, w] of the images.
        multiples: in ascending order; those beyond the longest distance are left out.
    """
    diameter = threat.diameter(shape)
    return [round(float(m * threat.eps), 12) for m in multiples if m * threat.eps <= diameter]


def accuracy_by_eps(
    model: nn.Module, x: Images, y: Labels, attack: Attack, eps: Sequence[Eps], seed: int = 0
) -> dict[str, Any]:
    """Accuracy, 0..1, under the attack at each radius: the share of images classified correctly, clean and attacked.

    The attack is run anew at each radius. So the curve may rise where the attack fails, as with masked gradients.
    If the attack has no step size of its own, its step size is proportional to the radius.

    Args:
        model: returns logits; in any mode.
        x: [n, c, h, w], clean images in [0, 1].
        y: [n], their classes.
        attack: whose radius is varied.
        eps: the radii, in the units of the images.
        seed: of the random starts, which are the same at every radius.
    """
    model = as_fixed_batch(model, x)
    clean = correct(model, x, y)
    attack, accuracy = with_early_stop(attack), []
    for radius in eps:
        resized = with_settings(attack, eps=radius)
        accuracy.append(share(robust_after(model, x, y, resized, seed, clean) if radius > 0 else clean))
    return {"eps": [float(radius) for radius in eps], "accuracy": accuracy, "attack": describe_attack(attack)}


def accuracy_by_steps(
    model: nn.Module, x: Images, y: Labels, attack: Attack, steps: Sequence[int] = STEPS, seed: int = 0
) -> dict[str, Any]:
    """Accuracy, 0..1, under the attack with each number of steps, as in ``accuracy_by_eps``.

    If the attack has no step size of its own, its step size gets smaller with more steps.

    Raises:
        ValueError: the attack has no steps.
    """
    model = as_fixed_batch(model, x)
    clean = correct(model, x, y)
    attack, accuracy = with_early_stop(attack), []
    for count in steps:
        longer = with_settings(attack, steps=count)
        accuracy.append(share(robust_after(model, x, y, longer, seed, clean)))
    return {
        "steps": list(steps),
        "accuracy": accuracy,
        "clean_accuracy": share(clean),
        "attack": describe_attack(attack),
    }


def accuracy_by_restarts(
    model: nn.Module, x: Images, y: Labels, attack: Attack, restarts: int = 10, seed: int = 0
) -> dict[str, Any]:
    """Accuracy, 0..1, after one random start, after two, and so on, up to ``restarts``.

    Raises:
        ValueError: the attack has no restarts, or ``restarts`` is below 1.
    """
    if restarts < 1:
        raise ValueError(f"restarts is {restarts}: use 1 or more")
    model = as_fixed_batch(model, x)
    once = with_early_stop(with_settings(attack, restarts=1))
    robust = clean = correct(model, x, y)
    accuracy = []
    for restart in range(restarts):
        robust = robust_after(model, x, y, once, seed, robust, restart)
        accuracy.append(share(robust))
    return {
        "restarts": list(range(1, restarts + 1)),
        "accuracy": accuracy,
        "clean_accuracy": share(clean),
        "attack": describe_attack(once),
    }


def loss_by_eps(
    model: nn.Module, x: Images, y: Labels, threat: Threat, eps: Sequence[Eps], seed: int = 0, steps: int = 20
) -> dict[str, Any]:
    """Mean cross-entropy, in nats, of all images under FGSM, R-FGSM and PGD at each radius (arXiv:2004.14789, Fig. 1).

    With masked gradients the loss under PGD is much higher than under FGSM. R-FGSM's random step is half of the radius.

    Args:
        model: returns logits; in any mode.
        x: [n, c, h, w], clean images in [0, 1].
        y: [n], their classes.
        threat: only its norm is used.
        eps: the radii, in the units of the images.
        seed: of the random starts, which are the same at every radius.
        steps: of PGD.
    """
    model = as_fixed_batch(model, x)
    clean = number(cross_entropy(exact_logits(model, x), y).mean())
    curves: dict[str, list[float | None]] = {"fgsm": [], "r-fgsm": [], f"pgd-{steps}": []}
    for radius in eps:
        kinds = _loss_attacks(threat, radius, steps)
        for name, values in curves.items():
            values.append(_mean_loss(model, x, y, kinds[name], seed) if radius > 0 else clean)
    return {"eps": [float(radius) for radius in eps], "loss": curves}


def _loss_attacks(threat: Threat, eps: Eps, steps: int) -> dict[str, Attack]:
    half = eps / 2
    return {
        "fgsm": FGSM(eps=eps, norm=threat.norm),
        "r-fgsm": FGSM(eps=eps, norm=threat.norm, step_size=half, start="bernoulli", start_size=half),
        f"pgd-{steps}": PGD(eps=eps, norm=threat.norm, steps=steps),
    }


def _mean_loss(model: FixedBatchModel, x: Images, y: Labels, attack: Attack, seed: int) -> float | None:
    chunks = attack_chunks(model, x, y, attack, seed)
    losses = [cross_entropy(exact_logits(model, x_adv), y[rows]) for rows, x_adv in chunks]
    return number(torch.cat(losses).mean())

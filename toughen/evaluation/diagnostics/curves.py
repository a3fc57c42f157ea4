"""How accuracy and loss change with an attack's radius, its steps and its restarts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from toughen.attacks.base import Attack
from toughen.attacks.fgsm import FGSM
from toughen.attacks.pgd import PGD
from toughen.core.threat import Threat
from toughen.core.types import Eps, Images, Labels
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation.diagnostics.common import (
    blocked,
    correct,
    crafted,
    described,
    ending_early,
    exact_logits,
    losses,
    number,
    standing_after,
    with_settings,
)
from toughen.evaluation.result import share

MULTIPLES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 8.0)
STEPS = (1, 2, 5, 10, 20, 50, 100)


def radii(threat: Threat, shape: Sequence[int], multiples: Sequence[float] = MULTIPLES) -> list[float]:
    """Radii from 0 on, as multiples of the threat's own, up to the one that reaches every image.

    Args:
        threat: the norm and the radius of 1.
        shape: [c, h, w] of the images.
        multiples: in ascending order; those beyond the norm's reach are left out.
    """
    reach = 1.0 if threat.norm == "linf" else math.sqrt(math.prod(shape))
    return [round(float(m * threat.eps), 12) for m in multiples if m * threat.eps <= reach]


def accuracy_by_eps(
    model: nn.Module, x: Images, y: Labels, attack: Attack, eps: Sequence[Eps], seed: int = 0
) -> dict[str, Any]:
    """Accuracy, 0..1, under the attack at each radius: right while clean and when attacked.

    Each radius is attacked on its own, so the curve may rise where an attack fails, as it does with masked gradients.
    A step size that the attack leaves open grows with the radius.

    Args:
        model: returns logits; any mode.
        x: clean images in [0, 1].
        y: their classes.
        attack: whose radius is varied.
        eps: the radii, in the units of the images.
        seed: of the random starts, which are the same at every radius.
    """
    model = blocked(model, x)
    clean = correct(model, x, y)
    accuracy = []
    for radius in eps:
        at = ending_early(with_settings(attack, eps=radius))
        accuracy.append(share(standing_after(model, x, y, at, seed, clean) if radius > 0 else clean))
    return {"eps": [float(radius) for radius in eps], "accuracy": accuracy, "attack": described(attack)}


def accuracy_by_steps(
    model: nn.Module, x: Images, y: Labels, attack: Attack, steps: Sequence[int] = STEPS, seed: int = 0
) -> dict[str, Any]:
    """Accuracy, 0..1, under the attack with each number of steps, as in ``accuracy_by_eps``.

    A step size that the attack leaves open shrinks as steps grow; one that it states stays.

    Raises:
        ValueError: the attack has no steps.
    """
    model = blocked(model, x)
    clean = correct(model, x, y)
    accuracy = []
    for count in steps:
        at = ending_early(with_settings(attack, steps=count))
        accuracy.append(share(standing_after(model, x, y, at, seed, clean)))
    return {
        "steps": list(steps),
        "accuracy": accuracy,
        "clean_accuracy": share(clean),
        "attack": described(attack),
    }


def accuracy_by_restarts(
    model: nn.Module, x: Images, y: Labels, attack: Attack, restarts: int = 10, seed: int = 0
) -> dict[str, Any]:
    """Accuracy, 0..1, after one random start, two, and so on: an image counts while no start so far broke it.

    Raises:
        ValueError: the attack has no restarts, or fewer than one is asked for.
    """
    if restarts < 1:
        raise ValueError(f"restarts is {restarts}: use 1 or more")
    model = blocked(model, x)
    once = ending_early(with_settings(attack, restarts=1))
    robust = clean = correct(model, x, y)
    accuracy = []
    for restart in range(restarts):
        robust = standing_after(model, x, y, once, seed, robust, restart)
        accuracy.append(share(robust))
    return {
        "restarts": list(range(1, restarts + 1)),
        "accuracy": accuracy,
        "clean_accuracy": share(clean),
        "attack": described(once),
    }


def loss_by_eps(
    model: nn.Module, x: Images, y: Labels, threat: Threat, eps: Sequence[Eps], seed: int = 0, steps: int = 20
) -> dict[str, Any]:
    """Mean cross-entropy, in nats, of all images under FGSM, R-FGSM and PGD at each radius (arXiv:2004.14789, Fig. 1).

    Under masked gradients PGD's loss leaves FGSM's far behind. R-FGSM's random step is half of the radius.

    Args:
        model: returns logits; any mode.
        x: clean images in [0, 1].
        y: their classes.
        threat: only its norm counts.
        eps: the radii, in the units of the images.
        seed: of the random starts, which are the same at every radius.
        steps: of PGD.
    """
    model = blocked(model, x)
    clean = number(losses(exact_logits(model, x), y).mean())
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
    parts = [losses(exact_logits(model, x_adv), y[rows]) for rows, x_adv in crafted(model, x, y, attack, seed)]
    return number(torch.cat(parts).mean())

"""The distance from each image to the nearest adversarial image that attacks find."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from toughen.attacks.base import Attack
from toughen.core.threat import Threat
from toughen.core.types import Images, Labels, Mask, PerExample, Real
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation.diagnostics.common import as_fixed_batch, attack_chunks, correct, describe_attack, number
from toughen.evaluation.result import share

QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)


def boundary_distance(
    model: nn.Module,
    x: Images,
    y: Labels,
    attacks: Mapping[str, Attack],
    threat: Threat,
    seed: int = 0,
    quantiles: Sequence[Real] = QUANTILES,
) -> dict[str, Any]:
    """An upper bound of each image's distance to the decision boundary: to the closest adversarial image found.

    Args:
        model: returns logits; in any mode.
        x: [n, c, h, w], clean images in [0, 1].
        y: [n], their classes.
        attacks: by name; minimum-norm attacks (``minimise=True``), which return the closest adversarial image that
            they find at any distance, or other attacks with a large radius.
        threat: its norm measures the distances; images farther than its radius count as robust.
        seed: of the attacks' random numbers.
        quantiles: which quantiles to return, 0..1.

    Returns:
        ``distance`` of each image: 0 where the clean image is misclassified, None where no attack was successful.
        ``quantiles`` over the images that are classified correctly; an image without a distance counts as infinitely
        far, and an infinite quantile is None. ``mean`` of the finite distances. ``right``, the number of images that
        are classified correctly; ``found``, how many of these have a distance; ``found_by``, how many by each attack;
        ``closest_by``, for how many images each attack was the first to find the closest. ``count`` of all images.
        ``accuracy_at_eps``, the share of all images that are farther than the threat's radius.

    Raises:
        ValueError: no attack was given, or one of another norm than the threat's.
    """
    if not attacks:
        raise ValueError("no attack was given: give a minimum-norm one, such as FAB")
    for name, attack in attacks.items():
        if attack.norm != threat.norm:
            raise ValueError(f"{name} searches in {attack.norm}, the distances are in {threat.norm}: use one norm")
    model = as_fixed_batch(model, x)
    clean = correct(model, x, y)
    distances = {name: _distances(model, x, y, attack, threat, seed, clean) for name, attack in attacks.items()}
    stacked = torch.stack(list(distances.values()))  # [attacks, n]
    closest = torch.where(clean, stacked.amin(0), 0.0)
    first = stacked.argmin(0)
    ranked = closest[clean].sort().values
    finite = ranked[ranked.isfinite()]
    return {
        "norm": threat.norm,
        "distance": [number(value) for value in closest],
        "quantiles": {str(level): _quantile(ranked, level) for level in quantiles},
        "mean": number(finite.mean()) if len(finite) else None,
        "right": len(ranked),
        "found": len(finite),
        "found_by": {name: int(each[clean].isfinite().sum()) for name, each in distances.items()},
        "closest_by": {
            name: int((clean & stacked[row].isfinite() & (first == row)).sum()) for row, name in enumerate(distances)
        },
        "eps": float(threat.eps),
        "count": len(y),
        "accuracy_at_eps": share(closest > threat.eps),
        "attacks": {name: describe_attack(attack) for name, attack in attacks.items()},
    }


def _distances(
    model: FixedBatchModel, x: Images, y: Labels, attack: Attack, threat: Threat, seed: int, clean: Mask
) -> PerExample:
    """[n], the distance of each adversarial image; infinite where the attack failed or ``clean`` is False."""
    distance = x.new_full((len(x),), torch.inf)
    for rows, x_adv in attack_chunks(model, x, y, attack, seed, clean.nonzero()[:, 0]):
        robust = correct(model, x_adv, y[rows])
        distance[rows] = torch.where(robust, torch.inf, threat.distance(x_adv, x[rows]))
    return distance


def _quantile(ranked: PerExample, level: Real) -> float | None:
    """The smallest of the sorted values that at least the share ``level`` of them don't exceed; None if infinite."""
    if not len(ranked):
        return None
    position = max(0, min(len(ranked) - 1, math.ceil(level * len(ranked)) - 1))
    return number(ranked[position])

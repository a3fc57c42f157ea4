"""How far each image lies from the nearest one that is classified wrongly, as far as attacks find it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from toughen.attacks.base import Attack
from toughen.core.threat import Threat
from toughen.core.types import Images, Labels, Mask, PerExample, Real
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation.diagnostics.common import blocked, correct, crafted, described, number
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
    """The distance from each image to the closest adversarial image that any of the attacks finds: an upper bound.

    Args:
        model: returns logits; any mode.
        x: clean images in [0, 1].
        y: their classes.
        attacks: by name; minimum-norm attacks, which return the closest adversarial image that they found, however
            far (``minimise=True``), or any other, at a radius that lets it search far.
        threat: its norm measures the distances; its radius says which images count as robust.
        seed: of the attacks' random numbers.
        quantiles: which ones to give, 0..1.

    Returns:
        ``distance`` per image (0 where it is wrong while clean, None where nothing was found), ``quantiles`` over the
        images that are right while clean, where one that nothing was found for lies beyond all others (a quantile
        among those is None), ``mean`` over those found, ``right``, ``found`` (of the right ones), ``found_by`` each
        attack, ``closest_by`` (images for which it was the first to find the closest), ``count`` of all images, and
        ``accuracy_at_eps``, the share of them that lie farther than the threat's radius.

    Raises:
        ValueError: no attack was given, or one of another norm than the threat's.
    """
    if not attacks:
        raise ValueError("no attack was given: give a minimum-norm one, such as FAB")
    for name, attack in attacks.items():
        if attack.norm != threat.norm:
            raise ValueError(f"{name} searches in {attack.norm}, the distances are in {threat.norm}: use one norm")
    model = blocked(model, x)
    clean = correct(model, x, y)
    distances = {name: _distances(model, x, y, attack, threat, seed, clean) for name, attack in attacks.items()}
    every = torch.stack(list(distances.values()))
    best = torch.where(clean, every.amin(0), 0.0)
    first = every.argmin(0)
    ranked = best[clean].sort().values
    finite = ranked[ranked.isfinite()]
    return {
        "norm": threat.norm,
        "distance": [number(value) for value in best],
        "quantiles": {str(share_): _quantile(ranked, share_) for share_ in quantiles},
        "mean": number(finite.mean()) if len(finite) else None,
        "right": len(ranked),
        "found": len(finite),
        "found_by": {name: int((each[clean]).isfinite().sum()) for name, each in distances.items()},
        "closest_by": {
            name: int((clean & every[place].isfinite() & (first == place)).sum())
            for place, name in enumerate(distances)
        },
        "eps": float(threat.eps),
        "count": len(y),
        "accuracy_at_eps": share(best > threat.eps),
        "attacks": {name: described(attack) for name, attack in attacks.items()},
    }


def _distances(
    model: FixedBatchModel, x: Images, y: Labels, attack: Attack, threat: Threat, seed: int, clean: Mask
) -> PerExample:
    """How far the attack moved each image that is right while clean; infinite where that did not break it."""
    distance = x.new_full((len(x),), torch.inf)
    for rows, x_adv in crafted(model, x, y, attack, seed, clean.nonzero()[:, 0]):
        stands = correct(model, x_adv, y[rows])
        distance[rows] = torch.where(stands, torch.inf, threat.distance(x_adv, x[rows]))
    return distance


def _quantile(ranked: PerExample, share_: Real) -> float | None:
    """The smallest value that so large a share of all values do not exceed; None where that is infinite."""
    if not len(ranked):
        return None
    place = max(0, min(len(ranked) - 1, -int(-share_ * len(ranked) // 1) - 1))
    return number(ranked[place])

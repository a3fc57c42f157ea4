"""How far an attack moves the logits of the images that hold, and of those that don't."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from toughen.attacks.base import Attack
from toughen.core.classifier import misclassified
from toughen.core.nuclear_norm import nuclear_norm
from toughen.core.rng import ImageNoise, derive_seed
from toughen.core.threat import Threat
from toughen.core.types import Images, Labels
from toughen.evaluation.diagnostics.common import blocked, chunk_size, crafted, described, exact_logits, number, numbers
from toughen.evaluation.logit_distance import logit_distance

BATCH = 32


def nuclear_norms(
    model: nn.Module, x: Images, y: Labels, attack: Attack, seed: int = 0, batch: int = BATCH
) -> dict[str, Any]:
    """The nuclear norm of f(x_adv) - f(x) over batches of robust and over batches of broken images (NuAT, Fig. 3a).

    Robust are the images that are right while clean and when attacked, broken those that are right while clean only.
    Batches of both are of one size, since the norm grows with it, and drawn at random; images that fill no batch are
    left out, and so are images whose attacked logits are not finite. The attack should run all its steps on every
    image (no early stop): else broken ones are moved less.

    Args:
        model: returns logits; any mode.
        x: clean images in [0, 1].
        y: their classes.
        attack: run on the images that are right while clean.
        seed: of the attack and of the batches.
        batch: images per batch; fewer where one of the two groups is smaller, and the result says how many.

    Returns:
        ``batch``, and for "robust" and "broken": ``images``, ``norms`` of each batch, ``mean`` and ``per_image``
        (mean / batch); None where there is no batch.

    Raises:
        ValueError: the batch is below 1.
    """
    if batch < 1:
        raise ValueError(f"batch is {batch}: use 1 image or more per batch")
    model = blocked(model, x)
    clean = exact_logits(model, x)
    attacked = clean.clone()
    rows = (~misclassified(clean, y)).nonzero()[:, 0]
    for part, x_adv in crafted(model, x, y, attack, seed, rows):
        attacked[part] = exact_logits(model, x_adv)
    rows = rows[attacked[rows].isfinite().all(1)]
    holds = attacked[rows].argmax(1) == y[rows]
    moved = (attacked - clean)[rows].double()
    groups = {"robust": moved[holds], "broken": moved[~holds]}
    size = min([batch, *(len(group) for group in groups.values() if len(group))])
    return {
        "attack": described(attack),
        "batch": size,
        **{name: _of_batches(group, size, seed) for name, group in groups.items()},
    }


def _of_batches(moved: Tensor, size: int, seed: int) -> dict[str, Any]:
    shuffled = torch.randperm(len(moved), generator=torch.Generator().manual_seed(derive_seed("nuclear", seed)))
    norms = [nuclear_norm(moved[part.to(moved.device)]) for part in shuffled.split(size) if len(part) == size]
    if not norms:
        return {"images": len(moved), "norms": [], "mean": None, "per_image": None}
    values = torch.stack(norms)
    return {
        "images": len(moved),
        "norms": numbers(values),
        "mean": number(values.mean()),
        "per_image": number(values.mean() / size),
    }


def mean_logit_distance(model: nn.Module, x: Images, y: Labels, threat: Threat, seed: int = 0) -> dict[str, Any]:
    """How far apart the logits of FGSM and of R-FGSM images lie, as ``signals.logit_distance`` measures it, averaged.

    Args:
        model: returns logits; any mode.
        x: clean images in [0, 1].
        y: their classes.
        threat: the norm and radius of both attacks.
        seed: of R-FGSM's random step.
    """
    model, total = blocked(model, x), 0.0
    for rows in torch.arange(len(x), device=x.device).split(chunk_size(x)):
        noise = ImageNoise(seed, "diagnostics", rows.tolist())
        total += float(logit_distance(model, x[rows], y[rows], threat, noise)) * len(rows)
    return {"distance": number(total / len(x))}

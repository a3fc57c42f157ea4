"""How much an attack changes logits: of robust and of broken images, and between FGSM and R-FGSM."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from toughen.attacks.base import Attack
from toughen.core.nuclear_norm import nuclear_norm
from toughen.core.objectives import misclassified
from toughen.core.rng import ImageNoise, derive_seed
from toughen.core.threat import Threat
from toughen.core.types import Images, Labels
from toughen.evaluation.diagnostics.common import (
    as_fixed_batch,
    attack_chunks,
    chunk_size,
    describe_attack,
    exact_logits,
    number,
    numbers,
)
from toughen.evaluation.logit_distance import logit_distance

BATCH = 32


def nuclear_norms(
    model: nn.Module, x: Images, y: Labels, attack: Attack, seed: int = 0, batch: int = BATCH
) -> dict[str, Any]:
    """The nuclear norm of f(x_adv) - f(x) over batches of robust and over batches of broken images (NuAT, Fig. 3a).

    Only images are used whose clean version is classified correctly: those classified correctly under the attack are
    robust, the others broken. The batches are drawn at random. All of them have the same size, because the norm grows
    with it; an incomplete batch is left out, and so are images with attacked logits that are not finite. The attack
    should not stop early, or broken images are changed less than robust ones.

    Args:
        model: returns logits; in any mode.
        x: [n, c, h, w], clean images in [0, 1].
        y: [n], their classes.
        attack: run on the images that are classified correctly.
        seed: of the attack and of the batches.
        batch: images per batch; the size of the smaller group where that is less.

    Returns:
        ``batch``, the size that was used. For "robust" and "broken": ``images``, how many; ``norms``, of each batch;
        ``mean`` and ``per_image`` (mean / batch), None where there is no batch.

    Raises:
        ValueError: the batch is below 1.
    """
    if batch < 1:
        raise ValueError(f"batch is {batch}: use 1 image or more per batch")
    model = as_fixed_batch(model, x)
    clean = exact_logits(model, x)
    attacked = clean.clone()
    rows = (~misclassified(clean, y)).nonzero()[:, 0]
    for part, x_adv in attack_chunks(model, x, y, attack, seed, rows):
        attacked[part] = exact_logits(model, x_adv)
    rows = rows[attacked[rows].isfinite().all(1)]
    robust = attacked[rows].argmax(1) == y[rows]
    change = (attacked - clean)[rows].double()
    groups = {"robust": change[robust], "broken": change[~robust]}
    size = min([batch, *(len(group) for group in groups.values() if len(group))])
    return {
        "attack": describe_attack(attack),
        "batch": size,
        **{name: _of_batches(group, size, seed) for name, group in groups.items()},
    }


def _of_batches(change: Tensor, size: int, seed: int) -> dict[str, Any]:
    """The nuclear norms of batches of logit changes [n, k]."""
    shuffled = torch.randperm(len(change), generator=torch.Generator().manual_seed(derive_seed("nuclear", seed)))
    norms = [nuclear_norm(change[part.to(change.device)]) for part in shuffled.split(size) if len(part) == size]
    if not norms:
        return {"images": len(change), "norms": [], "mean": None, "per_image": None}
    values = torch.stack(norms)
    return {
        "images": len(change),
        "norms": numbers(values),
        "mean": number(values.mean()),
        "per_image": number(values.mean() / size),
    }


def mean_logit_distance(model: nn.Module, x: Images, y: Labels, threat: Threat, seed: int = 0) -> dict[str, Any]:
    """The mean distance between the logits of FGSM and of R-FGSM images; see ``logit_distance``.

    Args:
        model: returns logits; in any mode.
        x: clean images in [0, 1].
        y: their classes.
        threat: the norm and radius of both attacks.
        seed: of R-FGSM's random step.
    """
    model, total = as_fixed_batch(model, x), 0.0
    for rows in torch.arange(len(x), device=x.device).split(chunk_size(x)):
        noise = ImageNoise(seed, "diagnostics", rows.tolist())
        total += float(logit_distance(model, x[rows], y[rows], threat, noise)) * len(rows)
    return {"distance": number(total / len(x))}

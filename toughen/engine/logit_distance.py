"""How far the logits of one pass are from those of another."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from toughen.core.types import Logits, PerExample


def unlike(one: Tensor, other: Tensor) -> float:
    """How far logits are from ``other`` ones, as a share of these; see ``apart``."""
    if one.shape != other.shape:
        return math.inf
    off, size = apart(one, other)
    return float(off.norm() / size.norm().clamp(min=1e-12))


HIGHEST, COMMON = 5, 1e-4  # logits of an image that decide; the least share of their height that counts as their spread


def apart(one: Logits, other: Logits) -> tuple[PerExample, PerExample]:
    """Per image, how far logits are from ``other`` ones, and how far these lie from each other (L2).

    Only the highest of either count, without what they have in common: a height that changes no answer, or a class at
    -1e9, would hide the rest. What is not finite counts as 0.
    """
    one, other = (each.double().nan_to_num(0, 0, 0) for each in (one, other))
    count = min(HIGHEST, other.shape[1])
    decide = torch.cat([each.topk(count, 1).indices for each in (other, one)], 1)
    values, wanted = one.gather(1, decide), other.gather(1, decide)
    centred = wanted - wanted.mean(1, keepdim=True)
    off = values - values.mean(1, keepdim=True) - centred
    return off.norm(dim=1), torch.maximum(centred.norm(dim=1), COMMON * wanted.norm(dim=1))


SAME = 1e-3  # relative; float32 rounds at 1e-6, a GPU that multiplies in TF32 at 1e-4


def difference(one: Logits, other: Logits) -> float:
    """The largest relative difference between two logits of an image, as ``apart`` has it."""
    off, size = apart(other, one)
    return float((off / size.clamp(min=1e-12)).max())

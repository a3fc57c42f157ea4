"""How far the logits of one pass are from those of another pass on the same images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from toughen.core.types import Logits, PerExample


def relative_difference(one: Tensor, other: Tensor) -> float:
    """The distance of logits from ``other`` ones over all images, relative to the scale of ``other``; 0 if equal."""
    if one.shape != other.shape:
        return math.inf
    distance, scale = distance_and_scale(one, other)
    return float(distance.norm() / scale.norm().clamp(min=1e-12))


HIGHEST = 5  # logits of an image that are compared, those that decide its class
MIN_SPREAD = 1e-4  # of these logits, relative to their L2 norm


def distance_and_scale(one: Logits, other: Logits) -> tuple[PerExample, PerExample]:
    """For each image, the L2 distance of its logits from ``other`` ones, and the spread of these, to divide it by.

    Only the classes with the highest logits in either count, after their mean is subtracted: neither a constant added
    to all logits, which changes no prediction, nor a class at -1e9 may hide a difference. NaN and infinity count as 0.
    """
    one, other = (each.double().nan_to_num(0, 0, 0) for each in (one, other))
    count = min(HIGHEST, other.shape[1])
    classes = torch.cat([each.topk(count, 1).indices for each in (other, one)], 1)
    ours, theirs = one.gather(1, classes), other.gather(1, classes)
    centred = theirs - theirs.mean(1, keepdim=True)
    difference = ours - ours.mean(1, keepdim=True) - centred
    return difference.norm(dim=1), torch.maximum(centred.norm(dim=1), MIN_SPREAD * theirs.norm(dim=1))


SAME = 1e-3  # relative difference up to which logits count as equal; float32 rounds at 1e-6, TF32 at 1e-4


def largest_difference(one: Logits, other: Logits) -> float:
    """The largest relative difference of an image's logits between two passes."""
    distance, scale = distance_and_scale(other, one)
    return float((distance / scale.clamp(min=1e-12)).max())

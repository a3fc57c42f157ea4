"""Distances between two batches of logits [n, k], one value per image."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from toughen.core.types import Logits, PerExample


def kl_divergence(logits: Logits, clean: Logits) -> PerExample:
    """KL(softmax(clean) || softmax(logits)), in nats."""
    log_clean = F.log_softmax(clean, dim=1)
    return (log_clean.exp() * (log_clean - F.log_softmax(logits, dim=1))).sum(1)


def jensen_shannon(logits: Logits, other: Logits) -> PerExample:
    """The Jensen-Shannon divergence between two softmax outputs of an image, in nats: 0..log 2, symmetric."""
    log_p, log_q = F.log_softmax(logits, dim=1), F.log_softmax(other, dim=1)
    log_mean = torch.logaddexp(log_p, log_q) - math.log(2)
    return ((log_p.exp() * (log_p - log_mean)).sum(1) + (log_q.exp() * (log_q - log_mean)).sum(1)) / 2


def squared_logit_distance(logits: Logits, other: Logits) -> PerExample:
    """The squared L2 distance between two logit vectors of each image, [n]."""
    return (logits - other).square().sum(1)


def squared_distance(logits: Logits, clean: Logits) -> PerExample:
    """The squared L2 distance between two softmax outputs of each image, [n], 0..2."""
    return (F.softmax(logits, dim=1) - F.softmax(clean, dim=1)).square().sum(1)

"""Training without an adversary."""

from __future__ import annotations

from torch import nn

from toughen.core.gradients import logits
from toughen.core.types import Batch, Crafted, Images, Labels, Step
from toughen.methods.base import Method


class Standard(Method):
    """Cross-entropy on clean images: the baseline that every attack breaks.

    Passes: 3.
    """

    reports_clean = True
    graph_key = "the same in every step"

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        return Crafted(x_adv=x)

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        out = logits(model, x)
        clean = self.cross_entropy(out, y)
        return Step(clean, out, {"clean": clean.detach()})

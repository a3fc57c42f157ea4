"""Adversarial weight perturbation."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from toughen.core.types import Batch, Crafted, Images, Labels, Step
from toughen.methods.base import Method


class AWP(Method):
    """The loss of any method at adversarially perturbed weights (Wu et al., arXiv:2004.05884): AT-AWP, TRADES-AWP.

    Passes: +3, one more loss towards the weights: 3 where the method's loss runs the model once, 6 where twice. A clean
    pass that the method's attack and loss share is made again, because the loss is taken at other weights.

    The inner method crafts once. One step of ascent on its loss gives each weight matrix w of the model a direction v
    as long as w; the loss is then taken at w + gamma v, and its gradient moves w. The model's own weights are never
    touched: the perturbed ones are handed to a functional call, so an exception cannot leave the weights changed.
    Weight decay acts at w, where the released code applies it at w + gamma v. Biases and norm layers stay as they are.

    Args:
        inner: the method whose loss is taken, at whose images.
        gamma: length of the perturbation, relative to each layer's own (0.01 AT-AWP, 0.005 TRADES-AWP).
        begin_at: share of training before which weights are not perturbed (TRADES-AWP as released: 9 of 200 epochs).

    Raises:
        ValueError: gamma is negative or begin_at outside 0..1, or a step finds no weight to perturb.
    """

    def __init__(self, *, inner: Method, gamma: float | int = 0.01, begin_at: float | int = 0.0) -> None:
        super().__init__()
        if not gamma >= 0 or not 0 <= begin_at <= 1:
            raise ValueError(f"gamma ({gamma}) must be at least 0, begin_at ({begin_at}) a share of training, 0..1")
        self.method, self.gamma, self.begin_at = inner, gamma, begin_at
        self.replays, self.reports_clean = inner.replays, inner.reports_clean

    @property
    def is_adversarial(self) -> bool:
        return self.method.is_adversarial

    @property
    def graph_key(self) -> Hashable:
        return None if self.progress < self.begin_at else self.method.graph_key

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        return self.method.craft(model, x, y, batch)

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        if self.progress < self.begin_at:
            return self.method.loss(model, x, y, crafted)
        crafted = replace(crafted, clean=None)
        weights = {name: weight for name, weight in model.named_parameters() if perturbed(name, weight)}
        if not weights:
            raise ValueError(
                "AWP has nothing to perturb: no trained parameter of the model has 'weight' in its name and two "
                "or more dimensions"
            )
        ascent = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
        others = {name: weight.detach() for name, weight in model.named_parameters() if name not in weights}
        statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
        raised = self.method.loss(_Called(model, {**others, **statistics, **ascent}), x, y, crafted).loss
        slopes = torch.autograd.grad(raised, list(ascent.values()), allow_unused=True)
        moved = {
            name: weight if slope is None else weight + self.gamma * _as_long_as(weight.detach(), slope)
            for (name, weight), slope in zip(weights.items(), slopes, strict=True)
        }
        return self.method.loss(_Called(model, moved), x, y, crafted)


def perturbed(name: str, weight: Tensor) -> bool:
    """Whether a parameter is one of those that are perturbed: weights of two or more dimensions that are trained."""
    return "weight" in name and weight.ndim > 1 and weight.requires_grad


def _as_long_as(weight: Tensor, slope: Tensor) -> Tensor:
    factor: Tensor = weight.norm() / (slope.norm() + 1e-20)
    return slope * factor


class _Called(nn.Module):
    """A model that runs with other weights than its own; its modes and its remaining state are the model's."""

    def __init__(self, model: nn.Module, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.model, self.state = model, state
        self.training = model.training

    def forward(self, x: Images) -> Any:
        return functional_call(self.model, self.state, (x,))

"""Adversarial training for free."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from toughen.attacks.base import threat_of
from toughen.core import cost
from toughen.core.gradients import logits
from toughen.core.types import Batch, Crafted, Eps, Images, Labels, Mask, Norm, Real, Step
from toughen.methods.base import Method


class Free(Method):
    """Training m times on a batch, one backward for weights and perturbation (Shafahi et al., arXiv:1904.12843).

    Passes: 3 for each of the m steps on a batch; the gradient towards the images comes with that towards the weights.

    The perturbation belongs to a place in the batch, not to an image: it starts at zero and is never reset, neither for
    the next batch nor for the next epoch. It is kept within the ball, and the image that it makes within [0, 1]. The
    model runs in the mode it is in. An epoch of the trainer goes through the data once and so takes m times as many
    steps; the paper divides its epochs by m.

    Args:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        replays: m, how often a batch is trained on.
        step_size: length of the perturbation's step, in the units of eps; None means eps, as released.
        clamp: what keeps the image within [0, 1]: "delta" cuts the perturbation itself to what the batch's images
            allow, as FBF's authors do; "image" clips the image alone, as released by Free's authors: a clipped pixel
            gives no gradient, so its perturbation stays until it fits the image at this place in a later batch.

    Raises:
        ValueError: eps is missing or none that the norm admits, replays is below 1, or step_size below 0.
    """

    per_process_buffers = ("delta",)
    delta: Tensor

    def __init__(
        self,
        *,
        eps: Eps | None = None,
        norm: Norm = "linf",
        replays: int = 8,
        step_size: Real | None = None,
        clamp: Literal["delta", "image"] = "delta",
    ) -> None:
        super().__init__()
        self.eps, self.norm, self.replays, self.clamp = eps, norm, replays, clamp
        self.step_size = threat_of(self).eps if step_size is None else step_size
        if replays < 1 or not 0 <= self.step_size < math.inf:
            raise ValueError(f"replays ({replays}) must be at least 1, step_size ({step_size}) finite and at least 0")
        self.last: tuple[Images, Images, Mask | None] | None = None  # clean, of the last loss, where it may still move

    def prepare(self, model: nn.Module, shape: tuple[int, int, int], classes: int, images: int | None = None) -> None:
        super().prepare(model, shape, classes, images)
        like = next(model.parameters(), torch.zeros(()))
        self.register_buffer("delta", like.new_zeros(0, *shape))

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        threat_of(self).check(x)
        if len(x) > len(self.delta):  # a larger batch than any before
            self.delta = torch.cat([self.delta, self.delta.new_zeros(len(x) - len(self.delta), *x.shape[1:])])
        moved = x + self.delta[: len(x)]
        x_adv = moved.clamp(0, 1)
        if self.clamp == "image":
            return Crafted(x_adv=x_adv, extra={"inside": (moved >= 0) & (moved <= 1)})
        self.delta[: len(x)] = x_adv - x  # what was learned on another image may lead out of this one's box
        return Crafted(x_adv=x_adv)

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        x_adv = crafted.x_adv.detach().requires_grad_()
        self.last = x, x_adv, crafted.extra.get("inside")
        with cost.crafting():
            out = logits(model, x_adv)
        robust = self.cross_entropy(out, y)
        return Step(robust, out, {"robust": robust.detach()})

    def after_step(self, model: nn.Module) -> None:
        if self.last is None or self.last[1].grad is None:
            return
        (x, x_adv, inside), self.last = self.last, None
        assert x_adv.grad is not None
        threat, n = threat_of(self), len(x_adv)
        gradient = x_adv.grad if inside is None else x_adv.grad * inside
        moved = self.delta[:n] + self.step_size * threat.steepest(gradient)
        moved = threat.cut(moved) if self.clamp == "image" else threat.project(x + moved, x) - x
        self.delta[:n] = moved.to(self.delta.dtype)

"""Adversarial training for free."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
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
    the next batch nor for the next epoch. It is kept within the ball; the image that it makes is cut to [0, 1], and as
    released a pixel that is cut gives no gradient. The model runs in the mode it is in. An epoch of the trainer goes
    through the data once and so takes m times as many steps; the paper divides its epochs by m.

    Args:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        replays: m, how often a batch is trained on.
        step_size: length of the perturbation's step, in the units of eps; None means eps, as released.

    Raises:
        ValueError: eps is missing or none that the norm admits, replays is below 1, or step_size below 0.
    """

    own = ("delta",)
    delta: Tensor

    def __init__(
        self, *, eps: Eps | None = None, norm: Norm = "linf", replays: int = 8, step_size: Real | None = None
    ) -> None:
        super().__init__()
        self.eps, self.norm, self.replays = eps, norm, replays
        self.step_size = threat_of(self).eps if step_size is None else step_size
        if replays < 1 or not 0 <= self.step_size < math.inf:
            raise ValueError(f"replays ({replays}) must be at least 1, step_size ({step_size}) finite and at least 0")
        self.last: tuple[Images, Mask] | None = None  # what the last loss was taken on, and where it may still move

    def prepare(self, model: nn.Module, shape: tuple[int, int, int], classes: int, images: int | None = None) -> None:
        super().prepare(model, shape, classes, images)
        like = next(model.parameters(), torch.zeros(()))
        self.register_buffer("delta", like.new_zeros(0, *shape))

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        threat_of(self).check(x)
        if len(x) > len(self.delta):  # a larger batch than any before
            self.delta = torch.cat([self.delta, self.delta.new_zeros(len(x) - len(self.delta), *x.shape[1:])])
        moved = x + self.delta[: len(x)]
        return Crafted(x_adv=moved.clamp(0, 1), extra={"inside": (moved >= 0) & (moved <= 1)})

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        x_adv = crafted.x_adv.detach().requires_grad_()
        self.last = x_adv, crafted.extra["inside"]
        with cost.crafting():
            out = logits(model, x_adv)
        robust = F.cross_entropy(out, y)
        return Step(robust, out, {"robust": robust.detach()})

    def after_step(self, model: nn.Module) -> None:
        if self.last is None or self.last[0].grad is None:
            return
        (x_adv, inside), self.last = self.last, None
        assert x_adv.grad is not None
        threat, n = threat_of(self), len(x_adv)
        step = self.step_size * threat.steepest(x_adv.grad * inside)
        self.delta[:n] = threat.cut(self.delta[:n] + step).to(self.delta.dtype)

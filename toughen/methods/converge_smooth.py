"""A constraint on how the clean loss moves from epoch to epoch."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toughen.core.gradients import logits
from toughen.core.types import Batch, Crafted, Images, Labels, Plan, Step
from toughen.methods.base import Method
from toughen.methods.wrappers import batch_mean


class ConvergeSmooth(Method):
    """Any method with its clean loss held near the last epoch's (Zhao et al., ICCV 2023, arXiv:2308.12857).

    Passes: +3, a clean pass towards the weights; 1 in epochs without the constraint, 0 where the method's attack and
    loss share a clean pass, as NuAT's and GAT's.

    Before a single-step method collapses its clean loss leaves its course. Where a batch's clean cross-entropy lies
    further than a bound from the last epoch's mean, it is added to the loss if it is too high, and subtracted if it is
    too low. The bound is the last change between two epochs' means, kept between gamma / ratio and gamma. It acts from
    the third epoch on, until one epoch before the learning rate's first drop, where the loss may jump.

    Around NFGSM with a start of eps this is RS-ConvergeSmooth, whose released code takes the clean loss on the randomly
    moved images; around PGI it is MEP-ConvergeSmooth, whose clean loss has PGI's label smoothing. The paper's weight
    centralization is not part of it.

    Args:
        inner: the method that crafts, and whose loss is taken.
        weight: of the clean loss that is added or subtracted.
        gamma: the largest bound, in nats; 0.03 as released.
        ratio: gamma over the smallest bound; 1, as released, makes the bound gamma.
        stride: this many epochs before the first drop of the rate, and one more at the start, are without the
            constraint; 1 as released.

    Raises:
        ValueError: a setting is out of its range.
    """

    last_mean: Tensor
    last_change: Tensor
    epoch_sum: Tensor

    def __init__(
        self,
        *,
        inner: Method,
        weight: float | int = 1.0,
        gamma: float | int = 0.03,
        ratio: float | int = 1.0,
        stride: int = 1,
    ) -> None:
        super().__init__()
        if not (weight >= 0 and gamma >= 0 and ratio >= 1 and stride >= 0):
            raise ValueError(
                f"weight ({weight}), gamma ({gamma}) and stride ({stride}) must be at least 0, ratio ({ratio}) at "
                "least 1"
            )
        self.method, self.weight, self.gamma, self.ratio, self.stride = inner, weight, gamma, ratio, stride
        self.replays = inner.replays
        self.reports_clean = True
        for name in ("last_mean", "last_change", "epoch_sum"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))
        self.latest: Tensor | None = None  # the last loss's clean cross-entropy, until the step is done
        self.epoch = self.seen = 0  # epochs that this method trained, batches of the current one
        self.epochs, self.until = 1, float("inf")  # epochs of the run, and before which the constraint ends

    @property
    def is_adversarial(self) -> bool:
        return self.method.is_adversarial

    @property
    def acts(self) -> bool:
        """Whether the constraint holds in this epoch."""
        # other methods may have trained some of the run's epochs; progress stays 1 where no trainer sets it
        now = self.epoch if self.progress >= 1 else math.floor(self.progress * self.epochs + 1e-9)
        return self.stride < self.epoch and now < self.until

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        return self.method.craft(model, x, y, batch)

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        step = self.method.loss(model, x, y, crafted)
        out = None if crafted.bases else crafted.clean  # with bases they are logits of other images
        if out is None:
            with torch.set_grad_enabled(self.acts and torch.is_grad_enabled()):
                out = logits(model, x)
        smoothing = getattr(self.method, "smoothing", self.label_smoothing)
        clean = F.cross_entropy(out, y, label_smoothing=smoothing)
        self.latest = batch_mean(self, clean)
        loss = step.loss
        if self.acts:
            ahead = self.latest - self.last_mean
            outside = ahead.abs() > self.last_change.clamp(self.gamma / self.ratio, self.gamma)
            loss = loss + self.weight * (ahead.sign() * outside).to(clean.dtype) * clean
        return Step(loss, step.logits, {**step.terms, "clean": clean.detach()})

    def forget(self) -> None:
        super().forget()
        self.epoch = self.seen = 0
        for buffer in (self.last_mean, self.last_change, self.epoch_sum):
            buffer.zero_()

    def start(self, plan: Plan) -> None:
        super().start(plan)
        self.epochs = plan.epochs
        self.until = plan.epochs * (1.0 if plan.first_drop is None else plan.first_drop) - self.stride

    def after_step(self, model: nn.Module) -> None:
        super().after_step(model)
        if self.latest is not None:
            self.epoch_sum += self.latest
            self.seen, self.latest = self.seen + 1, None

    def after_epoch(self, metrics: dict[str, Any]) -> None:
        super().after_epoch(metrics)
        if self.seen:  # else another method trained this epoch
            self.epoch += 1
            mean = self.epoch_sum / self.seen
            self.last_change.copy_(mean - self.last_mean)
            self.last_mean.copy_(mean)
        self.epoch_sum.zero_()
        self.seen = 0

    def missed_epoch(self, metrics: dict[str, Any]) -> None:
        super().missed_epoch(metrics)
        self.epoch = 0  # the last mean is too old to compare with: as after the start

    def get_extra_state(self) -> dict[str, int]:
        return {"epoch": self.epoch, "seen": self.seen}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.epoch, self.seen = state["epoch"], state["seen"]

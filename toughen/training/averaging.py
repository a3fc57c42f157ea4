"""The moving average of a run's weights."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class ExponentialAverage(AveragedModel):
    """An exponential moving average of a model's weights and buffers, with a warm-up of the decay.

    Buffers of whole numbers or truth values are the model's own.

    After t updates the decay is min(decay, (1 + t) / (10 + t)), as TensorFlow's moving average has it: without the
    warm-up an average with a decay of 0.999 still holds 70 % of the initial weights after 350 steps.

    Args:
        model: what is averaged; the copy starts from it.
        decay: share of the average that is kept at each update, 0..1.
    """

    def __init__(self, model: nn.Module, decay: float | int) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = float(decay)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move the average towards the model; the first time it becomes the model.

        torch's own method reads the number of updates from the model's device, which synchronises with a GPU.
        """
        t = int(self.n_averaged)  # lies on the CPU
        decay = min(self.decay, (1 + t) / (10 + t)) if t else 0.0
        own, new = (list(chain(net.parameters(), net.buffers())) for net in (self.module, model))
        for kind in sorted({each.dtype for each in own}, key=str):
            some = [pair for pair in zip(own, new, strict=True) if pair[0].dtype is kind]
            if not t or not (kind.is_floating_point or kind.is_complex):  # whole numbers, such as indices, have no mean
                for average, value in some:
                    average.copy_(value)
            elif some:
                get_ema_multi_avg_fn(decay)([pair[0] for pair in some], [pair[1] for pair in some], t)
        self.n_averaged += 1

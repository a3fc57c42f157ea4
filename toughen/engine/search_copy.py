"""Copies of a net: in channels_last or bf16 for a fast search, or for another thread."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

FAILING = (RuntimeError, TypeError, NotImplementedError, AttributeError)  # raised where a net cannot be copied


def fast_copy(net: nn.Module, *, bf16: bool) -> nn.Module:
    """A frozen copy in evaluation mode, in channels_last; for bf16, its convolutions are cast once, not in every pass.

    In float32 on one core of an Intel Xeon, a gradient to the images takes 1.2 times as long without the copy on
    ResNet-18 of width 16 (0.9 to 1.2; median of six rounds in turns, beside other work).

    A net that cannot be copied is returned itself.
    """
    try:
        copied: nn.Module = copy.deepcopy(net).requires_grad_(False).eval()
    except FAILING:
        return net
    for weight in copied.parameters():
        if weight.ndim == 4:
            weight.data = _channels_last(weight.data)
    if bf16:
        for part in copied.modules():
            if type(part) is nn.Conv2d:
                part.to(torch.bfloat16)
            elif type(part) is nn.Linear:
                part.__class__ = _Float32Linear
    return copied


def _channels_last(filters: Tensor) -> Tensor:
    """Filters, [n, c, rows, columns], with which a convolution computes in channels_last.

    With one input channel, both memory formats have the same bytes, and PyTorch takes them for the other one: it copies
    the first feature maps before the next layer. Strides of channels_last make them unambiguous. On the CPU of an Intel
    Xeon, passes of small-cnn, fbf-mnist-cnn and madry-cnn take 1.1 to 1.5 times as long without (medians of 20 rounds).
    """
    filters = filters.contiguous(memory_format=torch.channels_last)
    if filters.shape[1] > 1 or filters.device.type != "cpu":
        return filters
    rows, columns = filters.shape[2:]
    return filters.as_strided(filters.shape, (rows * columns, 1, columns, 1))


def share_weights(net: nn.Module) -> nn.Module:
    """A copy that shares the parameters and has its own buffers."""
    shared: nn.Module = copy.deepcopy(net, {id(weight): weight for weight in net.parameters()})
    return shared


class _Float32Linear(nn.Linear):
    """A linear layer that multiplies in float32 under autocast, where its input is one vector per image.

    This costs little and makes the logits precise. With bf16 logits, Square does not see the effect of a small window
    and makes no progress.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 2:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())

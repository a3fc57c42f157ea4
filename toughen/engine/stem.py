"""A faster backward pass to the image for a net's first convolution on a CPU.

PyTorch's kernels are slow for a gradient with respect to one or three channels: for a 3 x 3 convolution of 32 channels
on MNIST, the backward pass takes five times as long as the forward pass, with as many operations. The product of
matrices here is faster; with a stride, for one channel alone: 1.3 to 4 times as fast for the 4 x 4 of FBF's net (the
quickest of 24 runs on a busy core), but a third as fast for a 7 x 7 on large colour images.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MAX_CHANNELS = 4  # input channels up to which it is faster, without a stride


def is_supported(part: nn.Conv2d) -> bool:
    """Whether ``Stem`` can replace a convolution and is faster: few input channels, no dilation, padded with zeros."""
    plain = part.groups == 1 and part.padding_mode == "zeros" and not isinstance(part.padding, str)
    few = part.in_channels == 1 or (part.in_channels <= MAX_CHANNELS and set(part.stride) == {1})
    return plain and few and set(part.dilation) == {1}


class Stem(nn.Conv2d):
    """A convolution over few channels with frozen weights; only its backward pass differs from ``nn.Conv2d``."""

    def forward(self, x: Tensor) -> Tensor:
        if not x.requires_grad or not torch.is_grad_enabled():
            return super().forward(x)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(self.weight.dtype)
        out: Tensor = _StemConvolution.apply(x, self.weight, self.bias, self.stride, self.padding)  # type: ignore[no-untyped-call]
        return out


class _StemConvolution(torch.autograd.Function):
    """Its backward pass is one matrix product for all pixels and filter taps, whose results are then added per tap."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.stride, ctx.padding, ctx.type = x.shape[2:], stride, padding, x.dtype
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        (n, _, down, across), (h, w), (above, left) = gradient.shape, ctx.size, ctx.padding
        row_step, column_step = ctx.stride
        filters, channels, rows, columns = weight.shape
        pixels = gradient.permute(0, 2, 3, 1).reshape(-1, filters)
        taps = torch.mm(weight.permute(2, 3, 1, 0).reshape(-1, filters), pixels.t())
        taps = taps.view(rows, columns, channels, n, down, across)
        padded = torch.zeros(
            channels, n, h + 2 * above, w + 2 * left, dtype=torch.promote_types(taps.dtype, torch.float32)
        )
        for row, column in itertools.product(range(rows), range(columns)):
            reached = padded[:, :, row::row_step, column::column_step]
            reached[:, :, :down, :across] += taps[row, column]
        padded = padded[:, :, above : above + h, left : left + w].transpose(0, 1).to(ctx.type)
        return padded, None, None, None, None

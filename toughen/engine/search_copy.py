"""Copies of a net to search with: laid out for speed, as a graph of layers, or for another thread."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from toughen.engine import stem
from toughen.engine.windows.graph import Graph

FAILING = (RuntimeError, TypeError, NotImplementedError, AttributeError)  # what a net that cannot be copied raises


def fast_copy(net: nn.Module, *, bf16: bool) -> nn.Module:
    """A copy laid out channels last, for bf16 with its convolutions cast once instead of at every pass.

    A net that cannot be copied comes back itself.
    """
    try:
        copied: nn.Module = copy.deepcopy(net).requires_grad_(False).eval()
    except FAILING:
        return net
    for weight in copied.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    if bf16:
        for part in copied.modules():
            if type(part) is nn.Conv2d:
                part.to(torch.bfloat16)
            elif type(part) is nn.Linear:
                part.__class__ = _Head
    if next(copied.parameters(), torch.empty(0)).device.type == "cpu":
        for part in copied.modules():
            if type(part) is nn.Conv2d and stem.fits(part):
                part.__class__ = stem.Stem
    return copied


def graph(net: nn.Module) -> Graph | None:
    """A copy as a graph; where launching kernels costs more than they do, asking in full is as fast."""
    if next(net.parameters(), torch.empty(0)).device.type != "cpu":
        return None
    try:
        return Graph(net)
    except ValueError:  # it is asked in full, with the same result
        return None


def share_weights(net: nn.Module) -> nn.Module:
    """A copy with the same weights, not copied, and buffers of its own."""
    shared: nn.Module = copy.deepcopy(net, {id(weight): weight for weight in net.parameters()})
    return shared


class _Head(nn.Linear):
    """A linear layer that, where it sees one vector an image, multiplies in float32.

    It is a small share of the work, but decides how finely logits are told apart: with bf16 logits, Square cannot see
    what a small window does, and stalls.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 2:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())

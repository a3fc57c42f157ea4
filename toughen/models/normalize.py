"""Normalisation as a model's first layer, so that images and eps keep the units [0, 1] everywhere."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from toughen.core.types import Images, Real
from toughen.models.parts import ContrastStretching
from toughen.utils.plural import count


class Normalize(nn.Module):
    """(x - mean) / std per channel.

    Args:
        mean: one number per channel, in [0, 1] units.
        std: one number per channel, in [0, 1] units, above 0.

    Raises:
        ValueError: the lengths differ, a number is not finite, or a standard deviation is not above 0; when it is
            called, the images have another number of channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[Real], std: Sequence[Real]) -> None:
        super().__init__()
        if len(mean) != len(std) or not mean:
            raise ValueError(f"mean has {len(mean)} numbers and std {len(std)}: give one of each per channel")
        if not all(math.isfinite(number) for number in (*mean, *std)) or min(std) <= 0:
            raise ValueError(f"mean {list(mean)} and std {list(std)} must be finite, and std above 0")
        self.register_buffer("mean", torch.tensor([float(number) for number in mean]))
        self.register_buffer("std", torch.tensor([float(number) for number in std]))

    def forward(self, x: Images) -> Images:
        if x.shape[-3] != len(self.mean):  # else a single channel would be used for all
            raise ValueError(f"the images have {count(x.shape[-3], 'channel')}, and the model takes {len(self.mean)}")
        return (x - self.mean.view(-1, 1, 1)) / self.std.view(-1, 1, 1)


def normalized(net: nn.Module, channels: int, mean: Sequence[Real] | None, std: Sequence[Real] | None) -> nn.Module:
    """``net`` behind a ``Normalize``, or ``net`` itself where neither statistic is given.

    Raises:
        ValueError: only one of mean and std is given, their length is not the number of channels, or the net stretches
            the contrast, for which values must be in [0, 1].
    """
    if mean is None and std is None:
        return net
    if mean is None or std is None:
        raise ValueError("only one of mean and std is given: give both, or neither for no normalisation")
    layer = Normalize(mean, std)
    if any(isinstance(each, ContrastStretching) for each in net.modules()):
        raise ValueError("contrast stretching takes values in [0, 1]: leave normalisation out, with --normalize false")
    if len(mean) != channels:
        raise ValueError(f"mean and std have {len(mean)} numbers, the images {channels} channels: give one per channel")
    return nn.Sequential(OrderedDict(normalize=layer, net=net))


def parts_of(model: nn.Module) -> tuple[Normalize | None, nn.Module]:
    """What ``normalized`` put together: the first layer, None where there is none, and the net."""
    if isinstance(model, nn.Sequential) and list(dict(model.named_children())) == ["normalize", "net"]:
        layer, net = model
        if isinstance(layer, Normalize):
            return layer, net
    return None, model

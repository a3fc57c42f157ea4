"""Closed second derivatives against those that PyTorch makes out of its own."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from problems import trained_net
from torch import Tensor, nn

from toughen.core.double_backward import FastDoubleBackward
from toughen.core.gradients import input_gradient
from toughen.core.objectives import cross_entropy
from toughen.core.types import Images, Labels

CHANNELS_LAST = torch.channels_last


def slopes(net: nn.Module, x: Tensor, y: Tensor, *, closed: bool) -> dict[str, Tensor]:
    """Of something that depends on the net's gradient towards images and on its loss; its buffers afterwards, too."""
    net = copy.deepcopy(net)
    x = x.clone().requires_grad_()
    with FastDoubleBackward() if closed else nullcontext():
        value = F.cross_entropy(net(x).float() if x.dtype == torch.float32 else net(x), y)
        (gradient,) = torch.autograd.grad(value, x, create_graph=True)
    ((gradient * gradient.detach().roll(1, 0)).sum() / gradient.square().sum() + 0.3 * value).backward()
    found = {name: weight.grad for name, weight in net.named_parameters() if weight.grad is not None}
    return {**found, **dict(net.named_buffers()), "gradient": gradient.detach()}


def built(*parts: nn.Module, channels: int = 3, size: int = 12) -> nn.Module:
    """Parts with something smooth before and after, so that second derivatives reach them all."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.Tanh(), *parts, nn.Tanh(), nn.Flatten(), nn.LazyLinear(5)
    ).double()
    net(torch.zeros(2, channels, size, size).double())
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.normal_(module.weight)
            if module.bias is not None:
                nn.init.normal_(module.bias)
    return net


def without_bias(norm: nn.BatchNorm2d) -> nn.Module:
    norm.bias = None  # type: ignore[assignment]
    return norm


def frozen(norm: nn.Module) -> nn.Module:
    return norm.eval()


PARTS = {
    "norm": [nn.BatchNorm2d(4)],
    "norm without bias": [without_bias(nn.BatchNorm2d(4))],
    "norm without weights": [nn.BatchNorm2d(4, affine=False)],
    "norm without statistics": [nn.BatchNorm2d(4, track_running_stats=False)],
    "norm with their mean": [nn.BatchNorm2d(4, momentum=None)],
    "frozen norm": [frozen(nn.BatchNorm2d(4))],
    "two norms": [nn.BatchNorm2d(4, eps=0.1), nn.Softplus(), nn.BatchNorm2d(4), nn.ReLU(inplace=True)],
    "flat norm": [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(4)],
    "stride": [nn.Conv2d(4, 6, 3, stride=2, padding=1)],
    "oblong": [nn.Conv2d(4, 6, (1, 3), stride=(1, 2), padding=(0, 1))],
    "dilation": [nn.Conv2d(4, 6, 3, dilation=2, bias=False)],
    "groups": [nn.Conv2d(4, 6, 3, groups=2)],
    "padding by name": [nn.Conv2d(4, 6, 3, padding="same")],
    "both": [nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 1)],
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, CHANNELS_LAST], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_equal_to_those_of_pytorch(parts: list[nn.Module], layout: Any) -> None:
    net: nn.Module = built(*copy.deepcopy(parts)).to(memory_format=layout)  # type: ignore[call-overload]
    x, y = torch.rand(6, 3, 12, 12, dtype=torch.float64).to(memory_format=layout), torch.arange(6) % 5
    closed, own = slopes(net, x, y, closed=True), slopes(net, x, y, closed=False)
    assert closed.keys() == own.keys()
    scale = max(float(slope.abs().max()) for slope in own.values())
    for name, slope in own.items():
        torch.testing.assert_close(closed[name], slope, rtol=1e-9, atol=1e-12 * scale, msg=name)


def test_a_net_that_takes_one_image_without_a_batch() -> None:
    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Conv2d(3, 5, 12).double()

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.part(image).tanh().flatten() for image in x])

    x, y = torch.rand(2, 3, 12, 12, dtype=torch.float64), torch.tensor([0, 3])
    net = Alone()
    closed, own = slopes(net, x, y, closed=True), slopes(net, x, y, closed=False)
    for name, slope in own.items():
        torch.testing.assert_close(closed[name], slope, rtol=1e-9, atol=1e-15, msg=name)


def test_bf16_is_as_near_as_that_of_pytorch(mnist: tuple[Images, Labels]) -> None:
    """How far each weight's slope in bf16 lies from float64's, in its length."""
    net, (x, y) = trained_net(), mnist
    net.train()
    exact = slopes(copy.deepcopy(net).double(), x.double(), y, closed=False)
    far: dict[bool, list[float]] = {}
    for closed in (True, False):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = slopes(net, x, y, closed=closed)
        names = [name for name, weight in net.named_parameters() if exact[name].norm() > 1e-6]
        far[closed] = [float((found[name].double() - exact[name]).norm() / exact[name].norm()) for name in names]
    assert far[True]
    assert sum(far[True]) < 1.1 * sum(far[False]), far


def test_input_gradient_uses_them(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    gradient = input_gradient(trained_net(), x, y, cross_entropy, create_graph=True).gradient
    waiting, seen = [gradient.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [each for each, _ in node.next_functions]
    names = {type(node).__name__ for node in seen}
    assert any("_ConvGradient" in name for name in names)
    assert not any("ConvolutionBackward" in name for name in names), names

"""The first convolution's gradient, against autograd's own in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from toughen.core.types import Images, Labels
from toughen.engine import stem


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "padding"),
    [
        (1, 3, 1, 0), (1, (5, 4), 1, (2, 1)), (3, 3, 1, 1), (3, (1, 7), 1, (0, 3)), (4, 5, 1, 4),
        (1, 4, 2, 1), (1, 7, 2, 3), (1, 2, 3, 0), (1, (3, 5), (1, 2), (2, 0)), (1, 4, 4, 0),
    ],
)  # fmt: skip
def test_the_gradient_is_that_of_any_convolution(
    channels: int, kernel: int, stride: int, padding: int, bias: bool
) -> None:
    own = nn.Conv2d(channels, 6, kernel, stride, padding, bias=bias, dtype=torch.float64).requires_grad_(False)
    assert stem.is_supported(own)
    fast = copy.deepcopy(own)
    fast.__class__ = stem.Stem
    x = torch.randn(3, channels, 9, 11, dtype=torch.float64)
    found = []
    for part in (own, fast):
        images = x.clone().requires_grad_()
        out = part(images)
        weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out)
        found.append((out.detach(), *torch.autograd.grad((out * weights).sum(), images)))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        {"stride": 2}, {"dilation": 2}, {"dilation": (1, 2)}, {"groups": 3}, {"padding_mode": "reflect", "padding": 1},
        {"padding": "same"},
    ],
)  # fmt: skip
def test_other_convolutions_are_left_alone(settings: dict[str, object]) -> None:
    assert not stem.is_supported(nn.Conv2d(3, 6, 3, **settings))  # type: ignore[arg-type]
    assert not stem.is_supported(nn.Conv2d(5, 6, 3))


def test_in_bf16_it_is_as_near_as_the_usual_one(mnist: tuple[Images, Labels]) -> None:
    x = mnist[0]
    exact = nn.Conv2d(1, 32, 3).requires_grad_(False)
    gradients: list[torch.Tensor] = []
    for made in (exact, copy.deepcopy(exact).to(torch.bfloat16), copy.deepcopy(exact).to(torch.bfloat16)):
        if len(gradients) == 2:
            made.__class__ = stem.Stem
        images = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=made.weight.dtype == torch.bfloat16):
            out = made(images)
        gradients.append(torch.autograd.grad(out.float().sin().sum(), images)[0])
    usual, ours = ((gradient - gradients[0]).norm() / gradients[0].norm() for gradient in gradients[1:])
    assert ours < 1.2 * usual < 0.02

"""What the tests of methods share: a small net, the same net written out as formulas, losses in plain arithmetic.

Nothing here uses toughen's arithmetic: it is what toughen is compared with.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toughen.core.rng import Noise
from toughen.core.types import Batch


class Net(nn.Module):
    """Convolution, batch norm, ReLU, linear: [n, 1, 28, 28] to [n, 10], float64, its statistics away from (0, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 5, stride=3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4 * 8 * 8, 10)
        assert self.norm.running_mean is not None and self.norm.running_var is not None
        for values in (self.norm.weight, self.norm.bias, self.norm.running_mean):
            nn.init.normal_(values)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(F.relu(self.norm(self.convolution(x))).flatten(1))
        return out


class Written:
    """``Net`` as formulas over copies of its weights; a pass in training mode moves the statistics.

    Attributes:
        masks: what the next passes in training mode multiply hidden units by, for a net with dropout.
    """

    def __init__(self, net: Net) -> None:
        self.weights = {name: weight.detach().clone().requires_grad_() for name, weight in net.named_parameters()}
        assert net.norm.running_mean is not None and net.norm.running_var is not None
        self.mean, self.var = net.norm.running_mean.clone(), net.norm.running_var.clone()
        self.masks: list[Tensor] = []

    def training(self, x: Tensor) -> Tensor:
        h = self._convolved(x)
        mean, var = h.mean((0, 2, 3)), h.var((0, 2, 3), unbiased=False)
        n = h.numel() / h.shape[1]
        self.mean = 0.9 * self.mean + 0.1 * mean.detach()
        self.var = 0.9 * self.var + 0.1 * var.detach() * n / (n - 1)
        return self._rest(h, mean, var, self.masks.pop(0) if self.masks else 1.0)

    def evaluation(self, x: Tensor) -> Tensor:
        return self._rest(self._convolved(x), self.mean, self.var)

    def _convolved(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weights["convolution.weight"], stride=3)

    def _rest(self, h: Tensor, mean: Tensor, var: Tensor, mask: Tensor | float = 1.0) -> Tensor:
        h = (h - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        h = h * self.weights["norm.weight"][:, None, None] + self.weights["norm.bias"][:, None, None]
        return (h.clamp(min=0).flatten(1) * mask) @ self.weights["linear.weight"].T + self.weights["linear.bias"]


class Pixels(nn.Linear):
    """Two-pixel images [n, 1, 1, 2] to two logits, the pixels themselves: weights are the identity."""

    def __init__(self) -> None:
        super().__init__(2, 2, bias=False, dtype=torch.float64)
        nn.init.eye_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1))


class Given(Noise):
    """Noise that is what the test says, whichever law is asked for: draw after draw, then the last one again."""

    def __init__(self, *draws: Tensor) -> None:
        self.draws = list(draws)

    def uniform(self, like: Tensor) -> Tensor:
        return (self.draws.pop(0) if len(self.draws) > 1 else self.draws[0]).clone()

    normal = sign = uniform


def given(*draws: Tensor | list[Any]) -> Batch:
    """A batch whose noise is these numbers, for successive draws."""
    return Batch(noise=Given(*(torch.as_tensor(each, dtype=torch.float64) for each in draws)))


def two_pixels(*images: tuple[float, float]) -> Tensor:
    return torch.tensor(images, dtype=torch.float64).view(-1, 1, 1, 2)


def cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    """The mean of log sum exp z - z_y."""
    return (z.exp().sum(1).log() - z[torch.arange(len(y)), y]).mean()


def kl(z: Tensor, z_adv: Tensor) -> Tensor:
    """The sum of p log(p / q) over classes, its mean over images."""
    p, q = (each.exp() / each.exp().sum(1, keepdim=True) for each in (z, z_adv))
    return (p * (p / q).log()).sum(1).mean()


def nuclear(matrix: Tensor) -> Tensor:
    """The sum of singular values out of numpy's decomposition U S V^T, as <U V^T, matrix>, so with gradient U V^T."""
    u, _, vt = np.linalg.svd(matrix.detach().numpy(), full_matrices=False)
    return (torch.from_numpy(u @ vt) * matrix).sum()


def sign_of_slope(value: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(value(x), x)
    return slope.sign()


def clip(x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
    """As the sources do it: to [0, 1], the perturbation to +-eps, to [0, 1] again."""
    return (x + (x_adv.clamp(0, 1) - x).clamp(-eps, eps)).clamp(0, 1)


def close(found: Tensor, expected: Tensor | float) -> bool:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    return found.shape == expected.shape and bool((found.double() - expected).abs().max() < 1e-9)


def pair() -> tuple[Net, Written]:
    """The same weights twice: a module in training mode, and formulas."""
    net = Net().train()
    return net, Written(copy.deepcopy(net))


def same_step(net: Net, loss: Tensor, written: Written, expected: Tensor) -> None:
    """Assert that loss, weight gradients and batch-norm statistics of one step agree to 1e-9."""
    loss.backward()
    assert close(loss.detach(), expected.detach())
    slopes = torch.autograd.grad(expected, list(written.weights.values()))
    for (name, weight), slope in zip(net.named_parameters(), slopes, strict=True):
        assert weight.grad is not None and close(weight.grad, slope), name
        assert slope.abs().max() > 1e-4, name  # so that the comparison says something
    assert net.norm.running_mean is not None and net.norm.running_var is not None
    assert close(net.norm.running_mean, written.mean) and close(net.norm.running_var, written.var)

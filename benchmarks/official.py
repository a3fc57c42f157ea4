"""Training steps as the methods' released scripts make them: what toughen's steps are timed against.

Written from the algorithms, in plain float32, with the passes that the scripts make and no others: where they call
``backward()`` on the model, weight gradients are made here too, and a forward that they repeat is repeated. PAP and
R-MGM have no released code; theirs are the papers' equations in the same way. Each step takes the model, its optimizer,
images in [0, 1], labels, and the number of the step in its epoch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

EPS = 8 / 255
Step = Callable[[nn.Module, Optimizer, Tensor, Tensor, int], None]


def _descend(optimizer: Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _ascended(loss: Tensor, images: Tensor) -> Tensor:
    """The gradient towards the images, out of a backward pass that fills every weight's ``.grad`` too."""
    loss.backward()
    assert images.grad is not None
    return images.grad.detach()


def standard(model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor, number: int) -> None:
    """Plain training: the unit."""
    _descend(optimizer, F.cross_entropy(model(x), y))


def fbf(model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor, number: int) -> None:
    """locuslab/fast_adversarial, train_fgsm.py: a uniform start, a step of 10/255, all in training mode."""
    delta = torch.empty_like(x).uniform_(-EPS, EPS)
    delta = ((x + delta).clamp(0, 1) - x).requires_grad_()
    gradient = _ascended(F.cross_entropy(model(x + delta), y), delta)
    delta = (delta + 10 / 255 * gradient.sign()).clamp(-EPS, EPS).detach()
    _descend(optimizer, F.cross_entropy(model((x + delta).clamp(0, 1)), y))


def _pgd(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Ten steps of 2/255 from a uniform start, with weight gradients, in the model's mode."""
    delta = torch.empty_like(x).uniform_(-EPS, EPS)
    delta = ((x + delta).clamp(0, 1) - x).requires_grad_()
    for _ in range(10):
        gradient = _ascended(F.cross_entropy(model(x + delta), y), delta)
        moved = (delta + 2 / 255 * gradient.sign()).clamp(-EPS, EPS).detach()
        delta = ((x + moved).clamp(0, 1) - x).requires_grad_()
    return (x + delta).detach()


def pgd(model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor, number: int) -> None:
    """locuslab/fast_adversarial, train_pgd.py, with ten steps."""
    _descend(optimizer, F.cross_entropy(model(_pgd(model, x, y)), y))


def trades(model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor, number: int) -> None:
    """yaodongyu/TRADES, trades.py: the clean pass is made again at every step of the attack, and twice in the loss."""
    model.eval()
    x_adv = x + 0.001 * torch.randn_like(x)
    for _ in range(10):
        x_adv.requires_grad_()
        with torch.enable_grad():
            ahead = model(x_adv).log_softmax(1)
            loss = F.kl_div(ahead, model(x).softmax(1), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x_adv)
        x_adv = torch.min(torch.max(x_adv.detach() + 0.007 * gradient.sign(), x - 0.031), x + 0.031).clamp(0, 1)
    model.train()
    clean = F.cross_entropy(model(x), y)
    robust = F.kl_div(model(x_adv).log_softmax(1), model(x).softmax(1), reduction="batchmean")
    _descend(optimizer, clean + 6 * robust)


def awp(model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor, number: int) -> None:
    """csdongxian/AWP, AT_AWP: PGD-10 in training mode, one ascent step of a copy's weights, the loss at those weights.

    A forward of the clean images, for the log only, is part of each step there.
    """
    x_adv = _pgd(model, x, y)
    proxy = copy.deepcopy(model)
    _descend(SGD(proxy.parameters(), lr=0.01), -F.cross_entropy(proxy(x_adv), y))
    moved = []
    with torch.no_grad():
        for (name, weight), other in zip(model.named_parameters(), proxy.parameters(), strict=True):
            if weight.ndim > 1 and "weight" in name:
                step = other - weight
                step *= 0.01 * weight.norm() / (step.norm() + 1e-20)
                weight.add_(step)
                moved.append((weight, step))
    _descend(optimizer, F.cross_entropy(model(x_adv), y))
    with torch.no_grad():
        for weight, step in moved:
            weight.sub_(step)
    model(x)


def _start(x: Tensor) -> Tensor:
    return (x + 4 / 255 * (0.5 - torch.rand_like(x)).sign()).clamp(0, 1).requires_grad_()


def _stepped(x: Tensor, start: Tensor, gradient: Tensor) -> Tensor:
    delta = ((start.detach() + EPS * gradient.sign()).clamp(0, 1) - x).clamp(-EPS, EPS)
    return (x + delta).clamp(0, 1)


def nuat(model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor, number: int) -> None:
    """val-iisc/NuAT, NuAT_cifar10.py: clean pass in training mode, the attack's in evaluation mode; its nuclear norm
    counts in every other step, and is differentiated through both passes."""
    clean = model(x)
    start = _start(x)
    model.eval()
    out = model(start)
    loss = F.cross_entropy(out, y)
    if number % 2:
        loss = loss + 4 * torch.linalg.matrix_norm(clean - out, "nuc") / len(x)
    x_adv = _stepped(x, start, _ascended(loss, start))
    model.train()
    robust, clean = model(x_adv), model(x)
    _descend(optimizer, F.cross_entropy(clean, y) + 4 * torch.linalg.matrix_norm(clean - robust, "nuc") / len(x))


def gat(model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor, number: int) -> None:
    """val-iisc/GAMA-GAT, GAT_cifar10.py: as NuAT, but the term that does not count is differentiated all the same."""
    clean = model(x).softmax(1)
    start = _start(x)
    model.eval()
    out = model(start)
    guided = (clean - out.softmax(1)).square().sum(1).mean()
    x_adv = _stepped(x, start, _ascended(F.cross_entropy(out, y) + number % 2 * 10 * guided, start))
    model.train()
    robust, clean = model(x_adv).softmax(1), model(x)
    _descend(optimizer, F.cross_entropy(clean, y) + 10 * (clean.softmax(1) - robust).square().sum(1).mean())


def _fgsm(model: nn.Module, x: Tensor, y: Tensor, size: float) -> Tensor:
    start = x.clone().requires_grad_()
    return (x + size * _ascended(F.cross_entropy(model(start), y), start).sign()).clamp(0, 1).detach()


def rmgm(model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor, number: int) -> None:
    """R-MGM, its loss as printed: FGSM and R-FGSM images, each from a pass of their own, then one pass for both."""
    near = (x + EPS / 2 * torch.randn_like(x).sign()).clamp(0, 1)
    both = torch.cat([_fgsm(model, x, y, EPS), _fgsm(model, near, y, EPS / 2)])
    out, other = model(both).chunk(2)
    _descend(optimizer, F.cross_entropy(out, y) + 5 * (out - other).square().sum(1).mean())


class PAP:
    """PAP-FGSM, Algorithm 1: FGSM images; FGSM and stored I-FGSM images of a tenth of a batch, kept for seven steps."""

    def __init__(self) -> None:
        self.kept: tuple[Tensor, Tensor, Tensor] | None = None

    def __call__(self, model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor, number: int) -> None:
        if number % 7 == 0 or self.kept is None:
            rows = torch.randperm(len(x))[: round(len(x) / 10)]
            self.kept = x[rows], y[rows], x[rows]
        images, labels, iterate = self.kept
        x_adv = _fgsm(model, x, y, EPS)
        single = _fgsm(model, images, labels, EPS * (number % 7 + 1) / 7)
        iterate = _fgsm(model, iterate, labels, EPS / 7)
        self.kept = images, labels, iterate
        regulariser = (model(single) - model(iterate)).square().sum(1).mean()
        _descend(optimizer, F.cross_entropy(model(x_adv), y) + 0.1 * regulariser)


STEPS: dict[str, Any] = {
    "FBF": fbf,
    "PGDAT": pgd,
    "TRADES": trades,
    "AWP": awp,
    "NuAT": nuat,
    "GAT": gat,
    "RMGM": rmgm,
    "PAP": PAP(),
}
PUBLISHED = {"FBF": 2.04, "PGDAT": 11.17, "TRADES": 13.43, "AWP": 12.88, "NuAT": 3.77, "GAT": 4.05}
"""Units, plain float32 training steps, that the released scripts' steps took on ResNet-18 and 64 images, 2 cores of an
AMD EPYC with avx512_bf16, torch 2.15."""

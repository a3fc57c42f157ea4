"""Training steps as in the methods' released scripts; toughen's steps are timed against them.

Written from the algorithms, in plain float32, with the passes that the scripts make and no others: where they call
``backward()`` on the model, weight gradients are made here too, and a forward that they repeat is repeated. PAP and
R-MGM have no released code; theirs are the papers' equations in the same way. Each step takes the model, its optimizer,
images in [0, 1], labels, and the number of the step in its epoch. ``PASSES`` says how much work each is.
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
    """The gradient with respect to the images, by a backward pass that also computes every weight's ``.grad``."""
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


def fgsm(model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor, number: int) -> None:
    """The same script with its start at zero and a step of eps."""
    delta = torch.zeros_like(x).requires_grad_()
    delta = (EPS * _ascended(F.cross_entropy(model(x + delta), y), delta).sign()).clamp(-EPS, EPS)
    _descend(optimizer, F.cross_entropy(model((x + delta).clamp(0, 1)), y))


def nfgsm(model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor, number: int) -> None:
    """pdejorge/N-FGSM, train.py: noise of twice eps, a step of eps, no projection to the ball, no weight gradients."""
    eta = torch.empty_like(x).uniform_(-2 * EPS, 2 * EPS)
    eta = ((x + eta).clamp(0, 1) - x).requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(x + eta), y), eta)
    delta = ((x + eta + EPS * gradient.sign()).clamp(0, 1) - x).detach()
    _descend(optimizer, F.cross_entropy(model(x + delta), y))


def gradalign(model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor, number: int) -> None:
    """tml-epfl/understanding-fast-adv-training, train.py: the gradient at a random point is differentiated again."""
    delta = torch.empty_like(x).uniform_(-EPS, EPS).requires_grad_()
    value = F.cross_entropy(model((x + delta).clamp(0, 1)), y)
    gradient = torch.autograd.grad(value, delta, create_graph=True)[0].detach()
    delta = ((x + (delta + 1.25 * EPS * gradient.sign()).clamp(-EPS, EPS)).clamp(0, 1) - x).detach()
    loss = F.cross_entropy(model(x + delta), y)
    near = torch.empty_like(x).uniform_(-EPS, EPS).requires_grad_()
    (other,) = torch.autograd.grad(F.cross_entropy(model(x + near), y), near, create_graph=True)
    both = (gradient.flatten(1).norm(dim=1) != 0) & (other.flatten(1).norm(dim=1) != 0)
    cosine = F.cosine_similarity(gradient[both].flatten(1), other[both].flatten(1))
    _descend(optimizer, loss + 0.2 * (1 - cosine.mean()))


class Free:
    """locuslab/fast_adversarial, train_free.py: one backward for the weights and for a perturbation that is kept."""

    def __init__(self) -> None:
        self.delta: Tensor | None = None

    def __call__(self, model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor, number: int) -> None:
        if self.delta is None:
            self.delta = torch.zeros_like(x)
        delta = self.delta.requires_grad_()
        loss = F.cross_entropy(model(x + delta), y)
        optimizer.zero_grad()
        gradient = _ascended(loss, delta)
        delta = (delta + EPS * gradient.sign()).clamp(-EPS, EPS).detach()
        self.delta = (x + delta).clamp(0, 1) - x
        optimizer.step()


class PGI:
    """jiaxiaojunQAQ/FGSM-PGI, FGSM_MEP.py: the pass of the attack, weight gradients and all, is used by the loss too.

    Each image's start and momentum are kept; here those of one batch.
    """

    def __init__(self) -> None:
        self.delta: Tensor | None = None
        self.momentum = torch.zeros(())

    def __call__(self, model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor, number: int) -> None:
        if self.delta is None:
            self.delta = EPS * torch.randn_like(x).sign()
            self.momentum = torch.zeros_like(x)
        delta = self.delta.requires_grad_()
        before = model(x + delta)
        F.cross_entropy(before, y, label_smoothing=4 / 9).backward(retain_graph=True)
        assert delta.grad is not None
        gradient = delta.grad.detach()
        self.momentum = gradient / gradient.norm(p=1) + 0.3 * self.momentum
        following = (delta + EPS * self.momentum.sign()).clamp(-EPS, EPS).detach()
        self.delta = (x + following).clamp(0, 1) - x
        moved = (x + (delta + EPS * gradient.sign()).clamp(-EPS, EPS)).clamp(0, 1).detach()
        out = model(moved)
        _descend(optimizer, F.cross_entropy(out, y, label_smoothing=4 / 9) + 10 * F.mse_loss(out, before))


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


def _trades_attack(model: nn.Module, x: Tensor, eps: float, size: float) -> Tensor:
    """TRADES' ten steps in evaluation mode; the clean pass is made again at each of them."""
    model.eval()
    x_adv = x + 0.001 * torch.randn_like(x)
    for _ in range(10):
        x_adv.requires_grad_()
        ahead = model(x_adv).log_softmax(1)
        loss = F.kl_div(ahead, model(x).softmax(1), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x_adv)
        x_adv = torch.min(torch.max(x_adv.detach() + size * gradient.sign(), x - eps), x + eps).clamp(0, 1)
    model.train()
    return x_adv


def _trades_loss(model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor) -> Tensor:
    """The clean images go forward twice."""
    clean = F.cross_entropy(model(x), y)
    return clean + 6 * F.kl_div(model(x_adv).log_softmax(1), model(x).softmax(1), reduction="batchmean")


def trades(model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor, number: int) -> None:
    """yaodongyu/TRADES, trades.py: the clean pass is made again at every step of the attack, and twice in the loss."""
    x_adv = _trades_attack(model, x, 0.031, 0.007)
    _descend(optimizer, _trades_loss(model, x, y, x_adv))


class _Perturbed:
    """A step at weights that a proxy's one step of ascent has moved (csdongxian/AWP, utils_awp.py)."""

    def __init__(self, gamma: float, rate: float) -> None:
        self.gamma, self.rate = gamma, rate
        self.proxy: nn.Module | None = None

    def descend(self, model: nn.Module, optimizer: Optimizer, loss: Callable[[nn.Module], Tensor]) -> None:
        if self.proxy is None:
            self.proxy = copy.deepcopy(model)
        self.proxy.load_state_dict(model.state_dict())
        self.proxy.train()
        _descend(SGD(self.proxy.parameters(), lr=self.rate), -loss(self.proxy))
        moved = []
        with torch.no_grad():
            for (name, weight), other in zip(model.named_parameters(), self.proxy.parameters(), strict=True):
                if weight.ndim > 1 and "weight" in name:
                    step = other - weight
                    step *= self.gamma * weight.norm() / (step.norm() + 1e-20)
                    weight.add_(step)
                    moved.append((weight, step))
        _descend(optimizer, loss(model))
        with torch.no_grad():
            for weight, step in moved:
                weight.sub_(step)


class AWP:
    """csdongxian/AWP, AT_AWP: PGD-10 in training mode, and a forward of the clean images for the log only."""

    def __init__(self) -> None:
        self.perturbed = _Perturbed(gamma=0.01, rate=0.01)

    def __call__(self, model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor, number: int) -> None:
        x_adv = _pgd(model, x, y)
        self.perturbed.descend(model, optimizer, lambda net: F.cross_entropy(net(x_adv), y))
        model(x)


class TRADESAWP:
    """csdongxian/AWP, trades_AWP: TRADES' attack, and its loss twice."""

    def __init__(self) -> None:
        self.perturbed = _Perturbed(gamma=0.005, rate=0.1)

    def __call__(self, model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor, number: int) -> None:
        x_adv = _trades_attack(model, x, EPS, 2 / 255)
        self.perturbed.descend(model, optimizer, lambda net: _trades_loss(net, x, y, x_adv))


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


def nuat2(model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor, number: int) -> None:
    """val-iisc/NuAT, NuAT2_WRN_cifar10.py: the whole attack in evaluation mode, its clean logits detached; two steps,
    the first one with the nuclear norm."""
    model.eval()
    clean = model(x).detach()
    x_adv = _start(x)
    for step in range(2):
        x_adv = x_adv.detach().requires_grad_()
        out = model(x_adv)
        loss = F.cross_entropy(out, y)
        if step == 0:
            loss = loss + 4 * torch.linalg.matrix_norm(clean - out, "nuc") / len(x)
        x_adv = _stepped(x, x_adv, _ascended(loss, x_adv))
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


STEPS: dict[str, Any] = {  # a step, or what makes one that remembers
    "FGSMAT": fgsm,
    "FBF": fbf,
    "NFGSM": nfgsm,
    "GradAlign": gradalign,
    "PGI": PGI,
    "Free": Free,
    "GAT": gat,
    "NuAT": nuat,
    "NuAT2": nuat2,
    "RMGM": rmgm,
    "PAP": PAP,
    "PGDAT": pgd,
    "TRADES": trades,
    "AWP": AWP,
    "TRADES-AWP": TRADESAWP,
}


def step(method: str) -> Step:
    """A step of this method, with its own state if the method has one."""
    found = standard if method == "Standard" else STEPS[method]
    made: Step = found() if isinstance(found, type) else found
    return made


PASSES = {
    "Standard": 3,
    "FGSMAT": 6,  # forward 1, backward 2 to images and weights; the update 3
    "FBF": 6,
    "NFGSM": 5,  # the gradient is taken towards the images alone
    "GradAlign": 11,  # attack 2, adversarial 3, gradient at a random point 2, its gradient towards the weights 4
    "PGI": 8,  # two forwards, a backward of the first with weights, one of both
    "Free": 3,
    "GAT": 12,  # clean 1, attack 1 and a backward of both 4, the update 6
    "NuAT": 11,  # as GAT, but in every other step the attack's backward does not reach the clean pass
    "NuAT2": 13,  # clean 1, two steps 6, the update 6
    "RMGM": 12,  # two attacks 6, the update of both batches 6
    "PAP": 7.2,  # attack 3, two tenths 0.6, the update of all three 3.6
    "PGDAT": 33,  # ten steps 30, the update 3
    "TRADES": 39,  # ten steps of two forwards and a backward to the images 30, three passes with their backward 9
    "AWP": 37,  # PGD 30, the proxy's step 3, the update 3, a clean forward for the log 1
    "TRADES-AWP": 48,  # TRADES' attack 30, its loss at the proxy's weights 9 and at the moved ones 9
}
"""Forward passes of one batch that a step's arithmetic amounts to, as it follows from each script's text: a gradient
to the images is one more, to the weights another one. Tests compare them with a count of what the steps really do."""

PUBLISHED = {"FBF": 2.04, "PGDAT": 11.17, "TRADES": 13.43, "AWP": 12.88, "NuAT": 3.77, "GAT": 4.05}
"""Units, plain float32 training steps, that the released scripts' steps took on ResNet-18 and 64 images, 2 cores of an
AMD EPYC with avx512_bf16, torch 2.15."""

"""Models whose answers are known by hand, and the checks that every attack must pass."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from toughen.attacks import Attack
from toughen.core.types import Images, Labels, Norm
from toughen.engine.device import one_thread

MakeAttack: TypeAlias = Callable[..., Attack]


class Linear(nn.Module):
    """Class 0 where w.x > w.center, class 1 beyond; two more classes lie far below both, so that no step meets them."""

    def __init__(self, weight: Tensor, center: Tensor) -> None:
        super().__init__()
        self.weight, self.center = nn.Parameter(weight), center

    def forward(self, x: Tensor) -> Tensor:
        score = ((x - self.center) * self.weight).flatten(1).sum(1)
        far = torch.full_like(score, -30)
        return torch.stack([score, -score, far, far], 1)


def linear_problem(norm: Norm) -> tuple[Linear, Images, Labels, float]:
    """A model, one image in [0.4, 0.6] of class 0, its label, and the exact distance to the boundary.

    The nearest point of a plane lies |w.x| / (dual norm of w) away; that is 0.1 for L-inf and 0.3 for L2, so that
    no attack of 1.1 x this distance reaches 0 or 1.
    """
    random = torch.Generator().manual_seed(0)
    weight = torch.randn((1, 3, 8, 8), generator=random, dtype=torch.float64)
    x = 0.5 + 0.1 * (2 * torch.rand((1, 3, 8, 8), generator=random, dtype=torch.float64) - 1)
    distance, dual = (0.1, weight.abs().sum()) if norm == "linf" else (0.3, weight.square().sum().sqrt())
    along = weight / weight.square().sum()  # moving x by -s x along lowers the score by s
    model = Linear(weight[0], (x - along * distance * dual)[0])
    return model, x, torch.zeros(1, dtype=torch.int64), distance


def within(x_adv: Images, x: Images, norm: Norm, eps: float) -> bool:
    """Whether all images are in the ball and in the box, worked out here and not by what is tested."""
    delta = (x_adv - x).flatten(1).double()
    moved = delta.abs().amax(1) if norm == "linf" else delta.square().sum(1).sqrt()
    return bool((moved <= eps * (1 + 1e-6)).all()) and float(x_adv.min()) >= 0 and float(x_adv.max()) <= 1


def check_margin(make: MakeAttack, norm: Norm) -> None:
    """An attack breaks the linear model a little beyond its margin, and never a little before."""
    model, x, y, distance = linear_problem(norm)
    for factor, broken in [(0.99, False), (1.1, True)]:
        eps = factor * distance
        x_adv = make(eps=eps, norm=norm)(model, x, y)
        assert within(x_adv, x, norm, eps)
        assert (model(x_adv).argmax(1) != y).item() is broken


def check_box(make: MakeAttack, norm: Norm, moves: bool = True) -> None:
    """Images that touch 0 and 1 stay in box and ball, also where the ball is larger than the box."""
    model, x, y, distance = linear_problem(norm)
    x = torch.cat([x.round(), torch.zeros_like(x), torch.ones_like(x), x])
    for eps in (distance, 0.9) if norm == "linf" else (distance, 10.0):
        x_adv = make(eps=eps, norm=norm)(model, x, y.expand(4))
        assert within(x_adv, x, norm, eps)
        assert not moves or (x_adv != x).flatten(1).any(1).all()


class SmallNet(nn.Sequential):
    """A net for 28x28 images with the parts whose mode matters: two batch norms, the first one frozen, and dropout."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 8, 5, stride=2), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 16, 5, stride=2), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Flatten(), nn.Dropout(0.5), nn.Linear(16 * 16, 10),
        )  # fmt: skip
        self[1].eval()

    @property
    def frozen(self) -> nn.BatchNorm2d:
        norm = self[1]
        assert isinstance(norm, nn.BatchNorm2d)
        return norm

    @property
    def trained(self) -> nn.BatchNorm2d:
        norm = self[4]
        assert isinstance(norm, nn.BatchNorm2d)
        return norm


@cache
def _trained(seed: int) -> SmallNet:
    from toughen.data import load

    train = load("mnist-5k").train
    torch.manual_seed(seed)
    model = SmallNet().double()  # processors differ in float32, and forty steps on nets would be others
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(40):
        rows = torch.randint(len(train), (128,))
        some = train.take(rows)
        loss = F.cross_entropy(model(some.images.double() / 255), some.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    return model.float()


def trained_net(dtype: torch.dtype = torch.float32) -> SmallNet:
    """A net that reads real digits, part of it frozen, the rest in training mode; each caller has its own copy."""
    with one_thread(), torch.random.fork_rng():
        return copy.deepcopy(_trained(0)).to(dtype)


class Whole(nn.Module):
    """Calls a function on the images, so that a model can be written in a line."""

    def __init__(self, call: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: Tensor) -> Any:
        return self.call(x)


class Flops(TorchDispatchMode):
    """Counts floating point operations in the block, by torch's formulas.

    torch's FlopCounterMode would do, but for its hooks, which ``autograd.grad`` refuses on a model's input.
    """

    total: int

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        self.total += int(count(*args, **(kwargs or {}), out_val=out)) if count else 0
        return out


def flops(model: nn.Module, x: Tensor) -> int:
    """Of one forward pass."""
    with Flops() as counted, torch.no_grad():
        model(x)
    total: int = counted.total
    return total


@contextmanager
def unchanged(model: nn.Module, *, buffers: bool = True) -> Iterator[None]:
    """Modes, gradients, flags, weights and, if asked, buffers are after the block what they were before it."""

    def state() -> list[Any]:
        return [
            {name: module.training for name, module in model.named_modules()},
            {name: (each.grad, each.requires_grad) for name, each in model.named_parameters()},
        ]

    before, tensors = state(), copy.deepcopy(model.state_dict() if buffers else dict(model.named_parameters()))
    try:
        yield
    finally:
        assert state() == before
        after = model.state_dict() if buffers else dict(model.named_parameters())
        assert all(torch.equal(tensors[name], after[name]) for name in tensors)

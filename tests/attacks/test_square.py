"""Square against AutoAttack's own, move by move, and what an evaluation asks of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from problems import Whole, trained_net, within
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from toughen.attacks.square import Square
from toughen.core.cost import PassCounter
from toughen.core.rng import ImageNoise, Noise
from toughen.core.types import Images, Labels, Norm
from toughen.engine.fixed_batch import FixedBatchModel

every_norm = pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 1.5)])


class Fed(SquareAttack):  # type: ignore[misc]
    """The reference, whose random numbers are those that ours draws."""

    def feed(self, x: Tensor, noise: Noise) -> None:
        shared, (c, h, w) = noise.shared(), x.shape[1:]
        if self.norm == "L2":
            side = h // 5
            shape = (h // side, w // side)
            self.turns = iter(torch.rand(shape, generator=shared, dtype=torch.float64).flatten().tolist())
            signs = noise.sign(x[:, :, : shape[0], : shape[1]])
            self.starts = list(signs.flatten(2).unbind(2))
        else:
            self.starts = [noise.sign(x[:, :, :1])]
        self.queries = iter(torch.rand((self.n_queries, 5 + c), generator=shared, dtype=torch.float64))
        self.at: Iterator[float] = iter([])

    def random_int(self, low: int, high: int, shape: Any = None) -> Tensor:
        place = next(self.at, None)
        if place is None:
            self.query = next(self.queries)
            self.at, self.turns = iter(self.query[: 4 if self.norm == "L2" else 2].tolist()), iter([self.query[4]])
            place = next(self.at)
        return torch.tensor([int(low + (high - low) * place)])

    def random_choice(self, shape: Any) -> Tensor:
        if self.starts:
            return self.starts.pop(0).view(shape)
        return torch.where(self.query[5:] < 0.5, -1.0, 1.0).double().view(-1, 1, 1).expand(shape)

    def eta(self, s: int) -> Tensor:
        with mock.patch("torch.rand", lambda shape: torch.tensor([next(self.turns)])):
            made: Tensor = super().eta(s)
        return made


def right(model: nn.Module, x: Images, y: Labels) -> tuple[Images, Labels]:
    keep = model(x).argmax(1) == y
    return x[keep], y[keep]


def colour(model: nn.Module) -> nn.Module:
    """A net for images of three channels, which it reads with unlike weights."""
    return Whole(
        lambda x: model((x * torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).view(1, 3, 1, 1)).sum(1, keepdim=True))
    )


@contextmanager
def float64() -> Iterator[None]:
    """What the reference makes without saying of which type is in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("channels", "rescale"), [(1, False), (3, True)])
@every_norm
def test_moves_as_autoattacks_does(
    norm: Norm, eps: float, channels: int, rescale: bool, mnist: tuple[Images, Labels]
) -> None:
    model: nn.Module = trained_net(torch.float64).eval()
    x, y = (each[::4] for each in right(model, mnist[0].double(), mnist[1]))
    if channels == 3:
        model, x, eps = colour(model), x.expand(-1, 3, -1, -1).contiguous(), eps * (1 if norm == "linf" else 2)
    noise = ImageNoise(3, "Square", list(range(len(x))))
    theirs = Fed(model, norm={"linf": "Linf", "l2": "L2"}[norm], n_queries=300, eps=eps, resc_schedule=rescale)
    theirs.init_hyperparam(x)
    theirs.feed(x, replace(noise))
    with float64():
        spent, expected = theirs.attack_single_run(x, y)
    with PassCounter(model) as passes:
        found = Square(eps=eps, norm=norm, queries=300, rescale_schedule=rescale)(model, x, y, noise)
    # theirs is shorter than eps by 1e-12, and an empty window gets the root of what that leaves: about 1e-6
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 if norm == "linf" else 5e-6)
    broken = model(found).argmax(1) != y
    assert 0.2 < broken.double().mean() < 0.98
    assert (spent < 301).any() and (spent == 301).any()
    assert passes.forward == spent.sum() and passes.total == passes.forward


def test_sides() -> None:
    """AutoAttack's windows on CIFAR-10 and MNIST, each side with the first query that has it."""
    ages = [0, 11, 51, 201, 501, 1001, 2001, 4001]
    for size, expected in [(32, [29, 20, 14, 10, 7, 5, 4, 3]), (28, [25, 18, 13, 9, 6, 4, 3, 2])]:
        sides = Square(eps=0.1)._sides(torch.zeros(1, 3, size, size))
        assert len(sides) == 5000
        changes = [query for query in range(5000) if query == 0 or sides[query] != sides[query - 1]]
        assert changes == ages and [sides[query] for query in ages] == expected
    half = Square(eps=0.1, rescale_schedule=True)._sides(torch.zeros(1, 3, 32, 32))
    assert half[5] == 29 and half[6] == 20 and half[4001] == 1  # of 10,000 queries 12 and 8002
    odd = Square(eps=0.1, norm="l2")._sides(torch.zeros(1, 1, 28, 28))
    assert sorted(set(odd)) == [3, 5, 7, 9, 13, 19, 25]
    assert set(Square(eps=0.1)._sides(torch.zeros(1, 1, 4, 100))[:11]) == {4}


@every_norm
def test_every_standing_image_gets_all_queries(norm: Norm, eps: float, mnist: tuple[Images, Labels]) -> None:
    """In a radius that breaks none; a second restart asks for as much again."""
    model = trained_net(torch.float64).eval()
    x, y = (each[::8] for each in right(model, mnist[0].double(), mnist[1]))
    for restarts in (1, 2):
        blocks = FixedBatchModel(model, 4, "fp64")
        found = Square(eps=0.001, norm=norm, queries=50, restarts=restarts)(blocks, x, y)
        assert within(found, x, norm, 0.001)
        assert blocks.counts.forward == len(x) * 51 * restarts and blocks.counts.gradient == 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@every_norm
def test_an_images_result_is_its_own(norm: Norm, eps: float, precision: Any, mnist: tuple[Images, Labels]) -> None:
    """Bit for bit, however many others are attacked beside it and whenever they fall."""
    x, y = mnist
    attack, model = (
        Square(eps=eps, norm=norm, queries=40, restarts=2),
        FixedBatchModel(trained_net().eval(), 8, precision),
    )
    whole = attack(model, x, y, ImageNoise(0, "Square", list(range(64))))
    fell = model.exact(whole).argmax(1) != y
    assert 0.2 < fell.float().mean() < 0.98
    for rows in ([5], [63, 2, 17], list(range(0, 64, 5))):
        part = attack(model, x[rows], y[rows], ImageNoise(0, "Square", rows))
        assert torch.equal(part, whole[rows])
    assert within(whole, x, norm, eps)


@every_norm
def test_what_low_precision_alone_breaks_goes_on(norm: Norm, eps: float, mnist: tuple[Images, Labels]) -> None:
    """A model whose search is too hopeful by a margin of 2: what leaves the attack early is broken for the model."""

    class Hopeful(FixedBatchModel):
        graph = None  # asked in full, by what is overridden

        def forward(self, x: Images) -> Tensor:
            out = super().forward(x)
            out[:, 3] -= 2
            return out

        def confirm(self, x: Images, y: Labels, fell: Tensor) -> Tensor:
            asked.append(len(x))
            return fell & (self.exact(x).argmax(1) != y)

    net = trained_net().eval()
    x, y = right(net, *mnist)
    x, y, asked = x[y == 3], y[y == 3], list[int]()
    model = Hopeful(net, 8)
    found = Square(eps=eps * 1.3, norm=norm, queries=200)(model, x, y)
    broken = net(found).argmax(1) != y
    assert model(found).argmax(1).ne(y).sum() > broken.sum() > 0
    assert sum(asked) > len(x)  # some were asked about more than once
    assert model.counts.forward > 200 * int((~broken).sum())


def test_restarts_are_for_those_that_stand(mnist: tuple[Images, Labels]) -> None:
    model = trained_net().eval()
    x, y = right(model, *mnist)
    left = []
    for restarts in (1, 4):
        noise = ImageNoise(0, "Square", list(range(len(x))))
        found = Square(eps=0.12, queries=30, restarts=restarts)(model, x, y, noise)
        left.append(model(found).argmax(1) == y)
    assert (left[1] <= left[0]).all() and left[1].sum() < left[0].sum()


@every_norm
@pytest.mark.parametrize("shape", [(3, 20, 12), (1, 4, 4), (2, 1, 9), (1, 1, 1), (3, 33, 48)])
def test_any_shape_of_image(norm: Norm, eps: float, shape: tuple[int, int, int]) -> None:
    """Two classes, told apart by the mean; images that touch 0 and 1."""
    x = torch.rand(4, *shape).mul(1.2).sub(0.1).clamp(0, 1)
    model = Whole(lambda x: torch.stack([x.flatten(1).mean(1) * 10 + 5, 0 * x.flatten(1).sum(1)], 1))
    eps = min(eps, 0.5 * math.sqrt(x[0].numel()))
    found = Square(eps=eps, norm=norm, queries=60)(model, x, torch.zeros(4, dtype=torch.int64))
    assert within(found, x, norm, eps)
    assert (model(found)[:, 0] < model(x)[:, 0]).all()  # dimmer


def test_an_l2_search_uses_its_whole_radius(mnist: tuple[Images, Labels]) -> None:
    """Grey images, which the box leaves alone, end at the radius to rounding."""
    x = mnist[0][:8] * 0.2 + 0.4
    model = trained_net().eval()
    found = Square(eps=0.2, norm="l2", queries=400)(model, x, model(x).argmax(1))
    used = (found - x).flatten(1).norm(dim=1)
    torch.testing.assert_close(used, torch.full_like(used, 0.2), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queries": 0}, r"queries \(0\) and restarts \(1\) must be at least 1"),
        ({"restarts": 0}, r"queries \(5000\) and restarts \(0\) must be at least 1"),
        ({"p_init": 0}, "p_init 0 is a share"),
        ({"p_init": 1.5}, "p_init 1.5 is a share"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Square(eps=0.1, **settings)

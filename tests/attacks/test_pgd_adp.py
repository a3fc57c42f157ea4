"""PGD-ADP against steps worked by hand, a search written out, and other people's PGD where there is one size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchattacks
from problems import Whole, trained_net
from torch import Tensor, nn

from toughen.attacks import PGDADP
from toughen.attacks.pgd_adp import SIZES
from toughen.core.cost import PassCounter
from toughen.core.objectives import NuclearAscent, margin_loss
from toughen.core.rng import ImageNoise, StepNoise
from toughen.core.types import Images, Labels
from toughen.engine.fixed_batch import FixedBatchModel


@pytest.fixture
def digits(mnist: tuple[Images, Labels]) -> tuple[nn.Module, Images, Labels]:
    return trained_net(torch.float64).eval(), mnist[0][::2].double(), mnist[1][::2]


def pixels(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1)


def test_each_image_takes_its_own_best_step() -> None:
    """The objective -(x - 1/2)^2 - 1 is highest at 1/2: of steps 0.4, 0.2 and 0.1 each takes what ends nearest."""

    def valley(x: Tensor) -> Tensor:
        return torch.cat([(x.flatten(1) - 0.5) ** 2 + 1, 0 * x.flatten(1)], 1)

    attack = PGDADP(eps=0.4, steps=1, sizes=(1, 0.5, 0.25), objective=margin_loss, start="none")
    x, y = pixels(0.05, 0.3, 0.58, 0.95), torch.zeros(4, dtype=torch.int64)
    torch.testing.assert_close(attack(Whole(valley), x, y), pixels(0.45, 0.5, 0.48, 0.55))


def test_a_step_that_fools_is_better_than_a_higher_loss() -> None:
    """Logits (0, z1, z2), z1 and z2 parabolas: a step of 1 ends at cross-entropy 1.03, one of 1/2 at 0.70 but wrong."""

    def parabolas(x: Tensor) -> Tensor:
        x = x.flatten(1)
        return torch.cat([0 * x, -18.24 * x**2 + 27.14 * x - 9, 17.8 * x**2 - 8.9 * x - 9], 1)

    model, y = Whole(parabolas), torch.tensor([0])
    ends = model(pixels(1, 0.5))
    assert ends.argmax(1).tolist() == [0, 1] and (F.cross_entropy(ends, y.expand(2), reduction="none") > 0.69).all()
    with PassCounter(model) as passes:
        x_adv = PGDADP(eps=1.0, steps=9, sizes=(1, 0.5), start="none")(model, pixels(0), y)
    assert float(x_adv) == 0.5 and (passes.forward, passes.input_gradient) == (3, 1)


def test_one_size_is_pgd(digits: Any) -> None:
    model, x, y = digits
    found = PGDADP(eps=0.05, steps=10, sizes=(0.2,), start="none")(model, x, y)
    expected = torchattacks.PGD(model, eps=0.05, alpha=0.01, steps=10, random_start=False)(x, y)
    stands = model(found).argmax(1) == y
    assert 0.1 < stands.double().mean() < 0.9
    torch.testing.assert_close(found[stands], expected[stands], rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["cross-entropy", "margin"])
def test_agrees_with_a_search_written_out(loss: str, norm: Any, digits: Any) -> None:
    model, x, y = digits
    eps = 0.05 if norm == "linf" else 0.8

    def value(z: Tensor, label: int) -> Tensor:
        others = torch.cat([z[:label], z[label + 1 :]])
        return others.max() - z[label] if loss == "margin" else z.exp().sum().log() - z[label]

    def image(x: Tensor, label: int, at: Tensor) -> Tensor:
        """One image at a time, until it falls."""
        for _ in range(6):
            at = at.clone().requires_grad_()
            z = model(at)[0]
            if z.argmax() != label:
                return at.detach()
            (g,) = torch.autograd.grad(value(z, label), at)
            ends = []
            for size in SIZES:
                moved = at.detach() + size * eps * (g.sign() if norm == "linf" else g / g.norm())
                delta = moved - x
                delta = delta.clamp(-eps, eps) if norm == "linf" else delta * min(1.0, eps / float(delta.norm()))
                end = (x + delta).clamp(0, 1)
                z = model(end)[0].detach()
                ends.append((float(value(z, label)) + 1e6 * (z.argmax() != label), -size, end))
            at = max(ends, key=lambda each: each[0])[2]
        return at

    start = (x + (0.02 if norm == "linf" else 0.01) * StepNoise(0, 0).uniform(x)).clamp(0, 1)
    settings: dict[str, Any] = {"objective": margin_loss} if loss == "margin" else {}
    found = PGDADP(eps=eps, norm=norm, steps=6, start=start, **settings)(model, x, y)
    for row in range(0, 32, 2):
        expected = image(x[row : row + 1], int(y[row]), start[row : row + 1])
        assert model(found[row : row + 1]).argmax(1) == model(expected).argmax(1), row
        if model(expected).argmax(1) == y[row]:  # of several steps that fool, any will do
            assert (found[row] - expected[0]).abs().max() < 1e-9, row


def test_cost_of_images_that_stand(digits: Any) -> None:
    model, x, _ = digits
    y = model(x[:4]).argmax(1)
    with PassCounter(model) as passes:
        PGDADP(eps=0, steps=20)(model, x[:4], y)
    assert (passes.forward, passes.input_gradient) == (4 * 20 * 8, 4 * 20)


def test_in_blocks(digits: Any) -> None:
    model, x, y = digits
    noise, attack = ImageNoise(0, "ADP", list(range(32))), PGDADP(eps=0.05, steps=5)
    expected = attack(model, x, y, noise)
    assert (attack(FixedBatchModel(model, 7, "fp64"), x, y, noise) - expected).abs().max() < 1e-9
    assert 0.1 < (model(expected).argmax(1) != y).double().mean() < 0.9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, r"steps \(0\) must be at least 1"),
        ({"sizes": ()}, r"sizes \(\) must be shares of eps"),
        ({"sizes": (0.5, 0)}, r"sizes \(0.5, 0\) must be shares of eps"),
        ({"objective": NuclearAscent(None, 1.0)}, "couples the images"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PGDADP(eps=0.1, **settings)

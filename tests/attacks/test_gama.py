"""GAMA-PGD and GAMA-FW against values worked by hand and against the released loops written out in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from problems import Whole, trained_net, within
from torch import Tensor, nn
from torch.autograd import gradcheck

from toughen.attacks import GAMAFW, GAMAPGD, Attack
from toughen.core.cost import PassCounter
from toughen.core.objectives import GuidedMargin
from toughen.core.rng import ImageNoise, Noise, StepNoise
from toughen.core.threat import Threat
from toughen.core.types import Images, Labels, Norm
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation.suite import parse_attack, suite

LN3 = math.log(3)


@pytest.fixture
def digits(mnist: tuple[Images, Labels]) -> tuple[nn.Module, Images, Labels]:
    return trained_net(torch.float64).eval(), mnist[0][::2].double(), mnist[1][::2]


# ---- the objective


def test_the_objective_by_hand() -> None:
    """p = (1/4, 3/4), the reference (1/2, 1/2): a margin of +-1/2, a squared distance of 2 (1/4)^2 = 1/8."""
    logits, y = torch.tensor([[0.0, LN3], [0.0, LN3]]).double(), torch.tensor([0, 1])
    reference = torch.tensor([[5.0, 5.0], [0.0, LN3]]).double()
    torch.testing.assert_close(GuidedMargin(None, 4)(logits, y), torch.tensor([0.5, -0.5]).double())
    torch.testing.assert_close(GuidedMargin(reference, 4)(logits, y), torch.tensor([1.0, -0.5]).double())
    second = GuidedMargin(reference, 4).select(torch.tensor([1]))
    torch.testing.assert_close(second(logits[:1], y[:1]), torch.tensor([0.5]).double())
    assert GuidedMargin(reference, 4).fooled(logits, y).tolist() == [True, False]


def test_the_objectives_gradient() -> None:
    logits, reference = torch.randn(2, 5, 4, dtype=torch.float64)
    y = torch.tensor([0, 2, 1, 3, 0])
    assert gradcheck(lambda z: GuidedMargin(reference, 0.7)(z, y), logits.clone().requires_grad_())


# ---- the settings by which it was released


def test_released_schedules() -> None:
    pgd, fw = GAMAPGD(eps=8 / 255), GAMAFW(eps=8 / 255)
    assert [pgd.weight_at(step) for step in range(100)] == pytest.approx([*range(50, 0, -2), *[0] * 75])
    assert [fw.weight_at(step) for step in range(100)] == pytest.approx([*range(50, 0, -2), *[0] * 75])
    assert [pgd.shrink(step) for step in range(100)] == pytest.approx([1.0] * 60 + [0.1] * 25 + [0.01] * 15)
    assert [0.5 * fw.shrink(step) for step in range(100)] == pytest.approx([0.5] * 60 + [0.1] * 25 + [0.02] * 15)
    on_mnist = GAMAPGD(eps=0.3, weight=5, span=0.5, step_size=0.3, drops=(0.5, 0.75))
    assert on_mnist == parse_attack("gama-pgd-mnist", Threat("linf", 0.3))
    assert suite("papers", Threat("linf", 0.3), (1, 28, 28))["gama-pgd"] == on_mnist
    assert suite("papers", Threat("linf", 0.3), (3, 32, 32))["gama-pgd"] == GAMAPGD(eps=0.3)
    assert parse_attack("gama-pgd-mnist-20@0.1", Threat("linf", 0.3)) == replace(on_mnist, steps=20, step_size=0.1)
    assert [on_mnist.weight_at(step) for step in range(52)] == pytest.approx(
        [5 - step / 10 for step in range(50)] + [0, 0]
    )
    assert [on_mnist.shrink(step) for step in range(100)] == pytest.approx([1.0] * 50 + [0.1] * 25 + [0.01] * 25)
    assert [GAMAPGD(eps=0.1, steps=10).shrink(step) for step in range(10)] == pytest.approx(
        [1.0] * 6 + [0.1] * 3 + [0.01]
    )


# ---- the released loops, written out


def slope(
    model: Callable[[Tensor], Tensor], x: Tensor, delta: Tensor, start: Tensor, y: Tensor, weight: float
) -> Tensor:
    """Of the mean over the batch, in probabilities, both of which are computed anew."""
    delta = delta.clone().requires_grad_()
    z = model(x + delta)
    p = z.exp() / z.exp().sum(1, keepdim=True)
    reference = F.softmax(model(x + start).detach(), 1)
    one_hot = F.one_hot(y, p.shape[1]).bool()
    margin = p.masked_fill(one_hot, 0).max(1).values - p[one_hot]
    loss = margin.mean() + weight * ((reference - p) ** 2).sum(1).mean()
    return torch.autograd.grad(loss, delta)[0]


def written_out(
    attack: str, model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, start: Tensor, eps: float, norm: Norm
) -> list[Tensor]:
    """The images after each of 20 steps: w from 50 to 0 in 5 steps, shorter steps from steps 12 and 17 on."""
    delta, weight, images = start.clone(), 50.0, []
    for step in range(20):
        g = slope(model, x, delta, start, y, weight)
        long = g.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        unit = g.sign() if norm == "linf" else torch.where(long > 0, g / long, 0)
        if attack == "pgd":
            size = 2 * eps if step < 12 else 0.2 * eps if step < 17 else 0.02 * eps
            delta = delta + size * unit
        else:
            rate = 0.5 if step < 12 else 0.1 if step < 17 else 0.02
            delta = (1 - rate) * delta + rate * eps * unit
        if norm == "linf":
            delta = ((x + delta).clamp(0, 1) - x).clamp(-eps, eps)
        else:
            length = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            delta = (x + delta * (eps / length).clamp(max=1)).clamp(0, 1) - x
        weight = max(weight - 10, 0.0)
        images.append(x + delta)
    return images


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.06), ("l2", 1.0)])
@pytest.mark.parametrize("kind", ["pgd", "fw"])
def test_agrees_with_the_released_loop(kind: str, norm: Norm, eps: float, digits: Any) -> None:
    model, x, y = digits
    sign = StepNoise(0, 0).sign(x)
    start = eps * (sign if norm == "linf" else sign / 28)
    expected = written_out(kind, model, x, y, start, eps, norm)
    attack: Attack = (GAMAPGD if kind == "pgd" else GAMAFW)(eps=eps, norm=norm, steps=20)
    x_adv = attack(model, x, y, StepNoise(0, 0))
    with torch.no_grad():
        fell = torch.stack([model(each).argmax(1) != y for each in expected[:-1]])
    stands = ~fell.any(0)
    last = torch.where(stands, 19, fell.int().argmax(0))
    assert 0.1 < stands.double().mean() < 0.9 and last.unique().numel() > 2
    assert (x_adv - torch.stack(expected)[last, torch.arange(len(x))]).abs().max() < 1e-9


# ---- restarts, leaving, cost


def test_an_image_that_stands_is_attacked_again(mnist: tuple[Images, Labels]) -> None:
    model, (x, y) = trained_net(torch.float64).eval(), (mnist[0].double(), mnist[1])
    noise, once = ImageNoise(0, "GAMA", list(range(64))), GAMAPGD(eps=0.04, steps=3)
    singles = [once(model, x, y, noise.restart(number)) for number in range(3)]
    fell = torch.stack([model(each).argmax(1) != y for each in singles])
    first = torch.where(fell.any(0), fell.int().argmax(0), 2)
    assert first.unique().tolist() == [0, 1, 2]
    found = GAMAPGD(eps=0.04, steps=3, restarts=3)(model, x, y, noise)
    assert (found - torch.stack(singles)[first, torch.arange(64)]).abs().max() < 1e-9


@pytest.mark.parametrize("kind", [GAMAPGD, GAMAFW])
def test_cost_of_images_that_stand(kind: Any, digits: Any) -> None:
    model, x, _ = digits
    y = model(x[:4]).argmax(1)
    with PassCounter(model) as passes:
        kind(eps=0, steps=7)(model, x[:4], y)
    assert (passes.forward, passes.input_gradient) == (4 * 7, 4 * 7)
    with PassCounter(model) as passes:
        kind(eps=0, steps=7, restarts=3)(model, x[:4], y)
    assert (passes.forward, passes.input_gradient) == (4 * 23, 4 * 21)


class Down(Noise):
    """A start at -eps."""

    def sign(self, like: Tensor) -> Tensor:
        return -torch.ones_like(like)


def test_a_start_outside_the_box_breaks_nothing() -> None:
    """Wrong below -0.05, where no image is: the start at -0.1 is wrong, and every step is made all the same."""
    model = Whole(lambda x: torch.cat([x.flatten(1) + 0.05, 0 * x.flatten(1)], 1))
    with PassCounter(model) as passes:
        x_adv = GAMAPGD(eps=0.1, steps=6)(model, torch.zeros(1, 1, 1, 1), torch.tensor([0]), Down())
    assert passes.forward == 6 and within(x_adv, torch.zeros(1, 1, 1, 1), "linf", 0.1)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("kind", [GAMAPGD, GAMAFW])
def test_few_classes(kind: Any, classes: int, digits: Any) -> None:
    model, x, y = digits
    few, y = Whole(lambda x: model(x)[:, :classes]), y % classes
    few.model = model
    y = few(x).argmax(1)
    x_adv = kind(eps=0.1, steps=20)(few, x, y, StepNoise(0, 0))
    assert (few(x_adv).argmax(1) != y).double().mean() > 0.3 and within(x_adv, x, "linf", 0.1)


@pytest.mark.parametrize("kind", [GAMAPGD, GAMAFW])
def test_in_blocks(kind: Any, digits: Any) -> None:
    model, x, y = digits
    noise, attack = ImageNoise(0, "GAMA", list(range(32))), kind(eps=0.055, steps=6, restarts=2)
    expected = attack(model, x, y, noise)
    found = attack(FixedBatchModel(model, 5, "fp64"), x, y, noise)
    assert (found - expected).abs().max() < 1e-9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, r"steps \(0\) and restarts \(1\)"),
        ({"restarts": 0}, r"steps \(100\) and restarts \(0\)"),
        ({"weight": -1}, r"weight \(-1\)"),
        ({"weight": math.nan}, r"weight \(nan\)"),
        ({"drop_factor": 0.5}, r"drop_factor \(0.5\)"),
        ({"span": 25}, r"span \(25\) .* shares of the steps"),
        ({"drops": (60, 85)}, r"drops \(60, 85\) must be shares"),
    ],
)
@pytest.mark.parametrize("kind", [GAMAPGD, GAMAFW])
def test_settings_out_of_range_are_refused(kind: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(eps=0.1, **settings)


def test_lengths_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="step_size -0.1 must be a finite number"):
        GAMAPGD(eps=0.1, step_size=-0.1)
    with pytest.raises(ValueError, match="rate 1.5 must be a share"):
        GAMAFW(eps=0.1, rate=1.5)

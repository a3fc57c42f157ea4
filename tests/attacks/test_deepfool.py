"""DeepFool against planes whose distance is known, and against foolbox's on a net."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from foolbox.attacks.deepfool import L2DeepFoolAttack, LinfDeepFoolAttack
from foolbox.models.pytorch import PyTorchModel
from problems import Whole, linear_problem, trained_net, within
from torch import Tensor

from toughen.attacks.deepfool import DeepFool
from toughen.core.cost import PassCounter
from toughen.core.types import Images, Labels, Norm
from toughen.engine.fixed_batch import FixedBatchModel

NORMS: list[Norm] = ["linf", "l2"]
every_norm = pytest.mark.parametrize("norm", NORMS)


def length(delta: Tensor, norm: Norm) -> Tensor:
    return delta.flatten(1).abs().amax(1) if norm == "linf" else delta.flatten(1).square().sum(1).sqrt()


@every_norm
def test_a_planes_distance_and_the_overshoot(norm: Norm) -> None:
    """One step, 1e-4 beyond the plane, stretched by the overshoot: along the normal, for L-inf along its signs."""
    model, x, y, distance = linear_problem(norm)
    weight = model.weight.detach()[None]
    way = -weight.sign() if norm == "linf" else -weight / weight.square().sum().sqrt()
    for overshoot in (0.0, 0.02, 0.3):
        with PassCounter(model) as passes:
            found = DeepFool(eps=distance / 9, norm=norm, overshoot=overshoot, minimise=True, candidates=2)(model, x, y)
        torch.testing.assert_close(found, x + (1 + overshoot) * (distance + 1e-4) * way, rtol=1e-9, atol=1e-12)
        assert (passes.forward, passes.input_gradient, passes.weight_gradient) == (3, 1, 0)


@every_norm
def test_it_is_judged_at_eps(norm: Norm) -> None:
    model, x, y, distance = linear_problem(norm)
    for factor, broken in [(0.99, False), (1.021, True)]:
        found = DeepFool(eps=factor * distance, norm=norm)(model, x, y)
        assert within(found, x, norm, factor * distance)
        assert (model(found).argmax(1) != y).item() is broken


@every_norm
def test_the_nearest_of_several_planes(norm: Norm) -> None:
    """Three classes of two pixels: class 2 is nearer in L2, class 1 in L-inf, and the labels' order is no guide."""
    normal = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)  # of what classes 1 and 2 gain on class 0
    away = torch.tensor([0.16, 0.11], dtype=torch.float64)  # L-inf: 0.08, 0.11; L2: 0.113, 0.11
    x = torch.full((1, 1, 1, 2), 0.5, dtype=torch.float64)
    model = Whole(
        lambda z: torch.cat([z.new_zeros(len(z), 1), (z.flatten(1) - 0.5) @ normal.T - away], 1) + z.sum() * 0
    )
    found = DeepFool(eps=0.3, norm=norm, overshoot=0)(model, x, torch.tensor([0]))
    wanted = [0.58, 0.58] if norm == "linf" else [0.5, 0.61]
    torch.testing.assert_close(found.flatten(), torch.tensor(wanted).double(), rtol=0, atol=1.1e-4)
    assert model(found).argmax() == (1 if norm == "linf" else 2)
    if norm == "linf":  # class 1 is last on the clean image, so two candidates leave it out
        found = DeepFool(eps=0.3, norm=norm, overshoot=0, candidates=2)(model, x, torch.tensor([0]))
        assert model(found).argmax() == 2


@pytest.mark.parametrize("candidates", [3, 10])
@every_norm
def test_agrees_with_foolbox(norm: Norm, candidates: int, mnist: tuple[Images, Labels]) -> None:
    """To what 1e-8 in their denominators changes; of ours the pixels, of theirs the images."""
    model = trained_net(torch.float64).eval()
    x, y = mnist[0].double(), mnist[1]
    keep = model(x).argmax(1) == y
    x, y = x[keep][::2], y[keep][::2]
    theirs: Any = {"linf": LinfDeepFoolAttack, "l2": L2DeepFoolAttack}[norm]
    expected = theirs(candidates=candidates).run(PyTorchModel(model, bounds=(0, 1)), x, y)
    found = DeepFool(eps=0.1, norm=norm, candidates=candidates, minimise=True)(model, x, y)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert (model(found).argmax(1) != y).all()
    reach = length(found - x, norm)
    assert reach.max() > 2 * reach.min()


@every_norm
def test_within_eps_it_breaks_whom_it_reaches(norm: Norm, mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    model = trained_net().eval()
    far = DeepFool(eps=0.1, norm=norm, minimise=True)(model, x, y)
    reach = length(far - x, norm)
    eps = float(reach.median())
    found = DeepFool(eps=eps, norm=norm)(model, x, y)
    near = reach <= eps
    assert 0.2 < near.float().mean() < 0.8
    assert within(found, x, norm, eps)
    torch.testing.assert_close(found[near], far[near], rtol=0, atol=1e-6)
    assert (model(found).argmax(1) != y)[reach < eps * (1 - 1e-6)].all()
    already = model(x).argmax(1) != y
    assert torch.equal(found[already], x[already])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@every_norm
def test_an_images_result_is_its_own(norm: Norm, precision: Any, mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    model = FixedBatchModel(trained_net().eval(), 8, precision)
    attack = DeepFool(eps=0.1, norm=norm, steps=10, minimise=True)
    whole = attack(model, x, y)
    broken = model.exact(whole).argmax(1) != y
    assert broken.float().mean() > 0.5
    for rows in ([7], list(range(1, 64, 5))):
        assert torch.equal(attack(model, x[rows], y[rows]), whole[rows])


@every_norm
def test_passes(norm: Norm, mnist: tuple[Images, Labels]) -> None:
    """A model that no step breaks: the clean pass, and per step two forwards and a gradient for each other class."""
    x = mnist[0][:6]
    y = torch.zeros(6, dtype=torch.int64)

    class Fortress(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            flat = x.flatten(1).sum(1, keepdim=True) * 1e-3
            return torch.cat([flat * 0 + 1e4, flat, 2 * flat, 3 * flat], 1)

    with PassCounter(model := Fortress()) as passes:
        found = DeepFool(eps=0.1, norm=norm, steps=7)(model, x, y)
    assert within(found, x, norm, 0.1)
    assert (passes.forward, passes.input_gradient, passes.weight_gradient) == (6 * 15, 6 * 7 * 3, 0)
    blocks = FixedBatchModel(Fortress(), 4)
    DeepFool(eps=0.1, norm=norm, steps=7, candidates=3)(blocks, x, y)
    assert (blocks.counts.forward, blocks.counts.gradient) == (6 * 15, 6 * 7 * 2)


def test_a_model_without_slope_is_left_alone(mnist: tuple[Images, Labels]) -> None:
    x = mnist[0][:2]
    model = Whole(lambda x: torch.cat([x.flatten(1)[:, :3] * 0 + torch.tensor([3.0, 2.0, 1.0])], 1))
    found = DeepFool(eps=0.1, minimise=True)(model, x, torch.zeros(2, dtype=torch.int64))
    assert torch.equal(found, x)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"candidates": 1}, r"candidates \(1\) must be at least 2"),
        ({"steps": 0}, r"steps \(0\) at least 1"),
        ({"overshoot": -0.1}, "overshoot -0.1 must be a finite number"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeepFool(eps=0.1, **settings)

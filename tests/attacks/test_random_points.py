"""Random points: where they fall, which one is kept, when they stop."""

from __future__ import annotations

import math

import pytest
import torch
from problems import Whole, linear_problem, trained_net, within
from torch import Tensor

from toughen.attacks.random_points import RandomPoints
from toughen.core.cost import PassCounter
from toughen.core.objectives import margin
from toughen.core.rng import ImageNoise, StepNoise
from toughen.core.types import Images, Labels, Norm
from toughen.engine.fixed_batch import FixedBatchModel

every_norm = pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 1.5)])


class Seen(Whole):
    """Notes what it is asked about, and finds every image right by the sum of its pixels."""

    def __init__(self) -> None:
        super().__init__(self.look)
        self.points: list[Tensor] = []

    def look(self, x: Tensor) -> Tensor:
        self.points.append(x.clone())
        total = x.flatten(1).sum(1)
        return torch.stack([total + 100, total * 0], 1)


@every_norm
def test_points_are_uniform_in_the_ball(norm: Norm, eps: float) -> None:
    """Their length to the power of the dimension is uniform in [0, eps^d]; no direction is preferred."""
    model, x = Seen(), torch.full((20, 1, 1, 5), 0.5, dtype=torch.float64)
    RandomPoints(eps=eps / 5, norm=norm, points=400)(model, x, torch.zeros(20, dtype=torch.int64))
    delta = (torch.cat(model.points) - 0.5).flatten(1)
    length = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    share, _ = (length / (eps / 5)).pow(5).sort()
    n = len(share)
    assert n == 8000
    steps = torch.arange(1, n + 1, dtype=torch.float64) / n
    assert (share - steps).abs().max() < 1.63 / math.sqrt(n)  # Kolmogorov and Smirnov, 1 %
    spread = delta.T @ delta / n
    each = (eps / 5) ** 2 / (3 if norm == "linf" else 7)  # variance of a coordinate: eps^2 / 3, eps^2 / (d + 2)
    assert (spread / each - torch.eye(5)).abs().max() < 0.06
    assert (delta.mean(0).abs() < 4 * math.sqrt(each / n)).all()


def test_the_lowest_margin_is_kept() -> None:
    model, x = Seen(), torch.full((6, 1, 2, 2), 0.05)
    found = RandomPoints(eps=0.1, points=30)(model, x, torch.zeros(6, dtype=torch.int64))
    points = torch.stack(model.points)
    assert points.shape[0] == 30 and points.min() == 0  # cut to the box
    lowest = points.flatten(2).sum(2).argmin(0)
    assert len(lowest.unique()) > 2
    assert torch.equal(found, points[lowest, torch.arange(6)])


@every_norm
def test_an_image_stops_at_the_first_point_that_breaks_it(norm: Norm, eps: float, mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    model = trained_net().eval()
    keep = margin(model(x), y).argsort()[-40:]
    x, y = x[keep], y[keep]
    eps *= 8 if norm == "linf" else 16
    noise = ImageNoise(0, "RandomPoints", list(range(40)))
    with PassCounter(model) as passes:
        found = RandomPoints(eps=eps, norm=norm, points=25)(model, x, y, noise)
    again, first, expected = ImageNoise(0, "RandomPoints", list(range(40))), torch.full((40,), 25), found.clone()
    for point in range(25):
        drawn = again.uniform(x) if norm == "linf" else again.normal(x)
        if norm == "l2":
            share = again.uniform(x[:, :1, :1, :1]).add(1).div(2)
            drawn = drawn / drawn.flatten(1).norm(dim=1).view(-1, 1, 1, 1) * share ** (1 / 784)
        there = (x + eps * drawn).clamp(0, 1)
        new = (model(there).argmax(1) != y) & (first == 25)
        first[new], expected[new] = point + 1, there[new]
    assert 0 < (first < 25).sum() < 40
    assert torch.equal(model(found).argmax(1) != y, model(expected).argmax(1) != y)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert passes.forward == first.sum() and passes.total == passes.forward
    assert within(found, x, norm, eps)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_images_result_is_its_own(precision: str, mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    model = FixedBatchModel(trained_net().eval(), 8, precision)  # type: ignore[arg-type]
    whole = RandomPoints(eps=0.6, points=10)(model, x, y, ImageNoise(0, "RandomPoints", list(range(64))))
    broken = model.exact(whole).argmax(1) != y
    assert 0 < broken.sum() < 64
    for rows in ([7], list(range(1, 64, 5))):
        part = RandomPoints(eps=0.6, points=10)(model, x[rows], y[rows], ImageNoise(0, "RandomPoints", rows))
        assert torch.equal(part, whole[rows])


def test_a_plane_is_found_only_within_the_ball() -> None:
    """The linear model of 192 pixels: random points need many times the shortest way."""
    model, x, y, distance = linear_problem("l2")
    for factor, broken in [(0.99, False), (30.0, True)]:
        x_adv = RandomPoints(eps=factor * distance, norm="l2", points=200)(model, x, y, StepNoise(0, 0))
        assert within(x_adv, x, "l2", factor * distance)
        assert (model(x_adv).argmax(1) != y).item() is broken


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"points \(0\) must be at least 1"):
        RandomPoints(eps=0.1, points=0)

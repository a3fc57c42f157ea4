"""LIET against numbers worked out by hand and against the released algorithm written out."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from literal import Net, Pixels, Written, clip, close, pair, same_step, sign_of_slope, two_pixels
from torch import Tensor, nn

from toughen.core.distances import jensen_shannon
from toughen.core.rng import Noise, StepNoise
from toughen.core.types import Batch, Images, Labels
from toughen.methods.liet import LIET

E = 8 / 255


class Told(Noise):
    """Noise that is what the test says.

    Args:
        shared: two numbers in 0..1, of which the batch's share and sign are made.
        rand: numbers in 0..1, one for each value, below the share where noise replaces it.
        uniform: that noise, in -1..1.
    """

    def __init__(self, shared: tuple[float, float], rand: Tensor, uniform: Tensor) -> None:
        self.numbers, self.rand, self.drawn = shared, rand, uniform

    def random(self, like: Tensor, kind: str) -> Tensor:
        return self.rand

    def uniform(self, like: Tensor) -> Tensor:
        return self.drawn

    def shared(self) -> torch.Generator:
        return torch.Generator().manual_seed(next(n for n in range(10_000) if self._gives(n)))

    def _gives(self, seed: int) -> bool:
        """Whether a generator of this seed begins near the wanted numbers."""
        found = torch.rand(2, generator=torch.Generator().manual_seed(seed))
        return bool((found - torch.tensor(self.numbers)).abs().max() < 0.05)


def made(model: nn.Module, shape: tuple[int, int, int] = (1, 28, 28), classes: int = 10, **settings: Any) -> LIET:
    method = LIET(**settings)
    method.prepare(model, shape, classes)
    return method


def test_one_image_by_hand() -> None:
    # Logits are the pixels. On grey (1/2, 1/2) label 0's cross-entropy rises along (-, +), label 1's along (+, -), each
    # by eps = 1/8. The share is 0.3: the second value, with 0.2, is noise, -1/2 of 1/8. The sign is +.
    model, x = Pixels(), two_pixels((0.5, 0.5))
    batch = Batch(noise=Told((0.5, 0.75), two_pixels((0.9, 0.2)), two_pixels((1.0, -0.5))))
    method = made(model, (1, 1, 2), 2, eps=0.125, lam=10)
    crafted = method.craft(model, x, torch.tensor([0]), batch)
    assert close(method.perturbations, two_pixels((-0.125, 0.125), (0.125, -0.125)))
    assert close(crafted.extra["start"], two_pixels((0.375, 0.4375)))
    # another step of (-1/8, 1/8) leads to (1/4, 9/16), cut to the ball: (3/8, 9/16)
    assert close(crafted.x_adv, two_pixels((0.375, 0.5625)))
    method.progress = 0.5
    step = method.loss(model, x, torch.tensor([0]), crafted)
    p, q = (math.exp(a) / (math.exp(a) + math.exp(b)) for a, b in ((0.375, 0.4375), (0.375, 0.5625)))
    m = (p + q) / 2
    first = p * math.log(p / m) + (1 - p) * math.log((1 - p) / (1 - m))
    second = q * math.log(q / m) + (1 - q) * math.log((1 - q) / (1 - m))
    assert close(step.terms["divergence"], (first + second) / 2)
    assert close(step.loss.detach(), -math.log(q) + 10 * 0.5 * (first + second) / 2)


@pytest.mark.parametrize(
    ("settings", "drawn", "start", "x_adv"),
    [
        ({}, (0.5, 0.25), (0.625, 0.5625), (0.5, 0.625)),  # the sign is -: away from (-1/8, -1/16); 11/16 is cut
        ({"min_share": 0, "max_share": 0}, (0.5, 0.75), (0.375, 0.625), (0.375, 0.625)),  # no noise
        ({"min_share": 1, "max_share": 1}, (0.5, 0.75), (0.625, 0.4375), (0.5, 0.5625)),  # nothing else
        ({"project": False}, (0.5, 0.75), (0.375, 0.4375), (0.25, 0.5625)),
        ({"start_size": 0.5, "project": False}, (0.5, 0.75), (0.375, 0.25), (0.25, 0.375)),
        ({"start_size": 0.5}, (0.5, 0.75), (0.375, 0.375), (0.375, 0.5)),  # the start is cut to the ball, too
    ],
    ids=str,
)
def test_settings_by_hand(
    settings: dict[str, Any], drawn: tuple[float, float], start: tuple[float, float], x_adv: tuple[float, float]
) -> None:
    model, x = Pixels(), two_pixels((0.5, 0.5))
    batch = Batch(noise=Told(drawn, two_pixels((0.9, 0.2)), two_pixels((1.0, -0.5))))
    crafted = made(model, (1, 1, 2), 2, eps=0.125, **settings).craft(model, x, torch.tensor([0]), batch)
    assert close(crafted.extra["start"], two_pixels(start)) and close(crafted.x_adv, two_pixels(x_adv))


def smoothed(z: Tensor, y: Tensor, share: float) -> Tensor:
    """Against labels with 1 - share + share / k for the true class and share / k for the others."""
    log_p = z - z.exp().sum(1, keepdim=True).log()
    target = share / z.shape[1] + (1 - share) * F.one_hot(y, z.shape[1]).double()
    return -(target * log_p).sum(1).mean()


def divergence(z: Tensor, other: Tensor) -> Tensor:
    """Half of KL(p || m) + KL(q || m) with m the mean of p and q, its mean over images."""
    p, q = (each.exp() / each.exp().sum(1, keepdim=True) for each in (z, other))
    m = (p + q) / 2
    return ((p * (p / m).log()).sum(1) + (q * (q / m).log()).sum(1)).mean() / 2


def released(written: Written, x: Tensor, y: Tensor, of_class: Tensor, noise: StepNoise, weight: float) -> Tensor:
    """A step's loss: the start, one step from it, both outputs."""
    share = 0.1 + 0.4 * float((drawn := torch.rand(2, generator=noise.shared()))[0])
    replaced = noise.random(x, "rand") < share
    delta = of_class[y]
    delta[replaced] = (E * noise.uniform(x))[replaced]
    start = (x - delta if drawn[1] < 0.5 else x + delta).clamp(0, 1)
    out_start = written.training(start)
    (slope,) = torch.autograd.grad(
        smoothed(Written(written_net(written)).training(z := start.clone().requires_grad_()), y, 0.5), z
    )
    x_adv = clip(start + E * slope.sign(), x, E)
    out = written.training(x_adv)
    return smoothed(out, y, 0.5) + weight * divergence(out_start, out)


def written_net(written: Written) -> Net:
    """A module with the formulas' weights."""
    net = Net()
    with torch.no_grad():
        for name, weight in net.named_parameters():
            weight.copy_(written.weights[name])
    return net


def test_steps_equal_the_released_algorithm(mnist: tuple[Images, Labels]) -> None:
    """The classes' perturbations in evaluation mode, the other two passes in training mode, labels smoothed in all."""
    (net, written), x, y = pair(), mnist[0][:16].double(), mnist[1][:16]
    method = made(net, eps=E, lam=100, refresh=2)
    method.label_smoothing, method.progress = 0.5, 0.25
    of_class = torch.zeros(())
    for number in range(3):
        if number % 2 == 0:
            grey = torch.full((10, 1, 28, 28), 0.5, dtype=torch.float64)
            slope = sign_of_slope(lambda z: smoothed(written.evaluation(z), torch.arange(10), 0.5), grey)
            of_class = E * slope
        net.zero_grad()
        step = method(net, x, y, Batch(noise=StepNoise(3, number)))
        assert close(method.perturbations, of_class)
        same_step(net, step.loss, written, released(written, x, y, of_class.clone(), StepNoise(3, number), 25))
        method.after_step(net)


def test_the_perturbations_are_made_anew_when_an_epoch_begins(mnist: tuple[Images, Labels]) -> None:
    net, x, y = Net().train(), mnist[0][:8].double(), mnist[1][:8]
    method = made(net, eps=E)
    method(net, x, y)
    method.after_step(net)
    before = method.perturbations.clone()
    with torch.no_grad():
        net.linear.weight.neg_()
    method(net, x, y)
    assert close(method.perturbations, before)
    method.after_epoch({})
    method(net, x, y)
    assert not close(method.perturbations, before)


def test_state_goes_on_where_it_was(mnist: tuple[Images, Labels]) -> None:
    net, x, y = Net().train(), mnist[0][:8].double(), mnist[1][:8]
    one = made(net, eps=E, refresh=3)
    one(net, x, y)
    one.after_step(net)
    other = made(net, eps=E, refresh=3)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert other.iteration == 1 and close(other.perturbations, one.perturbations)


def test_steps_of_another_method_are_not_counted(mnist: tuple[Images, Labels]) -> None:
    """As where Hybrid trained its cheap method before: the first step needs the classes' perturbations."""
    net, x, y = Net().train(), mnist[0][:8].double(), mnist[1][:8]
    method = made(net, eps=E, refresh=3)
    for _ in range(2):
        method.after_step(net)
    method(net, x, y)
    assert close(method.perturbations.abs().amax((1, 2, 3)), torch.full((10,), E, dtype=torch.float64))


def test_the_divergence_of_equal_and_of_opposite_outputs() -> None:
    same, sure = torch.randn(4, 3), torch.tensor([[200.0, 0.0], [0.0, 200.0]])
    assert jensen_shannon(same, same).abs().max() < 1e-6
    assert torch.allclose(jensen_shannon(sure, sure.flip(0)), torch.full((2,), math.log(2)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lam": -1}, "lam .* at least 0"),
        ({"refresh": 0}, "refresh .* at least 1"),
        ({"min_share": 0.6}, "min_share .* in this order"),
        ({"max_share": 1.5}, "0..1"),
        ({"start_size": -0.1}, "start_size .* at least 0"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LIET(eps=E, **settings)

"""GradAlign against numbers worked out by hand, the released algorithm written out, and torch's count of operations."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from literal import Written, clip, close, cross_entropy, given, pair, same_step, two_pixels
from problems import Flops, flops
from torch import Tensor, nn

from toughen import models
from toughen.core.cost import PassCounter
from toughen.core.types import Images, Labels
from toughen.methods import Method
from toughen.methods.gradalign import GradAlign, cosine
from toughen.methods.pgi import PGI

E = 8 / 255


# ---- By hand.


class Bent(nn.Module):
    """Two pixels (a, b) to the logits (w a b, 0), so that the gradient towards them is a multiple of (b, a)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        product = self.weight * x[:, 0, 0, 0] * x[:, 0, 0, 1]
        return torch.stack([product, torch.zeros_like(product)], 1)


def test_one_image_by_hand() -> None:
    # x = (0.3, 0.4) has a gradient along (0.4, 0.3); eta = 0.1 (1, -1) leads to (0.4, 0.3) with one along (0.3, 0.4).
    # cos = (0.12 + 0.12) / 0.25. Label 1: the loss rises with the product, so x_adv = (0.4, 0.5), the logit is 0.2.
    model, x, y = Bent(), two_pixels((0.3, 0.4)), torch.tensor([1])
    for lam in (0.5, 2):
        step = GradAlign(eps=0.1, lam=lam)(model, x, y, given([[[[1.0, -1.0]]]]))
        assert close(step.terms["alignment"], 0.96)
        assert close(step.terms["robust"], math.log(1 + math.exp(0.2)))
        assert close(step.loss.detach(), math.log(1 + math.exp(0.2)) + lam * 0.04)
    # the weight scales both gradients and so moves no cosine; the cross-entropy's slope is p a b
    (slope,) = torch.autograd.grad(step.loss, model.weight)
    assert close(slope, 0.2 / (1 + math.exp(-0.2)))


def test_the_mean_is_over_images_that_have_both_gradients() -> None:
    a = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0], [1e-30, 0.0]], dtype=torch.float64).view(4, 1, 1, 2)
    b = torch.tensor([[4.0, 3.0], [0.0, 0.0], [1.0, 0.0], [-1e-25, 0.0]], dtype=torch.float64).view(4, 1, 1, 2)
    b.requires_grad_()
    found = cosine(a, b)
    assert close(found.detach(), (0.96 - 1) / 2)  # two are left out; the squares of the last underflow in float32
    (slope,) = torch.autograd.grad(found, b)
    assert slope.isfinite().all() and not slope[1].any() and not slope[2].any()
    assert abs(float(cosine(a.float(), b.detach().float())) - (0.96 - 1) / 2) < 1e-6
    faint = torch.tensor([1e-40, 0.0], dtype=torch.float32).view(1, 1, 1, 2).requires_grad_()  # below normal numbers
    (slope,) = torch.autograd.grad(cosine(torch.cat([faint, b.detach()[:1].float()]), a[:2].float()), faint)
    assert faint.any() and not slope.any()
    nothing = torch.zeros(2, 1, 1, 2, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(cosine(nothing, nothing), nothing)
    assert close(cosine(nothing, nothing).detach(), 1) and not slope.any()


# ---- The released algorithm written out.


def slope_at(run: Any, x: Tensor, y: Tensor, *, graph: bool) -> Tensor:
    x = x.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(cross_entropy(run(x), y), x, create_graph=graph)
    return slope


def one_step(
    written: Written, x: Tensor, y: Tensor, noise: Tensor, *, lam: float, run: Any = None, **how: Any
) -> tuple[Tensor, Tensor]:
    """x_adv and the loss: attack, adversarial pass, gradient at x + eta, in the order in which batch norm sees them."""
    run = run or written.training
    begin = (x + E * noise).clamp(0, 1) if how.get("start") == "uniform" else x
    first = slope_at(run, begin, y, graph=False)
    x_adv = clip(begin + how.get("step", 1.25) * E * first.sign(), x, E)
    loss = cross_entropy(written.training(x_adv), y)
    second = slope_at(run, x + E * noise, y, graph=True)  # eta is not cut to [0, 1]
    if how.get("both"):
        first = slope_at(run, begin, y, graph=True)
    norms = [each.square().sum((1, 2, 3)).sqrt() for each in (first, second)]
    cos = ((first * second).sum((1, 2, 3)) / (norms[0] * norms[1])).mean()
    return x_adv, loss + lam * (1 - cos)


@pytest.mark.parametrize(
    ("settings", "how"),
    [
        ({}, {}),
        ({"lam": 2.0}, {}),
        ({"both": True}, {"both": True}),
        ({"start": "uniform"}, {"start": "uniform"}),
        ({"step_size": 0.5 * E}, {"step": 0.5}),
    ],
    ids=str,
)
def test_two_steps_equal_the_released_algorithm(
    settings: dict[str, Any], how: dict[str, Any], mnist: tuple[Images, Labels]
) -> None:
    (net, written), x, y = pair(), mnist[0][:16].double(), mnist[1][:16]
    method = GradAlign(eps=E, **settings)
    for _ in range(2):
        noise = 2 * torch.rand_like(x) - 1
        x_adv, loss = one_step(written, x, y, noise, lam=settings.get("lam", 0.2), **how)
        assert close(method.craft(copy.deepcopy(net), x, y, given(noise)).x_adv, x_adv)
        net.zero_grad()
        same_step(net, method(net, x, y, given(noise)).loss, written, loss)


def test_in_evaluation_mode_attack_and_alignment_see_running_statistics(mnist: tuple[Images, Labels]) -> None:
    (net, written), x, y = pair(), mnist[0][:16].double(), mnist[1][:16]
    noise = 2 * torch.rand_like(x) - 1
    x_adv, loss = one_step(written, x, y, noise, lam=0.2, run=written.evaluation)
    method = GradAlign(eps=E, mode="eval")
    assert close(method.craft(copy.deepcopy(net), x, y, given(noise)).x_adv, x_adv)
    same_step(net, method(net, x, y, given(noise)).loss, written, loss)


def test_the_alignment_moves_the_weights(mnist: tuple[Images, Labels]) -> None:
    """Its gradient is that of a difference quotient, so that the graph reaches the weights."""
    (net, _), x, y = pair(), mnist[0][:8].double(), mnist[1][:8]
    noise, slopes = given(2 * torch.rand_like(x) - 1), {}
    net.eval()  # or else each pass would move the statistics
    for both in (False, True):
        method = GradAlign(eps=0.3, lam=1.0, both=both)
        crafted = method.craft(net, x, y, noise)
        step = method.loss(net, x, y, crafted)
        (slopes[both],) = torch.autograd.grad(step.loss, net.linear.weight)
        values = []
        direction = torch.randn_like(net.linear.weight)
        for sign in (1, -1):
            with torch.no_grad():
                net.linear.weight.add_(sign * 1e-6 * direction)
            values.append(method.loss(net, x, y, crafted).loss.detach())
            with torch.no_grad():
                net.linear.weight.sub_(sign * 1e-6 * direction)
        quotient = (values[0] - values[1]) / 2e-6
        assert abs(float(quotient - (slopes[both] * direction).sum())) < 1e-5 * float(quotient.abs() + 1)
    assert (slopes[True] - slopes[False]).abs().max() > 1e-5  # whether the first gradient is a constant


# ---- Cost: what is counted is what the processor did.


@pytest.mark.parametrize("name", ["small-cnn", "resnet18"])
@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (GradAlign(eps=0.1), 11),
        (GradAlign(eps=0.1, both=True), 17),
        (GradAlign(eps=0.1, lam=0), 5),
        (PGI(eps=0.1, prior="batch"), 7),
    ],
    ids=["released", "both", "without", "PGI"],
)
def test_passes_are_the_operations_that_torch_counts(
    method: Method, expected: int, name: str, mnist: tuple[Images, Labels]
) -> None:
    x, y = mnist[0][:8], mnist[1][:8]
    model = models.create(name, 10, (1, 28, 28)).train()
    method = copy.deepcopy(method)
    method.prepare(model, (1, 28, 28), 10)
    with PassCounter(model) as passes, Flops() as counted:
        method(model, x, y).loss.backward()
    assert passes.total == expected * len(x)
    assert counted.total / flops(model, x) == pytest.approx(expected, rel=0.02)
    assert passes.crafted == len(x)  # gamma is 1: the regulariser's gradients make no images


# ---- Settings.


def test_without_a_weight_there_is_no_second_gradient(mnist: tuple[Images, Labels]) -> None:
    (net, written), x, y = pair(), mnist[0][:16].double(), mnist[1][:16]
    noise = torch.rand_like(x)
    first = slope_at(written.training, x, y, graph=False)
    x_adv = clip(x + E * first.sign(), x, E)
    step = GradAlign(eps=E, lam=0)(net, x, y, given(noise))
    same_step(net, step.loss, written, cross_entropy(written.training(x_adv), y))
    assert set(step.terms) == {"robust"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lam": -1}, "lam -1 must be at least 0"),
        ({"lam": math.nan}, "lam nan must be at least 0"),
        ({"step_size": -0.1}, "step_size -0.1 must be a finite number"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GradAlign(eps=E, **settings)


def test_all_settings_show() -> None:
    text = repr(GradAlign(eps=E, lam=1, start="uniform", both=True, mode="eval"))
    assert all(part in text for part in ("lam=1,", "start='uniform'", "both=True", "mode='eval'", "step_size=0.039"))

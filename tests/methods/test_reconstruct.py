"""Reconstruct against numbers worked out by hand and against Eq. 16 written out."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from contract import EPS, batch, net, train
from literal import Pixels, Written, clip, close, given, pair, sign_of_slope, two_pixels
from literal import cross_entropy as written_cross_entropy
from torch import Tensor, nn

from toughen.core.cost import PassCounter
from toughen.core.threat import Threat
from toughen.core.types import Batch, Images, Labels, Plan
from toughen.methods.awp import AWP
from toughen.methods.base import Method
from toughen.methods.converge_smooth import ConvergeSmooth
from toughen.methods.delayed import Delayed
from toughen.methods.efgsm import EFGSM
from toughen.methods.fast import FGSMAT
from toughen.methods.free import Free
from toughen.methods.hybrid import Hybrid
from toughen.methods.nuat import NuAT
from toughen.methods.reconstruct import Reconstruct
from toughen.methods.standard import Standard
from toughen.methods.trades import TRADES


class Shown(nn.Module):
    """A re-constructor that shows k probabilities, each times a weight of its own, as the k pixels of a row."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(k, dtype=torch.float64))

    def forward(self, probabilities: Tensor) -> Tensor:
        return (probabilities * self.scale)[:, None, None]


class Sigmoid(nn.Linear):
    """Ten probabilities to 784 pixels."""

    def __init__(self) -> None:
        super().__init__(10, 784, dtype=torch.float64)

    def forward(self, probabilities: Tensor) -> Tensor:
        return super().forward(probabilities).sigmoid().view(-1, 1, 28, 28)


def at(index: list[int], noise: list[Any]) -> Batch:
    return replace(given(noise), index=torch.tensor(index))


def attacked_loss(written: Written, y: Tensor, z: Tensor) -> Tensor:
    return written_cross_entropy(written.evaluation(z), y)


def around(inner: Method, reconstructor: nn.Module, **settings: Any) -> Reconstruct:
    """With another re-constructor than its own."""
    method = Reconstruct(inner=inner, **settings)
    method.reconstructor, method._prepared = reconstructor, True
    return method


def test_one_image_by_hand() -> None:
    # Logits are the pixels; x = (1/2, 1/2), label 0, and FGSM at 1/4 gives (1/4, 3/4). There the probabilities are
    # (1 - t, 1 + t) / 2 with t = tanh(1/4), shown as pixels: both are t / 2 off. The label is smoothed to (0.9, 0.1).
    model, x, y = Pixels(), two_pixels((0.5, 0.5)), torch.tensor([0])
    method = around(FGSMAT(eps=0.25), Shown(2), lam=0.5, smoothing=0.2)
    assert close(method.craft(model, x, y).x_adv, two_pixels((0.25, 0.75)))
    step = method(model, x, y)
    step.loss.backward()
    t = math.tanh(0.25)
    cross_entropy = math.log(math.exp(0.25) + math.exp(0.75)) - 0.9 * 0.25 - 0.1 * 0.75
    assert close(step.terms["reconstruction"], t**2 / 4) and close(step.terms["robust"], cross_entropy)
    assert close(step.loss.detach(), t**2 / 4 + 0.5 * cross_entropy)
    # Slopes. The pixels': 2 / 2 times what each is off, (-t / 2, t / 2). The scales': that times p. The logits':
    # through softmax p (g - p.g) with p.g = t^2 / 2, and 0.5 (p - label).
    p, g = ((1 - t) / 2, (1 + t) / 2), (-t / 2, t / 2)
    assert isinstance(method.reconstructor, Shown) and method.reconstructor.scale.grad is not None
    assert close(method.reconstructor.scale.grad, torch.tensor([p[0] * g[0], p[1] * g[1]], dtype=torch.float64))
    z = [p[i] * (g[i] - t**2 / 2) + 0.5 * (p[i] - (0.9, 0.1)[i]) for i in (0, 1)]
    assert model.weight.grad is not None
    expected = torch.tensor([[z[0] * 0.25, z[0] * 0.75], [z[1] * 0.25, z[1] * 0.75]], dtype=torch.float64)
    assert close(model.weight.grad, expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_two_steps_equal_the_equation(smoothing: float, mnist: tuple[Images, Labels]) -> None:
    x, y, net = mnist[0][:16].double(), mnist[1][:16], pair()[0]
    reconstructor = Sigmoid()
    method = around(FGSMAT(eps=0.1), reconstructor, lam=0.05, smoothing=smoothing)
    optimizer = torch.optim.SGD([*net.parameters(), *method.parameters()], lr=0.1)
    for _ in range(2):
        written = Written(net)
        weight, bias = (each.detach().clone().requires_grad_() for each in (reconstructor.weight, reconstructor.bias))
        x_adv = clip(x + 0.1 * sign_of_slope(partial(attacked_loss, written, y), x), x, 0.1)
        z = written.training(x_adv)
        p = z.exp() / z.exp().sum(1, keepdim=True)
        rebuilt = 1 / (1 + (-(p @ weight.T + bias)).exp())
        label = (1 - smoothing) * F.one_hot(y, 10).double() + smoothing / 10
        robust = -(label * p.log()).sum(1).mean()
        expected = ((rebuilt - x.flatten(1)) ** 2).mean() + 0.05 * robust
        step = method(net, x, y)
        optimizer.zero_grad()
        step.loss.backward()
        assert close(step.loss.detach(), expected.detach()) and close(step.logits.detach(), z.detach())
        slopes = torch.autograd.grad(expected, [*written.weights.values(), weight, bias])
        found = [*net.parameters(), reconstructor.weight, reconstructor.bias]
        for parameter, other in zip(found, slopes, strict=True):
            assert parameter.grad is not None and close(parameter.grad, other) and other.abs().max() > 1e-6
        assert net.norm.running_mean is not None and close(net.norm.running_mean, written.mean)
        optimizer.step()


def test_it_trains_on_the_images_of_any_method(mnist: tuple[Images, Labels]) -> None:
    """And on nothing else of it: a clean pass that the inner method shares with its own loss is left out."""
    (x, y), model = mnist, net()
    for inner in (Standard(), NuAT(eps=EPS), EFGSM(eps=EPS)):
        method = Reconstruct(inner=copy.deepcopy(inner))
        method.prepare(model, (1, 28, 28), 10, 64)
        inner.prepare(model, (1, 28, 28), 10, 64)
        crafted = method.craft(copy.deepcopy(model), x, y, batch(64))
        assert torch.equal(crafted.x_adv, inner.craft(copy.deepcopy(model), x, y, batch(64)).x_adv)
        assert crafted.clean is None


def test_without_an_attack_the_cross_entropy_is_a_clean_one(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    natural, robust = Reconstruct(inner=Standard()), Reconstruct(inner=FGSMAT(eps=EPS))
    for method, terms in ((natural, {"clean", "reconstruction"}), (robust, {"robust", "reconstruction"})):
        method.prepare(model, (1, 28, 28), 10, 64)
        assert set(method(model, x, y).terms) == terms
    assert natural.threat is None and robust.threat == Threat("linf", EPS)
    assert natural.rescue() is None and natural.reports_clean and not robust.reports_clean


def test_what_efgsm_noticed_is_logged_and_ends_training_from_within() -> None:
    # eps 0.1, no noise but the sign (1, 1), cut by the box: (1, 0) becomes (1, 0.1), whose distance to z_0 = z_1 is
    # 0.9 / 2, above eps; (1/2, 1/2) stays on that boundary. So none, then one of two is not robust.
    noise, y = at([0, 1], [[[[1.0, 1.0]]]] * 2), torch.tensor([0, 0])
    inner = EFGSM(eps=0.1, sigma=0, stop_drop=0.4)
    inner.prepare(Pixels(), (1, 1, 2), 2, 2)
    for method in (around(inner, Shown(2)), TRADES(eps=0.1, crafter=inner)):
        method._prepared, inner.last_share = True, None
        for first, second, share, stops in (((1, 0), (1, 0), 0.0, False), ((1, 0), (0.5, 0.5), 0.5, True)):
            inner.history.zero_()
            step = method(Pixels(), two_pixels(first, second), y, noise)
            assert close(step.terms["non_robust"], share) and "robust" in step.terms
            method.after_epoch({})
            assert (method.stop_reason is not None) is stops
        assert method.stop_reason is not None and "from 100.0% to 50.0%" in method.stop_reason
        inner.stop_reason = None


# ---- The re-constructor.


def test_its_weights_are_trained_and_its_passes_counted(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method = Reconstruct(inner=FGSMAT(eps=EPS), lam=0)
    method.prepare(model, (1, 28, 28), 10, 64)
    assert method.reconstructor is not None
    assert sum(each.numel() for each in method.parameters()) == sum(
        each.numel() for each in method.reconstructor.parameters()
    )
    assert 240_000 < sum(each.numel() for each in method.parameters()) < 270_000  # the paper: 0.26 M
    with PassCounter(model, method.companions(), x[:1]) as passes:
        method(model, x, y).loss.backward()
    own = passes.total
    with PassCounter(model) as passes:
        method(model, x, y).loss.backward()
    assert passes.total == 5 * len(x)
    with PassCounter(method.reconstructor) as passes:
        method(model, x, y).loss.backward()
    assert passes.total == 3 * len(x) and passes.input_gradient == 0
    assert own > 8 * len(x)  # much heavier than this net
    first = float(method(model, x, y).terms["reconstruction"])
    train(method, model, x, y, 40)
    assert float(method(model, x, y).terms["reconstruction"]) < 0.8 * first


def test_auto_is_dense_for_grey_images_and_wide_for_colour() -> None:
    cases: list[tuple[Any, tuple[int, int, int], float]] = [
        ("auto", (1, 28, 28), 0.26e6),
        ("auto", (3, 32, 32), 5.1e6),
        ("dense", (3, 32, 32), 0.32e6),
    ]
    for kind, shape, size in cases:
        method = Reconstruct(inner=Standard(), reconstructor=kind)
        method.prepare(nn.Linear(1, 1), shape, 10, 64)
        assert sum(each.numel() for each in method.parameters()) == pytest.approx(size, rel=0.03), (kind, shape)


def test_hooks_and_progress_reach_the_inner_method(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    inner = NuAT(eps=EPS)
    method = Reconstruct(inner=inner)
    method.prepare(model, (1, 28, 28), 10, 64)
    method.start(Plan(epochs=3, steps=12, images=64))
    method.progress = 0.25
    train(method, model, x, y, 2)
    assert inner.progress == 0.25 and inner.iteration == 2 and inner.epochs == 3
    stopping = EFGSM(eps=EPS)
    stopping.stop_reason = "enough"
    assert Reconstruct(inner=stopping).stop_reason == "enough"


@pytest.mark.parametrize("settings", [{"lam": -1}, {"lam": math.nan}, {"smoothing": 1}, {"smoothing": -0.1}], ids=str)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=f"{name} .*(at least|below)"):
        Reconstruct(inner=Standard(), **settings)


def test_images_that_no_reconstructor_makes_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        Reconstruct(inner=Standard()).prepare(net(), (1, 30, 30), 10, 64)


# ---- Methods that wait for something that only their own loss gives.


def test_a_delayed_method_inside_switches_by_the_clean_loss(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    delayed = Delayed(after=FGSMAT(eps=EPS), sensitivity=0.5, latest=1)
    method = Reconstruct(inner=delayed)
    method.prepare(model, (1, 28, 28), 10, 64)
    method.start(Plan(epochs=9, steps=9, images=64))
    for epoch, expected in enumerate(["clean", "clean", "clean", "robust"]):  # L, L / 4, L / 16: 0.6 epochs ahead
        method.progress = epoch / 9
        assert method.is_adversarial == (expected == "robust")
        terms = method(model, x, y, batch(len(x), epoch)).terms
        assert expected in terms
        told = {name: float(value) / 4**epoch for name, value in terms.items()}
        method.after_epoch({"epoch": epoch, "terms": told})


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        (Free(eps=EPS), "Free perturbs images"),
        (AWP(inner=FGSMAT(eps=EPS)), "put AWP around Reconstruct"),
        (ConvergeSmooth(inner=FGSMAT(eps=EPS)), "put ConvergeSmooth around Reconstruct"),
        (Hybrid(cheap=NuAT(eps=EPS)), "put Reconstruct into its cheap"),
        (Delayed(before=NuAT(eps=EPS), after=EFGSM(eps=EPS)), "while NuAT trains.*give switch_epoch a number"),
    ],
    ids=["Free", "AWP", "ConvergeSmooth", "Hybrid", "Delayed"],
)
def test_a_method_that_needs_its_own_loss_is_refused(inner: Method, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Reconstruct(inner=inner)
    Reconstruct(inner=Delayed(before=NuAT(eps=EPS), after=EFGSM(eps=EPS), switch_epoch=1))

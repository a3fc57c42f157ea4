"""AWP against arithmetic done by hand, the released algorithm written out, and what an exception leaves behind."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from contract import EPS, batch, net
from literal import Pixels, close, cross_entropy, pair, same_step, sign_of_slope, two_pixels
from torch import Tensor, nn

from toughen.core.cost import PassCounter
from toughen.core.types import Batch, Crafted, Images, Labels, Plan, Step
from toughen.methods import REGISTRY
from toughen.methods.awp import AWP
from toughen.methods.base import Method
from toughen.methods.fast import FGSMAT
from toughen.methods.nuat import NuAT
from toughen.methods.pgd_at import PGDAT
from toughen.methods.standard import Standard
from toughen.methods.trades import TRADES


def test_one_image_worked_by_hand() -> None:
    """Logits are the pixels (0.6, 0.4) of class 0, so p = (1, 1) / (1 + e^-0.2), e^-0.2 / (1 + e^-0.2) = (p, q).

    The slope of -log p_0 towards W is (p - 1, q)^T (0.6, 0.4) = q [[-0.6, -0.4], [0.6, 0.4]], of length
    q sqrt(2 (0.36 + 0.16)) = q sqrt(1.04), and W = identity is sqrt 2 long. So W + 0.1 v =
    I + 0.1 sqrt(2 / 1.04) [[-0.6, -0.4], [0.6, 0.4]], at which z_1 - z_0 = -0.2 + 0.1 sqrt(2 / 1.04) 2 (0.36 + 0.16).
    """
    model = Pixels()
    step = AWP(inner=Standard(), gamma=0.1)(model, two_pixels((0.6, 0.4)), torch.tensor([0]))
    gap = -0.2 + 0.1 * math.sqrt(2 / 1.04) * 1.04
    assert close(step.loss.detach(), math.log(1 + math.exp(gap)))
    assert torch.equal(model.weight, torch.eye(2, dtype=torch.float64))


def test_two_steps_written_out(mnist: tuple[Images, Labels]) -> None:
    """Each on FGSM images; matrices move along their own slope, norm and bias stay; statistics move once a step."""
    x, y = mnist[0].double(), mnist[1]
    net, written = pair()
    method = AWP(inner=FGSMAT(eps=0.1), gamma=0.05)
    for _ in range(2):
        x_adv = (x + 0.1 * sign_of_slope(lambda x: cross_entropy(written.evaluation(x), y), x)).clamp(0, 1)
        originals, statistics = written.weights, (written.mean, written.var)
        slopes = torch.autograd.grad(cross_entropy(written.training(x_adv), y), list(originals.values()))
        written.mean, written.var = statistics
        written.weights = {
            name: weight + 0.05 * weight.detach().norm() / slope.norm() * slope if weight.ndim > 1 else weight
            for (name, weight), slope in zip(originals.items(), slopes, strict=True)
        }
        expected = cross_entropy(written.training(x_adv), y)
        written.weights = originals
        net.zero_grad()
        same_step(net, method(net, x, y).loss, written, expected)
        with torch.no_grad():
            for mine, theirs in zip(net.parameters(), written.weights.values(), strict=True):
                assert mine.grad is not None
                mine.sub_(0.1 * mine.grad)
                theirs.copy_(mine)


def test_the_perturbed_loss_is_higher(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    losses = [float(AWP(inner=Standard(), gamma=g)(copy.deepcopy(model), x, y).loss.detach()) for g in (0, 0.01, 0.1)]
    assert losses[0] < losses[1] < losses[2]


class Failing(Standard):
    """Raises when its loss is taken for the n-th time."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        step = super().loss(model, x, y, crafted)
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt
        return step


@pytest.mark.parametrize("at", [1, 2])
def test_nothing_raised_leaves_other_weights_behind(at: int, mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    objects = dict(model.named_parameters())
    with pytest.raises(KeyboardInterrupt):
        AWP(inner=Failing(at), gamma=0.5)(model, x, y)
    for name, weight in model.named_parameters():
        assert weight is objects[name] and torch.equal(weight, before[name]) and weight.grad is None


def test_frozen_weights_stay_and_no_gradient_reaches_them(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    model.first.weight.requires_grad_(False)
    AWP(inner=Standard())(model, x, y).loss.backward()
    assert model.first.weight.grad is None and model.second.weight.grad is not None


def test_a_model_without_weights_to_perturb_is_refused() -> None:
    model = Pixels()
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="AWP has nothing to perturb"):
        AWP(inner=Standard(), gamma=0.1)(model, two_pixels((0.6, 0.4)), torch.tensor([0]))


def test_it_waits_for_its_share_of_the_run(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method = AWP(inner=Standard(), gamma=0.1, begin_at=0.5)
    found = {}
    for progress in (0.25, 0.5):
        method.progress = progress
        found[progress] = float(method(copy.deepcopy(model), x, y).loss.detach())
    plain = float(Standard()(copy.deepcopy(model), x, y).loss.detach())
    assert found[0.25] == plain < found[0.5]


@pytest.mark.parametrize(
    ("inner", "more"), [(PGDAT(eps=EPS, steps=2), 3), (TRADES(eps=EPS, steps=2), 6), (NuAT(eps=EPS), 7)]
)
def test_the_attack_runs_once(inner: Method, more: int, mnist: tuple[Images, Labels]) -> None:
    """NuAT's shared clean pass goes no way back (-2); each loss makes one of its own (6) beside x_adv's (3)."""
    (x, y), model = mnist, net()
    counted = []
    for method in (inner, AWP(inner=inner)):
        with PassCounter(model) as passes:
            method(model, x, y, batch(len(x))).loss.backward()
        counted.append(passes)
    assert counted[1].total - counted[0].total == more * len(x)
    assert counted[1].input_gradient == counted[0].input_gradient


def test_a_shared_clean_pass_is_not_taken_for_one_at_the_perturbed_weights(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    models = [net().eval() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    shared, apart = (
        AWP(inner=NuAT(eps=EPS, share_clean=share), gamma=0.2)(model, x, y, batch(len(x)))
        for share, model in zip((True, False), models, strict=True)
    )
    torch.testing.assert_close(shared.loss, apart.loss, rtol=1e-6, atol=0)


@pytest.mark.parametrize("settings", [{"gamma": -0.1}, {"gamma": math.nan}, {"begin_at": 1.5}, {"begin_at": -1}])
def test_absurd_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be at least 0"):
        AWP(inner=Standard(), **settings)


NESTED = [("AWP", "Hybrid"), ("AWP", "Delayed"), ("Hybrid", "AWP"), ("Hybrid", "Delayed"), ("Delayed", "AWP"),
          ("Delayed", "Hybrid")]  # fmt: skip


def wrap(name: str, inner: Method) -> Method:
    key = {"AWP": "inner", "Hybrid": "cheap", "Delayed": "after"}[name]
    more = {"before": NuAT(eps=EPS)} if name == "Delayed" else {}
    return REGISTRY[name](**{key: inner, **more})


@pytest.mark.parametrize(("outer", "middle"), NESTED)
def test_wrappers_nest_in_each_other(outer: str, middle: str, mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method = wrap(outer, wrap(middle, NuAT(eps=EPS)))
    method.prepare(model, (1, 28, 28), 10, 64)
    method.start(Plan(epochs=2, steps=8, images=64))
    optimizer = torch.optim.SGD([*model.parameters(), *method.parameters()], lr=0.05)
    for step in range(4):
        method.progress = step / 4
        step_ = method(model, x, y, batch(len(x), step))
        optimizer.zero_grad()
        step_.loss.backward()
        assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())
        optimizer.step()
        method.after_step(model)
    method.after_epoch({"epoch": 0, "terms": {"clean": 1.0}})
    again = wrap(outer, wrap(middle, NuAT(eps=EPS)))
    again.prepare(model, (1, 28, 28), 10, 64)
    again.load_state_dict(method.state_dict())
    again.progress = method.progress
    losses = [each(copy.deepcopy(model), x, y, batch(len(x), 9)).loss.detach() for each in (method, again)]
    assert torch.equal(losses[0], losses[1]) and method.threat == NuAT(eps=EPS).threat


def test_a_call_with_other_weights_keeps_each_parts_mode(mnist: tuple[Images, Labels]) -> None:
    class Modes(Standard):
        def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
            inner = [module for name, module in model.named_modules() if name.endswith(("norm", "frozen"))]
            modes.append([module.training for module in inner])
            return super().loss(model, x, y, crafted)

    modes: list[list[bool]] = []
    (x, y), model = mnist, net()
    statistics = copy.deepcopy(model.frozen.state_dict())
    AWP(inner=Modes())(model, x, y, Batch())
    assert modes == [[True, False]] * 2
    assert model.norm.num_batches_tracked is not None and int(model.norm.num_batches_tracked) == 1
    values: list[Tensor] = list(model.frozen.state_dict().values())
    assert all(torch.equal(a, b) for a, b in zip(values, statistics.values(), strict=True))

"""NuAT2 and NuAT2-WA against numbers worked out by hand and against the released algorithm written out."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
import torch
from contract import batch, net, prepared, train
from literal import (
    Net,
    Pixels,
    Written,
    clip,
    close,
    cross_entropy,
    given,
    nuclear,
    pair,
    same_step,
    sign_of_slope,
    two_pixels,
)
from torch import Tensor

from toughen.core.cost import PassCounter
from toughen.core.threat import Threat
from toughen.core.types import Images, Labels
from toughen.methods.nuat import NuAT
from toughen.methods.nuat2 import NuAT2
from toughen.methods.pgd_at import PGDAT

E = 8 / 255


# ---- By hand: the logits are the two pixels.


@pytest.mark.parametrize(
    ("lam", "step_size", "x_adv", "length"),
    [
        (0.1, None, (0.25, 0.75), 0.25),
        (4, None, (0.5, 0.5), 0.0),
        (0.1, 0.125, (0.375, 0.625), 0.125),
        (4, 0.125, (0.625, 0.375), 0.125),
    ],
)
def test_one_image_by_hand(lam: float, step_size: float | None, x_adv: tuple[float, float], length: float) -> None:
    # x = (1/2, 1/2), label 0, start x + (1/8, -1/8). There cross-entropy rises along (-, +) with 1 / (1 + e^(1/4)) =
    # 0.44 in each pixel, lam times the distance from x along (+, -) with lam / sqrt(2). At lam 0.1 both steps go 1/4
    # along (-, +): to x + (-1/8, 1/8), then to x + (-3/8, 3/8), cut to 1/4. At lam 4 the first goes the other way,
    # to x + (3/8, -3/8), cut to 1/4, and the second, on cross-entropy alone, back to x itself. Steps of 1/8 lead to x
    # itself, where the second one goes on to x + (-1/8, 1/8), or to x + (1/4, -1/4) and back to x + (1/8, -1/8).
    model, x, y, noise = Pixels(), two_pixels((0.5, 0.5)), torch.tensor([0]), given([[[[1.0, -1.0]]]])
    method = NuAT2(eps=0.25, start_size=0.125, lam=lam, step_size=step_size)
    assert close(method.craft(model, x, y, noise).x_adv, two_pixels(x_adv))
    step = method(model, x, y, noise)
    step.loss.backward()
    # the matrix is one row (-d, d): its norm d sqrt(2), its slope u^T (-d, d) with u = (-1, 1) / sqrt(2); 0 for d = 0
    assert close(step.loss.detach(), math.log(2) + lam * length * math.sqrt(2))
    s = lam * length / math.sqrt(2)
    expected = torch.tensor([[-0.25 + s, -0.25 - s], [0.25 - s, 0.25 + s]], dtype=torch.float64)
    assert model.weight.grad is not None and close(model.weight.grad, expected)


# ---- The released algorithm written out.


def attacked(
    live: Written, leader: Written, x: Tensor, y: Tensor, noise: Tensor, lam: float, step: float = E
) -> Tensor:
    """Two steps in evaluation mode, of eps as released; the leader takes the first, with both of its logits."""
    clean = leader.evaluation(x).detach()

    def both(z: Tensor) -> Tensor:
        return cross_entropy(leader.evaluation(z), y) + lam / len(x) * nuclear(clean - leader.evaluation(z))

    x_adv = (x + 4 / 255 * noise).clamp(0, 1)
    x_adv = clip(x_adv + step * sign_of_slope(both, x_adv), x, E)
    return clip(x_adv + step * sign_of_slope(lambda z: cross_entropy(live.evaluation(z), y), x_adv), x, E)


class Averaged:
    """s <- 0.99 s + 0.01 w over weights and statistics, an alias of w at first."""

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}

    def update(self, net: Net) -> None:
        assert net.norm.running_mean is not None and net.norm.running_var is not None
        now = {name: weight.detach().clone() for name, weight in net.named_parameters()}
        now |= {"mean": net.norm.running_mean.clone(), "var": net.norm.running_var.clone()}
        self.state = {name: 0.99 * self.state.get(name, value) + 0.01 * value for name, value in now.items()}

    def written(self, net: Net) -> Written:
        written = Written(net)
        written.weights = {name: self.state[name] for name in written.weights}
        written.mean, written.var = self.state["mean"], self.state["var"]
        return written


@pytest.mark.parametrize("first_step", ["live", "average"])
def test_six_steps_equal_the_released_algorithm(first_step: Any, mnist: tuple[Images, Labels]) -> None:
    """Epochs of three steps; in the first one the live model takes both steps of the attack."""
    x, y, net, averaged = mnist[0][:40].double(), mnist[1][:40], pair()[0], Averaged()
    method = NuAT2(eps=E, lam=4.5, divisor=64, first_step=first_step)  # 40: CIFAR-10's last batch, divided by 64
    method.prepare(net, (1, 28, 28), 10, 64)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    differs = []
    for number in range(6):
        written, noise = Written(net), torch.randn_like(x).sign()
        leader = averaged.written(net) if first_step == "average" and number >= 3 else written
        x_adv = attacked(written, leader, x, y, noise, 4.5)
        crafted = method.craft(net, x, y, given(noise))
        assert close(crafted.x_adv, x_adv) and not crafted.x_adv.requires_grad and crafted.clean is None
        differs.append(not close(attacked(written, written, x, y, noise, 4.5), x_adv))
        noisy, clean = written.training(x_adv), written.training(x)
        expected = cross_entropy(clean, y) + 4.5 / 64 * nuclear(clean - noisy)
        optimizer.zero_grad()
        same_step(net, method(net, x, y, given(noise)).loss, written, expected)
        optimizer.step()
        averaged.update(net)
        method.after_step(net)
        if number == 2:
            method.after_epoch({})
    assert net.norm.num_batches_tracked is not None and int(net.norm.num_batches_tracked) == 12  # none by the attack
    assert differs == [first_step == "average" and number >= 3 for number in range(6)]


def test_steps_of_another_length_equal_the_algorithm(mnist: tuple[Images, Labels]) -> None:
    (x, y), net = (mnist[0][:16].double(), mnist[1][:16]), Net().train()
    written, noise = Written(net), torch.randn_like(x).sign()
    x_adv = attacked(written, written, x, y, noise, 4.5, E / 2)
    assert close(NuAT2(eps=E, lam=4.5, step_size=E / 2).craft(net, x, y, given(noise)).x_adv, x_adv)
    assert not close(attacked(written, written, x, y, noise, 4.5), x_adv)


def test_batches_do_not_alternate(mnist: tuple[Images, Labels]) -> None:
    x, y, net = mnist[0][:16].double(), mnist[1][:16], Net().train()
    noise, method = given(torch.randn_like(x).sign()), NuAT2(eps=E)
    found = []
    for _ in range(3):
        found.append(method.craft(net, x, y, noise).x_adv)
        method.after_step(net)
    assert torch.equal(found[0], found[1]) and torch.equal(found[1], found[2])
    assert not torch.equal(found[0], NuAT2(eps=E, lam=0).craft(net, x, y, noise).x_adv)


def test_the_attacks_lam_rises_with_the_losss(mnist: tuple[Images, Labels]) -> None:
    x, y, net = mnist[0][:16].double(), mnist[1][:16], Net().train()
    noise = torch.randn_like(x).sign()
    for progress, lam in ((0.0, 0.0), (0.45, 2.25), (0.95, 4.5)):
        method, written = NuAT2(eps=E, lam=4.5), Written(net)
        method.progress = progress
        x_adv = attacked(written, written, x, y, noise, lam)
        assert close(method.craft(net, x, y, given(noise)).x_adv, x_adv)
        step = method(copy.deepcopy(net), x, y, given(noise))
        found = (step.loss.detach() - step.terms["clean"]) / step.terms["nuclear"]
        assert abs(float(found) - lam) < 1e-9


# ---- The average.


def test_it_is_no_weight_and_travels_in_checkpoints(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method = prepared("NuAT2", model, first_step="average")
    assert not list(method.parameters())
    train(method, model, x, y, 2)
    method.after_epoch({})
    train(method, model, x, y, 2)  # in mid-epoch
    saved = {name: value.clone() if isinstance(value, Tensor) else value for name, value in method.state_dict().items()}
    extra = {name: json.loads(json.dumps(value)) for name, value in saved.items() if not isinstance(value, Tensor)}
    restored = prepared("NuAT2", model, first_step="average")
    restored.load_state_dict({**saved, **extra})
    for step in (7, 8):
        here, there = (each.craft(model, x, y, batch(len(x), step)).x_adv for each in (method, restored))
        assert torch.equal(here, there)
        lost = prepared("NuAT2", model, first_step="average").craft(model, x, y, batch(len(x), step)).x_adv
        assert not torch.equal(here, lost)
        model.linear.weight.data.mul_(1.1)
        for each in (method, restored):
            each.after_step(model)


def test_its_passes_are_counted(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method = prepared("NuAT2", model, first_step="average")
    train(method, model, x, y, 1)
    for own in (11, 8):  # in the first epoch all are the model's; then 1 + 2 are the average's
        with PassCounter(model, method.companions(), x[:1]) as passes:
            method(model, x, y, batch(len(x))).loss.backward()
        assert passes.total == 11 * len(x)
        with PassCounter(model) as passes:
            method(model, x, y, batch(len(x))).loss.backward()
        assert passes.total == own * len(x)
        method.after_epoch({})
    method.missed_epoch({})  # after a rescue the average is of other weights: all are the model's again
    with PassCounter(model) as passes:
        method(model, x, y, batch(len(x))).loss.backward()
    assert passes.total == 11 * len(x)
    model.linear.weight.data.mul_(1.1)
    method.after_step(model)
    assert isinstance(method, NuAT2) and method.average is not None
    assert torch.equal(dict(method.average.named_buffers())["linear.weight"], model.linear.weight)
    assert not prepared("NuAT2", model).companions()


def test_the_model_and_the_average_keep_their_modes(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method = prepared("NuAT2", model, first_step="average")
    train(method, model, x, y, 1)
    method.after_epoch({})
    assert isinstance(method, NuAT2) and method.average is not None
    before = copy.deepcopy(method.average.state_dict())
    method(model, x, y, batch(len(x))).loss.backward()
    assert all(torch.equal(value, before[name]) for name, value in method.average.state_dict().items())
    assert not any(part.training for part in method.average.modules())


# ---- Settings, and what NuAT does after a collapse.


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 1.5)])
def test_nuat_is_rescued_by_nuat2_with_its_settings_and_nuat2_by_pgd(norm: Any, eps: float) -> None:
    settings: dict[str, Any] = {
        "lam": 3.0,
        "ramp": 0.5,
        "ramp_by": "epoch",
        "start_size": 0.03,
        "cross_entropy_on": "adversarial",
        "divisor": 64,
    }
    rescue = NuAT(eps=eps, norm=norm, **settings).rescue()
    assert isinstance(rescue, NuAT2) and rescue.threat == Threat(norm, eps)
    assert {name: getattr(rescue, name) for name in settings} == settings
    assert rescue.attack.start_size == 0.03 and rescue.first_step == "live"
    last = rescue.rescue()
    assert isinstance(last, PGDAT) and last.attack.steps == 2 and last.threat == Threat(norm, eps)


@pytest.mark.parametrize("method", [NuAT, NuAT2])
def test_the_clean_loss_is_reported_where_it_is_taken(method: Any, mnist: tuple[Images, Labels]) -> None:
    for where, reported in (("clean", True), ("adversarial", False)):
        made = method(eps=E, cross_entropy_on=where)
        assert made.reports_clean is reported
        assert ("clean" in made(net(), *mnist).terms) is reported


@pytest.mark.parametrize("settings", [{"lam": -1}, {"lam": math.nan}, {"ramp": -0.1}, {"divisor": 0}], ids=str)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=f"{name} .* at least"):
        NuAT2(eps=E, **settings)

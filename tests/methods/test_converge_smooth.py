"""ConvergeSmooth against numbers worked out by hand and against the released algorithm written out."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from contract import EPS, batch, net
from literal import Pixels, close, cross_entropy, pair, same_step, two_pixels
from torch import nn

from toughen.core.cost import PassCounter
from toughen.core.types import Crafted, Images, Labels, Plan
from toughen.methods.converge_smooth import ConvergeSmooth
from toughen.methods.delayed import Delayed
from toughen.methods.fast import FGSMAT
from toughen.methods.nfgsm import NFGSM
from toughen.methods.nuat import NuAT
from toughen.methods.pgi import PGI
from toughen.methods.standard import Standard
from toughen.training import Piecewise

METRICS: dict[str, Any] = {"epoch": 0, "terms": {}}


def one_epoch(method: ConvergeSmooth, model: nn.Module, *losses: float) -> None:
    """An epoch of one-image batches that have these clean cross-entropies."""
    for loss in losses:
        # logits (a, 0) with label 0: log(1 + exp(-a)) = loss
        a = -math.log(math.expm1(loss))
        method(model, two_pixels((a, 0.0)), torch.tensor([0]))
        method.after_step(model)
    method.after_epoch(dict(METRICS))


def test_bounds_by_hand() -> None:
    model = Pixels()
    method = ConvergeSmooth(inner=Standard(), weight=0.5, gamma=0.2, ratio=4, stride=0)
    method.start(Plan(epochs=9, steps=18, images=2))
    assert not method.acts  # nothing is known yet
    one_epoch(method, model, 0.6, 0.8)
    assert method.acts and close(method.last_mean, 0.7) and close(method.last_change, 0.7)
    # the bound is min(max(0.2 / 4, 0.7), 0.2) = 0.2: above 0.9 it is added, below 0.5 taken away, else left
    for loss, factor in ((0.95, 1.5), (0.85, 1.0), (0.55, 1.0), (0.45, 0.5)):
        a = -math.log(math.expm1(loss))
        step = method(model, two_pixels((a, 0.0)), torch.tensor([0]))
        assert close(step.loss.detach(), factor * loss) and close(step.terms["clean"], loss)
    one_epoch(method, model, 0.5, 0.7)
    # the mean fell by 0.1, so that the bound is the smallest one, 0.05, around 0.6
    assert close(method.last_mean, 0.6) and close(method.last_change, -0.1)
    for loss, factor in ((0.66, 1.5), (0.64, 1.0), (0.56, 1.0), (0.54, 0.5)):
        a = -math.log(math.expm1(loss))
        step = method(model, two_pixels((a, 0.0)), torch.tensor([0]))
        assert close(step.loss.detach(), factor * loss)


def test_it_acts_between_the_start_and_the_first_drop() -> None:
    """Released: epochs after 0 + stride and before 100 - stride, where the rate first falls after 100 of 110."""
    schedule, acting = Piecewise(milestones=(100 / 110, 105 / 110), gamma=0.1), []
    method = ConvergeSmooth(inner=Standard())
    method.start(Plan(epochs=110, steps=110, images=1, first_drop=schedule.first_drop))
    for epoch in range(110):
        method.progress = epoch / 110
        acting += [epoch] if method.acts else []
        method.latest = torch.zeros(())
        method.after_step(torch.nn.Identity())
        method.after_epoch(dict(METRICS))
    assert acting == list(range(2, 99))


def test_after_a_rescue_it_waits_as_after_the_start() -> None:
    """The last mean is that of weights before the rescue: two epochs pass until two means of new ones are known."""
    model, method = Pixels(), ConvergeSmooth(inner=Standard())
    method.start(Plan(epochs=20, steps=20, images=1))
    for loss in (0.6, 0.5):
        assert not method.acts
        one_epoch(method, model, loss)
    assert method.acts
    method.missed_epoch(dict(METRICS))
    for loss in (0.2, 0.3):
        assert not method.acts
        one_epoch(method, model, loss)
    assert method.acts and close(method.last_mean, 0.3) and close(method.last_change, 0.1)


def test_epochs_that_another_method_trained_are_no_start_of_its_own() -> None:
    """Three epochs of standard training: the mean that bounds the loss is first known after the fourth."""
    method = ConvergeSmooth(inner=Standard())
    around = Delayed(after=method, switch_epoch=3)
    around.start(Plan(epochs=10, steps=10, images=1))
    model, x, y, acting = Pixels(), two_pixels((1.0, 0.0)), torch.tensor([0]), []
    for epoch in range(10):
        around.progress = epoch / 10
        acting += [epoch] if epoch > 2 and method.acts else []
        around(model, x, y)
        around.after_step(model)
        around.after_epoch({"epoch": epoch, "terms": {"clean": 0.5}})
    assert acting == [5, 6, 7, 8]


def test_a_rescue_does_not_move_its_end() -> None:
    """A rescue trains epochs 3 to 5 of ten; the rate drops after eight, so that the constraint ends before epoch 7."""
    method, model, acting = ConvergeSmooth(inner=Standard()), Pixels(), []
    method.start(Plan(epochs=10, steps=10, images=1, first_drop=0.8))
    for epoch in (0, 1, 2, 6, 7, 8, 9):
        method.progress = epoch / 10
        acting += [epoch] if method.acts else []
        one_epoch(method, model, 0.5)
    assert acting == [2, 6]


def test_steps_equal_the_released_algorithm(mnist: tuple[Images, Labels]) -> None:
    """The clean loss's gradient is added where the loss lies too high, and taken away below."""
    x, y, eps = mnist[0][:16].double(), mnist[1][:16], 8 / 255
    for mean, sign in ((0.0, 1), (9.0, -1)):
        net, written = pair()
        method = ConvergeSmooth(inner=FGSMAT(eps=eps), stride=0)
        method.epoch = 1
        method.last_mean.fill_(mean)
        x_adv = (x + eps * torch.sign(torch.randn_like(x))).clamp(0, 1)
        # the inner loss runs first, at the crafted images, then the clean pass
        expected = cross_entropy(written.training(x_adv), y) + sign * cross_entropy(written.training(x), y)
        same_step(net, method.loss(net, x, y, Crafted(x_adv=x_adv)).loss, written, expected)


def test_a_clean_pass_is_shared_where_there_is_one(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    for inner, epoch, passes in ((NuAT(eps=EPS), 2, 8), (NFGSM(eps=EPS), 2, 5 + 3), (NFGSM(eps=EPS), 0, 5 + 1)):
        method = ConvergeSmooth(inner=inner)
        method.epoch = epoch
        method.prepare(model, (1, 28, 28), 10, 64)
        with PassCounter(model) as counter:
            method(model, x, y, batch(len(x))).loss.backward()
        assert counter.total / len(x) == pytest.approx(passes)


def test_state_goes_on_where_it_was() -> None:
    model = Pixels()
    one = ConvergeSmooth(inner=Standard(), stride=0)
    one_epoch(one, model, 0.6, 0.8)
    one(model, two_pixels((0.5, 0.2)), torch.tensor([0]))
    one.after_step(model)
    other = ConvergeSmooth(inner=Standard(), stride=0)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert (other.epoch, other.seen) == (1, 1) and close(other.epoch_sum, one.epoch_sum) and other.epoch_sum > 0
    assert close(other.last_mean, 0.7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": -1}, "weight .* at least 0"),
        ({"gamma": -0.1}, "gamma .* at least 0"),
        ({"ratio": 0.5}, "ratio .* at least 1"),
        ({"stride": -1}, "stride .* at least 0"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConvergeSmooth(inner=Standard(), **settings)


def test_around_pgi_the_clean_loss_is_smoothed_as_pgis() -> None:
    """The released FGSM_MEP_CS.py compares, adds and subtracts the smoothed loss: a share of 4/9 over ten classes."""
    method, x, y = ConvergeSmooth(inner=PGI(eps=EPS, smoothing=4 / 9)), torch.rand(4, 1, 28, 28), torch.arange(4)
    model = net()
    method.prepare(model, (1, 28, 28), 10, 4)
    step = method(model, x, y, batch(4))
    log_softmax = model(x).double().log_softmax(1)
    expected = -(5 / 9 * log_softmax[torch.arange(4), y] + 4 / 9 * log_softmax.mean(1)).mean()
    torch.testing.assert_close(step.terms["clean"].double(), expected.detach())

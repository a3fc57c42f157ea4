"""NuAT against numbers worked out by hand and against the released algorithm written out."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
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

from toughen.core.types import Crafted, Images, Labels, Plan, Step
from toughen.methods.nuat import NuAT

E = 8 / 255


# ---- By hand: the logits are the two pixels.


@pytest.mark.parametrize(("iteration", "x_adv", "length"), [(0, (0.375, 0.625), 0.125), (1, (0.75, 0.25), 0.25)])
def test_one_image_by_hand(iteration: int, x_adv: tuple[float, float], length: float) -> None:
    # x = (1/2, 1/2), label 0, start + (1/8, -1/8). Cross-entropy rises along (-, +): in an even step the attack goes
    # 1/4 that way, to x + (-1/8, 1/8). In an odd one lam times the norm of f(x') - f(x), here the pixels' distance
    # from x, pulls along (1, -1) / sqrt(2) with 4 > 0.5: to x + (3/8, -3/8), cut to 1/4.
    model, x, y, batch = Pixels(), two_pixels((0.5, 0.5)), torch.tensor([0]), given([[[[1.0, -1.0]]]])
    method = NuAT(eps=0.25, start_size=0.125, lam=4)
    method.iteration = iteration
    assert close(method.craft(model, x, y, batch).x_adv, two_pixels(x_adv))
    step = method(model, x, y, batch)
    step.loss.backward()
    # the matrix is one row (d, -d), so its nuclear norm is d sqrt(2)
    assert close(step.terms["clean"], math.log(2)) and close(step.terms["nuclear"], length * math.sqrt(2))
    assert close(step.loss.detach(), math.log(2) + 4 * length * math.sqrt(2))
    # slopes: (-1/2, 1/2)^T (1/2, 1/2), and with u = (1, -1) / sqrt(2), either sign: lam u^T (d, -d)
    s = 4 * length / math.sqrt(2)
    assert model.weight.grad is not None
    expected = torch.tensor([[-0.25 + s, -0.25 - s], [0.25 - s, 0.25 + s]], dtype=torch.float64)
    assert close(model.weight.grad, expected)


def test_two_images_by_hand() -> None:
    # Start at +-1/8, step 1/4 along (-, +) for label 0: a pixel whose start agrees ends 2/8 away, another 1/8.
    # M = f(x_adv) - f(x) = 1/8 [[-2, 2], [-2, 1]]: s1^2 + s2^2 = 13/64, s1 s2 = |det M| = 2/64, s1 + s2 = sqrt(17)/8.
    # U V^T = (M + cof M) / (s1 + s2) = [[-1, 4], [-4, -1]] / sqrt(17), and the slope is (U V^T)^T M, as f(x) = x.
    model, x, y = Pixels(), two_pixels((0.5, 0.5), (0.5, 0.5)), torch.tensor([0, 0])
    batch = given([[[[-1.0, 1.0]]], [[[-1.0, -1.0]]]])
    for divisor, divided in ((None, 2), (64, 64)):
        method = NuAT(eps=0.25, start_size=0.125, lam=3, divisor=divisor)
        crafted = method.craft(model, x, y, batch)
        assert close((crafted.x_adv - x).flatten(1) * 8, torch.tensor([[-2.0, 2.0], [-2.0, 1.0]]))
        step = method(model, x, y, batch)
        model.zero_grad()
        step.loss.backward()
        assert close(step.loss.detach(), math.log(2) + 3 / divided * math.sqrt(17) / 8)
        slope = torch.tensor([[10, -6], [-6, 7]], dtype=torch.float64) / (8 * math.sqrt(17))
        natural = torch.tensor([[-0.25, -0.25], [0.25, 0.25]], dtype=torch.float64)
        assert model.weight.grad is not None and close(model.weight.grad, natural + 3 / divided * slope)


# ---- The released algorithm written out: train-mode clean logits and evaluation-mode noisy ones in the attack.


def attacked(
    written: Written, clean: Tensor, x: Tensor, y: Tensor, noise: Tensor, *, odd: bool, weight: float, start: float
) -> Tensor:
    def value(z: Tensor) -> Tensor:
        noisy = written.evaluation(z)
        return cross_entropy(noisy, y) + odd * weight * nuclear(clean.detach() - noisy)

    x0 = (x + start * noise).clamp(0, 1)
    return clip(x0 + E * sign_of_slope(value, x0), x, E)


def one_step(
    written: Written, x: Tensor, y: Tensor, noise: Tensor, *, weight: float, share: bool = False, **attack: Any
) -> tuple[Tensor, Tensor]:
    """x_adv, and the loss with its graph: three passes in training mode, or two where the clean one is shared."""
    first = written.training(x)
    x_adv = attacked(written, first, x, y, noise, weight=weight, **attack)
    noisy = written.training(x_adv)
    clean = first if share else written.training(x)
    return x_adv, cross_entropy(clean, y) + weight * nuclear(clean - noisy)


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("iteration", [0, 1, 2, 3])
def test_one_step_equals_the_released_algorithm(iteration: int, share: bool, mnist: tuple[Images, Labels]) -> None:
    (net, written), x, y = pair(), mnist[0][:40].double(), mnist[1][:40]  # 40: CIFAR-10's last batch, divided by 64
    noise = torch.randn_like(x).sign()
    attack: dict[str, Any] = {"odd": iteration % 2 == 1, "start": 4 / 255}
    x_adv, loss = one_step(written, x, y, noise, weight=4.5 / 64, share=share, **attack)
    method = NuAT(eps=E, lam=4.5, divisor=64, share_clean=share)
    for _ in range(iteration):
        method.after_step(net)
    crafted = method.craft(copy.deepcopy(net), x, y, given(noise))
    assert close(crafted.x_adv, x_adv) and not crafted.x_adv.requires_grad
    step = method(net, x, y, given(noise))
    same_step(net, step.loss, written, loss)
    assert net.norm.num_batches_tracked is not None and int(net.norm.num_batches_tracked) == (2 if share else 3)


def test_odd_steps_attack_the_nuclear_norm_and_even_ones_do_not(mnist: tuple[Images, Labels]) -> None:
    x, y, net = mnist[0][:16].double(), mnist[1][:16], Net().train()
    noise = given(torch.randn_like(x).sign())

    def x_adv(method: NuAT) -> Tensor:
        return method.craft(copy.deepcopy(net), x, y, noise).x_adv

    method, always = NuAT(eps=E, lam=4), NuAT(eps=E, lam=4, alternate=False)
    without = x_adv(NuAT(eps=E, lam=0, alternate=False))
    pattern = []
    for _ in range(5):
        pattern.append(torch.equal(x_adv(method), without))
        assert torch.equal(x_adv(method), x_adv(always)) is not pattern[-1]
        method.after_step(net)
    assert pattern == [True, False, True, False, True]
    method.after_epoch({})  # five steps: without a new start the next would be odd
    assert torch.equal(x_adv(method), without)


@pytest.mark.parametrize("share", [False, True])
def test_sharing_the_clean_pass_changes_nothing_but_the_statistics(share: bool, mnist: tuple[Images, Labels]) -> None:
    """The attack comes after one move either way, so x_adv, loss and gradients are those of the released order."""
    (net, written), x, y = pair(), mnist[0][:16].double(), mnist[1][:16]
    noise = torch.randn_like(x).sign()
    x_adv, loss = one_step(written, x, y, noise, weight=4 / 16, odd=True, start=E / 2)  # never shared
    slope = torch.autograd.grad(loss, list(written.weights.values()))
    method = NuAT(eps=E, lam=4, alternate=False, share_clean=share)
    assert close(method.craft(copy.deepcopy(net), x, y, given(noise)).x_adv, x_adv)
    step = method(net, x, y, given(noise))
    assert close(step.loss.detach(), loss.detach())
    found = torch.autograd.grad(step.loss, list(net.parameters()))
    assert all(close(a, b) for a, b in zip(found, slope, strict=True))
    assert net.norm.running_mean is not None
    assert close(net.norm.running_mean, written.mean) is not share


@pytest.mark.parametrize("noisy_in", ["training", "evaluation"])
@pytest.mark.parametrize("clean_in", ["training", "evaluation"])
def test_which_side_of_the_attack_is_in_which_mode(clean_in: str, noisy_in: str, mnist: tuple[Images, Labels]) -> None:
    (net, written), x, y = pair(), mnist[0][:16].double(), mnist[1][:16]
    noise = torch.randn_like(x).sign()
    moved = Written(net)
    moved.training(x)  # the attack sees statistics that its own clean pass has moved
    clean = getattr(copy.deepcopy(written), clean_in)(x).detach()

    def value(z: Tensor) -> Tensor:
        out = getattr(moved, noisy_in)(z)
        return cross_entropy(out, y) + 4 / 16 * nuclear(clean - out)

    x0 = (x + 4 / 255 * noise).clamp(0, 1)
    expected = clip(x0 + E * sign_of_slope(value, x0), x, E)
    found = NuAT(eps=E, alternate=False).craft(net, x, y, given(noise)).x_adv
    assert close(found, expected) is ((clean_in, noisy_in) == ("training", "evaluation"))


def test_the_perturbation_of_a_pixel_has_one_of_two_sizes(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist[0].double(), mnist[1]
    delta = NuAT(eps=E).craft(Net().train(), x, y).x_adv - x
    sizes = delta[(x > 2 * E) & (x < 1 - 2 * E)].abs()
    full, half = (sizes - E).abs() < 1e-9, (sizes - E / 2).abs() < 1e-9
    assert (full | half).all() and 0.3 < full.double().mean() < 0.7
    assert (x + delta).min() >= 0 and (x + delta).max() <= 1


def test_both_sides_of_the_nuclear_norm_get_gradient(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist[0][:16].double(), mnist[1][:16]
    x_adv = clip(x + E * torch.randn_like(x).sign(), x, E)
    net = Net().train()
    slopes = {}
    for side in ("both", "clean", "noisy"):
        written = Written(net)
        clean, noisy = written.training(x), written.training(x_adv)
        clean, noisy = clean.detach() if side == "noisy" else clean, noisy.detach() if side == "clean" else noisy
        (slopes[side],) = torch.autograd.grad(nuclear(noisy - clean), written.weights["norm.weight"])
    step = NuAT(eps=E, lam=16).loss(net, x, y, Crafted(x_adv=x_adv))  # 16 over 16 images
    natural = NuAT(eps=E, lam=0).loss(net, x, y, Crafted(x_adv=x_adv))
    (found,) = torch.autograd.grad(step.loss - natural.loss, net.norm.weight)
    assert close(found, slopes["both"]) and close(slopes["clean"] + slopes["noisy"], slopes["both"])
    assert min(slope.abs().max() for slope in slopes.values()) > 1e-2


def test_the_printed_form_takes_the_cross_entropy_of_the_adversarial_images(mnist: tuple[Images, Labels]) -> None:
    (net, written), x, y = pair(), mnist[0][:16].double(), mnist[1][:16]
    noise = torch.randn_like(x).sign()
    clean = written.training(x)
    x_adv = attacked(written, clean, x, y, noise, odd=True, weight=4 / 16, start=4 / 255)
    noisy = written.training(x_adv)
    method = NuAT(eps=E, alternate=False, cross_entropy_on="adversarial")
    step = method(net, x, y, given(noise))
    same_step(net, step.loss, written, cross_entropy(noisy, y) + 4 / 16 * nuclear(noisy - clean))
    assert set(step.terms) == {"adversarial", "nuclear"}
    assert close(step.terms["adversarial"], cross_entropy(noisy, y).detach())
    assert close(step.logits.detach(), noisy.detach())  # what the accuracy in the log is taken on


# ---- The ramp of lam.


def lam_now(step: Step) -> float:
    return float((step.loss.detach() - step.terms["clean"]) / step.terms["nuclear"])


@pytest.mark.parametrize(("progress", "lam"), [(0, 0), (0.01, 0.05), (0.45, 2.25), (0.9, 4.5), (0.95, 4.5), (1, 4.5)])
def test_lam_rises_at_every_step_until_the_ramp_ends(progress: float, lam: float, mnist: tuple[Images, Labels]) -> None:
    (net, written), x, y = pair(), mnist[0][:16].double(), mnist[1][:16]
    noise, method = torch.randn_like(x).sign(), NuAT(eps=E, lam=4.5, alternate=False)  # 0.9 is the default ramp
    method.progress = progress
    x_adv, loss = one_step(written, x, y, noise, weight=lam / 16, odd=True, start=4 / 255, share=True)
    assert close(method.craft(copy.deepcopy(net), x, y, given(noise)).x_adv, x_adv)  # the attack's weight rises too
    step = method(net, x, y, given(noise))
    assert abs(lam_now(step) - lam) < 1e-9
    same_step(net, step.loss, written, loss)


def test_lam_rises_once_an_epoch_as_released(mnist: tuple[Images, Labels]) -> None:
    x, y, net = mnist[0][:2].double(), mnist[1][:2], Net().eval()
    method = NuAT(eps=E, lam=4.5, ramp_by="epoch", alternate=False)
    method.start(Plan(epochs=100, steps=100 * 766, images=49_000))
    for epoch in range(100):
        for place in (0, 765):
            method.progress = (epoch * 766 + place) / (100 * 766)
            assert abs(lam_now(method(net, x, y)) - min(0.05 * epoch, 4.5)) < 1e-9, (epoch, place)
    method.progress = 1.0
    assert abs(lam_now(method(net, x, y)) - 4.5) < 1e-9


@pytest.mark.parametrize("ramp_by", ["step", "epoch"])
def test_a_loop_that_never_sets_progress_trains_with_all_of_lam(ramp_by: Any, mnist: tuple[Images, Labels]) -> None:
    x, y = mnist[0][:16].double(), mnist[1][:16]
    for ramp in (0, 0.5, 1):
        assert abs(lam_now(NuAT(eps=E, lam=3, ramp=ramp, ramp_by=ramp_by)(Net(), x, y)) - 3) < 1e-9
    early = NuAT(eps=E, lam=3, ramp=0, ramp_by=ramp_by)
    early.progress = 0.0
    assert abs(lam_now(early(Net(), x, y)) - 3) < 1e-9  # no ramp: all of lam from the first step


# ---- Settings.


def test_the_start_may_be_larger_but_stays_in_the_ball(mnist: tuple[Images, Labels]) -> None:
    (net, written), x, y = pair(), mnist[0][:16].double(), mnist[1][:16]
    noise = torch.randn_like(x).sign()
    x_adv, _ = one_step(written, x, y, noise, weight=4 / 16, odd=True, start=E)  # as GAT on MNIST: start of eps
    for start_size in (E, 0.5):
        method = NuAT(eps=E, start_size=start_size, alternate=False)
        assert close(method.craft(copy.deepcopy(net), x, y, given(noise)).x_adv, x_adv)


@pytest.mark.parametrize(
    "settings", [{"lam": -1}, {"lam": math.nan}, {"ramp": -0.1}, {"divisor": 0}, {"divisor": -64}], ids=str
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=f"{name} .* at least"):
        NuAT(eps=E, **settings)

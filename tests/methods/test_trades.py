"""TRADES against numbers worked out by hand and against its formulas written out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from contract import batch, prepared
from contract import net as small_net
from literal import (
    Net,
    Pixels,
    Written,
    clip,
    close,
    cross_entropy,
    given,
    kl,
    pair,
    same_step,
    sign_of_slope,
    two_pixels,
)
from torch import Tensor

from toughen.core.cost import PassCounter
from toughen.core.types import Crafted, Images, Labels, Mode, Plan
from toughen.methods.awp import AWP
from toughen.methods.converge_smooth import ConvergeSmooth
from toughen.methods.delayed import Delayed
from toughen.methods.efgsm import EFGSM
from toughen.methods.free import Free
from toughen.methods.hybrid import Hybrid
from toughen.methods.nuat import NuAT
from toughen.methods.standard import Standard
from toughen.methods.trades import TRADES


def test_by_hand() -> None:
    # Logits are the pixels; x = (1/2, 1/2), so p = (1/2, 1/2). The start, (0.501, 0.499), is where q = softmax first
    # differs from p, and its KL rises along (+, -): one step of 1/4 within 1/4 gives (3/4, 1/4).
    # There q = (1 + t, 1 - t) / 2 with t = tanh(1/4), and KL(p || q) = ln cosh(1/4).
    model, x, y, batch = Pixels(), two_pixels((0.5, 0.5)), torch.tensor([0]), given([[[[1.0, -1.0]]]])
    method = TRADES(eps=0.25, steps=1, step_size=0.25, beta=6)
    assert close(method.craft(model, x, y, batch).x_adv, two_pixels((0.75, 0.25)))
    step = method(model, x, y, batch)
    step.loss.backward()
    t, robust = math.tanh(0.25), math.log(math.cosh(0.25))
    assert close(step.loss.detach(), math.log(2) + 6 * robust)
    assert close(step.terms["clean"], math.log(2)) and close(step.terms["robust"], robust)
    # Slopes of the logits, each times the image that they were taken on: cross-entropy p - (1, 0); through x_adv
    # q - p = (t, -t) / 2; through x p (ln(p / q) - KL) = (-1/8, 1/8), since ln((1 - t) / (1 + t)) = -1/2.
    a, b = -0.5 * 0.5 + 6 * (t / 2 * 0.75 - 0.125 * 0.5), -0.5 * 0.5 + 6 * (t / 2 * 0.25 - 0.125 * 0.5)
    assert model.weight.grad is not None
    assert close(model.weight.grad, torch.tensor([[a, b], [-a, -b]], dtype=torch.float64))


def test_where_the_attack_starts() -> None:
    # x + 0.001 noise, and one step of 1/8 from there
    once, noise = TRADES(eps=0.25, steps=1, step_size=0.125), given([[[[1.0, -1.0]]]])
    x_adv = once.craft(Pixels(), two_pixels((0.5, 0.5)), torch.tensor([0]), noise).x_adv
    assert close(x_adv, two_pixels((0.626, 0.374)))
    # The start isn't cut. At x = (1, 1/2) noise (1, 0) leads to (1.001, 1/2), KL rises along (+, -): (1, 3/8).
    # A start cut to the box would be x itself, where KL has no slope and the attack would stay.
    outwards = given([[[[1.0, 0.0]]]])
    x_adv = once.craft(Pixels(), two_pixels((1, 0.5)), torch.tensor([0]), outwards).x_adv
    assert close(x_adv, two_pixels((1, 0.375)))


def attacked(
    written: Written, x: Tensor, noise: Tensor, *, steps: int, size: float, eps: float, mode: Mode = "eval"
) -> Tensor:
    """Target and attack in one mode."""
    forward = written.evaluation if mode == "eval" else written.training
    target = forward(x).detach()
    x_adv = x + 0.001 * noise
    for _ in range(steps):
        slope = sign_of_slope(lambda z: kl(target, forward(z)), x_adv)
        x_adv = torch.minimum(torch.maximum(x_adv + size * slope, x - eps), x + eps).clamp(0, 1)
    return x_adv


@pytest.mark.parametrize(
    ("settings", "steps", "size", "beta"),
    [
        ({"step_size": 0.007}, 10, 0.007, 6),  # as released
        ({"steps": 3, "beta": 1}, 3, 2.5 * 0.031 / 3, 1),
    ],
)
def test_one_step_equals_the_formulas(
    settings: dict[str, Any], steps: int, size: float, beta: float, mnist: tuple[Images, Labels]
) -> None:
    (net, written), x, y = pair(), mnist[0][:16].double(), mnist[1][:16]
    noise = torch.randn_like(x)
    method = TRADES(eps=0.031, **settings)
    x_adv = attacked(written, x, noise, steps=steps, size=size, eps=0.031)
    crafted = method.craft(net, x, y, given(noise))
    assert close(crafted.x_adv, x_adv) and not crafted.x_adv.requires_grad
    assert net.norm.num_batches_tracked is not None and int(net.norm.num_batches_tracked) == 0

    clean, adversarial = written.training(x), written.training(x_adv)
    expected = cross_entropy(clean, y) + beta * kl(clean, adversarial)
    step = method(net, x, y, given(noise))
    same_step(net, step.loss, written, expected)
    assert int(net.norm.num_batches_tracked) == 2
    assert close(step.logits.detach(), clean.detach())


def test_the_attack_and_its_target_can_be_taken_in_training_mode(mnist: tuple[Images, Labels]) -> None:
    (net, written), x, y = pair(), mnist[0][:16].double(), mnist[1][:16]
    noise = torch.randn_like(x)
    method = TRADES(eps=0.1, steps=2, step_size=0.05, mode="train")
    x_adv = attacked(written, x, noise, steps=2, size=0.05, eps=0.1, mode="train")
    clean, adversarial = written.training(x), written.training(x_adv)
    step = method(net, x, y, given(noise))
    same_step(net, step.loss, written, cross_entropy(clean, y) + 6 * kl(clean, adversarial))
    assert net.norm.num_batches_tracked is not None and int(net.norm.num_batches_tracked) == 5


def test_the_divergence_sends_its_gradient_through_both_sides(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist[0][:8].double(), mnist[1][:8]
    x_adv = clip(x + 0.1 * torch.randn_like(x).sign(), x, 0.1)
    slopes = []
    for side in ("both", "clean", "adversarial"):
        written = Written(_net())
        clean, adversarial = written.training(x), written.training(x_adv)
        clean = clean.detach() if side == "adversarial" else clean
        adversarial = adversarial.detach() if side == "clean" else adversarial
        slopes.append(torch.autograd.grad(kl(clean, adversarial), written.weights["convolution.weight"])[0])
    net = _net()
    step = TRADES(eps=0.1, beta=1).loss(net, x, y, Crafted(x_adv=x_adv))
    (everything,) = torch.autograd.grad(step.loss, net.convolution.weight)
    written = Written(_net())
    (natural,) = torch.autograd.grad(cross_entropy(written.training(x), y), written.weights["convolution.weight"])
    assert close(everything - natural, slopes[0]) and close(slopes[1] + slopes[2], slopes[0])
    assert min(slope.abs().max() for slope in slopes) > 1e-4


def _net() -> Net:
    torch.manual_seed(7)
    return Net().train()


def test_beta_below_zero_is_refused() -> None:
    for beta in (-1, math.nan):
        with pytest.raises(ValueError, match="beta .* at least 0"):
            TRADES(eps=0.1, beta=beta)


# ---- Another method's images: eFGSM + TRADES.


def test_the_loss_is_taken_on_the_crafters_images(mnist: tuple[Images, Labels]) -> None:
    (net, written), x, y = pair(), mnist[0][:16].double(), mnist[1][:16]
    crafter, twin = (EFGSM(eps=0.1, sigma=0.05) for _ in range(2))
    method = TRADES(eps=0.1, beta=2, crafter=crafter)
    for each in (method, twin):
        each.prepare(net, (1, 28, 28), 10, 64)
    for step in range(2):  # the second visit follows the history of the first
        x_adv = twin.craft(net, x, y, batch(16, step)).x_adv
        clean, adversarial = written.training(x), written.training(x_adv)
        expected = cross_entropy(clean, y) + 2 * kl(clean, adversarial)
        net.zero_grad()
        same_step(net, method(net, x, y, batch(16, step)).loss, written, expected)
    assert torch.equal(crafter.history, twin.history) and crafter.history.any()


def test_a_crafter_saves_the_passes_of_the_own_attack_and_hears_what_happens(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, small_net()
    crafter = EFGSM(eps=0.1)
    method = prepared("TRADES", model, crafter=crafter)
    with PassCounter(model) as passes:
        method(model, x, y, batch(64)).loss.backward()
    assert passes.total == 16 * 64  # 1 and 9 gradients for the attack, 3 for each side of the divergence
    told = NuAT(eps=0.1)
    method = TRADES(eps=0.1, crafter=told)
    method.start(Plan(epochs=7, steps=70, images=64))
    method.progress = 0.5
    method.after_step(model)
    assert (told.epochs, told.progress, told.iteration) == (7, 0.5, 1)


def test_a_crafter_with_another_threat_is_refused() -> None:
    for crafter in (EFGSM(eps=0.2), EFGSM(eps=0.1, norm="l2"), Standard()):
        with pytest.raises(ValueError, match="its crafter against .* same eps and norm"):
            TRADES(eps=0.1, crafter=crafter)


def test_a_crafter_that_works_through_its_own_loss_is_refused() -> None:
    for crafter, remedy in (
        (Free(eps=0.1), "Free perturbs images .* use another method"),
        (Delayed(after=Free(eps=0.1, replays=1)), "Free perturbs images"),
        (Hybrid(cheap=NuAT(eps=0.1)), "Hybrid switches .* put TRADES into its cheap"),
        (ConvergeSmooth(inner=EFGSM(eps=0.1)), "ConvergeSmooth holds .* put ConvergeSmooth around TRADES"),
        (AWP(inner=EFGSM(eps=0.1)), "AWP perturbs weights .* put AWP around TRADES"),
    ):
        with pytest.raises(ValueError, match=remedy):
            TRADES(eps=0.1, crafter=crafter)


def test_it_is_threatened_as_soon_as_its_crafter_is() -> None:
    delayed = Delayed(after=EFGSM(eps=0.1), switch_epoch=2)
    method = TRADES(eps=0.1, crafter=delayed)
    method.progress = 0.1
    assert not method.is_adversarial and TRADES(eps=0.1).is_adversarial
    delayed.switched = True
    assert method.is_adversarial

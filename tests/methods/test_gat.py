"""GAT against numbers worked out by hand and against the released algorithm written out."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from literal import Net, Pixels, Written, clip, close, cross_entropy, given, pair, same_step, sign_of_slope, two_pixels
from torch import Tensor

from toughen.attacks.pgd import PGD
from toughen.core.distances import squared_distance
from toughen.core.objectives import GuidedAscent
from toughen.core.types import Crafted, Images, Labels, Step
from toughen.methods.gat import GAT

E = 8 / 255


# ---- By hand: the logits are the two pixels.


@pytest.mark.parametrize(
    ("iteration", "lam", "x_adv"), [(0, 10, (0.375, 0.625)), (1, 10, (0.75, 0.25)), (1, 7, (0.375, 0.625))]
)
def test_one_image_by_hand(iteration: int, lam: int, x_adv: tuple[float, float]) -> None:
    # x = (1/2, 1/2), label 0, start + (1/8, -1/8). With d = a - b, s = 1 / (1 + e^-d): the cross-entropy has the slope
    # -(1 - s) in d, the squared distance 2 (s - 1/2)^2 the slope 4 (s - 1/2) s (1 - s). At d = 1/4 these are -0.438 and
    # 0.0612: in an odd step d rises where lam is more than 7.15, to x + (3/8, -3/8), cut to 1/4; else it falls by 1/4.
    model, x, y, batch = Pixels(), two_pixels((0.5, 0.5)), torch.tensor([0]), given([[[[1.0, -1.0]]]])
    method = GAT(eps=0.25, start_size=0.125, lam=lam, jump_at=None)
    for _ in range(iteration):
        method.after_step(model)
    assert close(method.craft(model, x, y, batch).x_adv, two_pixels(x_adv))
    step = method(model, x, y, batch)
    step.loss.backward()
    s = 1 / (1 + math.exp(x_adv[1] - x_adv[0]))
    assert close(step.terms["clean"], math.log(2)) and close(step.terms["distance"], 2 * (s - 0.5) ** 2)
    assert close(step.loss.detach(), math.log(2) + lam * 2 * (s - 0.5) ** 2)
    # slopes: (-1/2, 1/2)^T x, and (1, -1)^T 4 lam (s - 1/2) (s (1 - s) x_adv - 1/4 x)
    adv, clean = 4 * lam * (s - 0.5) * s * (1 - s), -lam * (s - 0.5)
    first = [-0.25 + adv * pixel + clean * 0.5 for pixel in x_adv]
    assert model.weight.grad is not None
    assert close(model.weight.grad, torch.tensor([first, [-each for each in first]], dtype=torch.float64))


def test_the_squared_distance_of_two_outputs_by_hand() -> None:
    # softmax (3/4, 1/4) and (1/4, 3/4): 2 (1/2)^2; certain and opposite: 2; equal up to a constant: 0
    logits = torch.tensor([[math.log(3), 0], [99, 0], [1, 2]], dtype=torch.float64)
    clean = torch.tensor([[0, math.log(3)], [0, 99], [5, 6]], dtype=torch.float64)
    assert close(squared_distance(logits, clean), torch.tensor([0.5, 2, 0]))
    ascent = GuidedAscent(clean, torch.tensor(3.0))
    y = torch.tensor([0, 0, 0])
    assert close(ascent(logits, y), torch.tensor([math.log(4 / 3) + 1.5, 6, math.log(1 + math.e)], dtype=torch.float64))
    assert ascent.fooled(logits, y).tolist() == [False, False, True]
    PGD(eps=E, objective=ascent, restarts=2)  # images are judged one by one, so restarts can be compared


# ---- The released algorithm written out: train-mode clean outputs and evaluation-mode noisy ones in the attack.


def distance(clean: Tensor, noisy: Tensor) -> Tensor:
    """The squared distance of softmax outputs, summed over classes, its mean over images."""
    p, q = (each.exp() / each.exp().sum(1, keepdim=True) for each in (clean, noisy))
    return ((p - q) ** 2).sum(1).mean()


def attacked(
    written: Written, clean: Tensor, x: Tensor, y: Tensor, noise: Tensor, *, odd: bool, lam: float, start: float
) -> Tensor:
    def value(z: Tensor) -> Tensor:
        noisy = written.evaluation(z)
        return cross_entropy(noisy, y) + odd * lam * distance(clean.detach(), noisy)

    x0 = (x + start * noise).clamp(0, 1)
    return clip(x0 + E * sign_of_slope(value, x0), x, E)


def one_step(
    written: Written, x: Tensor, y: Tensor, noise: Tensor, *, lam: float, share: bool = False, **attack: Any
) -> tuple[Tensor, Tensor]:
    """x_adv, and the loss with its graph: three passes in training mode, or two where the clean one is shared."""
    first = written.training(x)
    x_adv = attacked(written, first, x, y, noise, lam=lam, **attack)
    noisy = written.training(x_adv)
    clean = first if share else written.training(x)
    return x_adv, cross_entropy(clean, y) + lam * distance(clean, noisy)


@pytest.mark.parametrize("share", [False, True])
def test_a_run_across_the_jump_equals_the_released_algorithm(share: bool, mnist: tuple[Images, Labels]) -> None:
    """Seven steps, an epoch's end and the jump in between; weights move by plain gradient descent on both sides."""
    (net, written), x, y = pair(), mnist[0][:16].double(), mnist[1][:16]
    method = GAT(eps=E, share_clean=share)
    lams, odd = [10, 10, 10, 10, 10, 40, 40], [False, True, False, False, True, False, True]
    for step in range(7):
        noise = torch.randn_like(x).sign()
        method.progress = step * 0.172  # 0.86 is the sixth
        attack: dict[str, Any] = {"odd": odd[step], "start": 4 / 255}
        x_adv, loss = one_step(written, x, y, noise, lam=lams[step], share=share, **attack)
        crafted = method.craft(copy.deepcopy(net), x, y, given(noise))
        assert close(crafted.x_adv, x_adv) and not crafted.x_adv.requires_grad, step
        net.zero_grad()
        same_step(net, method(net, x, y, given(noise)).loss, written, loss)
        assert net.norm.num_batches_tracked is not None
        assert int(net.norm.num_batches_tracked) == (2 if share else 3) * (step + 1)
        with torch.no_grad():
            for (name, weight), copied in zip(net.named_parameters(), written.weights.values(), strict=True):
                assert weight.grad is not None, name
                weight.sub_(0.05 * weight.grad)
                copied.copy_(weight)
        method.after_step(net)
        if step == 2:
            method.after_epoch({})


def test_as_on_mnist_both_terms_are_attacked_always_from_a_start_of_eps(mnist: tuple[Images, Labels]) -> None:
    (net, written), x, y = pair(), mnist[0][:16].double(), mnist[1][:16]
    method = GAT(eps=E, lam=15, jump_at=0.5, jump=3, start_size=E, alternate=False)
    for progress, lam in ((0.49, 15), (0.5, 45)):
        method.progress, noise = progress, torch.randn_like(x).sign()
        x_adv, loss = one_step(written, x, y, noise, lam=lam, odd=True, start=E, share=True)
        assert close(method.craft(copy.deepcopy(net), x, y, given(noise)).x_adv, x_adv)
        sizes = (x_adv - x)[(x > 2 * E) & (x < 1 - 2 * E)].abs()
        assert (((sizes - E).abs() < 1e-9) | (sizes < 1e-9)).all() and (sizes < 1e-9).any()  # eps, or all the way back
        net.zero_grad()
        same_step(net, method(net, x, y, given(noise)).loss, written, loss)


def test_odd_steps_attack_the_distance_and_even_ones_do_not(mnist: tuple[Images, Labels]) -> None:
    x, y, net = mnist[0][:16].double(), mnist[1][:16], Net().train()
    noise = given(torch.randn_like(x).sign())

    def x_adv(method: GAT) -> Tensor:
        return method.craft(copy.deepcopy(net), x, y, noise).x_adv

    method, always = GAT(eps=E), GAT(eps=E, alternate=False)
    without = x_adv(GAT(eps=E, lam=0))
    pattern = []
    for _ in range(5):
        pattern.append(torch.equal(x_adv(method), without))
        assert torch.equal(x_adv(method), x_adv(always)) is not pattern[-1]
        method.after_step(net)
    assert pattern == [True, False, True, False, True]
    restored = GAT(eps=E)
    restored.load_state_dict(method.state_dict())
    assert torch.equal(x_adv(restored), x_adv(always))  # the sixth step is odd after a kill too
    method.after_epoch({})  # without a new start the next would be odd
    assert torch.equal(x_adv(method), without)


def test_both_sides_of_the_distance_get_gradient(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist[0][:16].double(), mnist[1][:16]
    x_adv = clip(x + E * torch.randn_like(x).sign(), x, E)
    net = Net().train()
    slopes = {}
    for side in ("both", "clean", "noisy"):
        written = Written(net)
        clean, noisy = written.training(x), written.training(x_adv)
        clean, noisy = clean.detach() if side == "noisy" else clean, noisy.detach() if side == "clean" else noisy
        (slopes[side],) = torch.autograd.grad(distance(clean, noisy), written.weights["norm.weight"])
    step = GAT(eps=E, lam=1, jump_at=None).loss(net, x, y, Crafted(x_adv=x_adv))
    natural = GAT(eps=E, lam=0).loss(net, x, y, Crafted(x_adv=x_adv))
    (found,) = torch.autograd.grad(step.loss - natural.loss, net.norm.weight)
    assert close(found, slopes["both"]) and close(slopes["clean"] + slopes["noisy"], slopes["both"])
    assert min(slope.abs().max() for slope in slopes.values()) > 1e-5


# ---- The jump of lam, and settings.


def lam_now(step: Step) -> float:
    return float((step.loss.detach() - step.terms["clean"]) / step.terms["distance"])


def test_lam_jumps_after_86_of_100_epochs_as_released(mnist: tuple[Images, Labels]) -> None:
    x, y, net = mnist[0][:4].double(), mnist[1][:4], Net().eval()
    method = GAT(eps=E)
    assert abs(lam_now(method(net, x, y)) - 40) < 1e-6  # a loop that never sets progress
    kept = method.lam_now
    for step, lam in ((0, 10), (85 * 766 + 765, 10), (86 * 766, 40), (100 * 766 - 1, 40), (100 * 766, 40)):
        method.progress = step / (100 * 766)
        assert abs(lam_now(method(net, x, y)) - lam) < 1e-6, step
    assert method.lam_now is kept  # filled in place: a compiled step sees the same tensor
    assert set(method.state_dict()) == {"_extra_state"}
    for jump_at in (None, 0.5):
        never = GAT(eps=E, lam=7, jump_at=jump_at, jump=2)
        never.progress = 0.4
        assert abs(lam_now(never(net, x, y)) - 7) < 1e-6
    assert abs(lam_now(GAT(eps=E, lam=7, jump_at=None, jump=2)(net, x, y)) - 7) < 1e-6


@pytest.mark.parametrize("settings", [{"lam": -1}, {"lam": math.nan}, {"jump": -1}, {"jump": math.nan}], ids=str)
def test_weights_below_zero_are_refused(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=f"{name} .* at least 0"):
        GAT(eps=E, **settings)


@pytest.mark.parametrize("jump_at", [-0.1, 1.1, math.nan])
def test_a_jump_outside_of_training_is_refused(jump_at: float) -> None:
    with pytest.raises(ValueError, match=r"jump_at .* 0\.\.1"):
        GAT(eps=E, jump_at=jump_at)

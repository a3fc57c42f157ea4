"""Free against numbers worked out by hand and against both released algorithms written out."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from contract import batch as known
from literal import Pixels, clip, close, cross_entropy, pair, same_step, two_pixels
from torch import Tensor, nn

from toughen.core.cost import PassCounter
from toughen.core.types import Images, Labels
from toughen.methods import Method
from toughen.methods.free import Free

E = 8 / 255


def made(model: nn.Module, shape: tuple[int, int, int] = (1, 28, 28), **settings: Any) -> Free:
    method = Free(**settings)
    method.prepare(model, shape, 10)
    return method


def trained(method: Method, model: nn.Module, x: Images, y: Labels) -> Tensor:
    """One replay without an optimizer's step; the loss."""
    loss: Tensor = method(model, x, y).loss
    loss.backward()
    method.after_step(model)
    return loss.detach()


# ---- By hand: the logits are the two pixels.


def test_two_replays_by_hand() -> None:
    # x = (1/2, 1/2), label 0: cross-entropy rises along (-, +). The first replay sees x itself: log 2. The perturbation
    # then is (-1/4, 1/4), the logits (1/4, 3/4) and the loss log(1 + e^(1/2)); a further step is cut to the same.
    model, x, y = Pixels(), two_pixels((0.5, 0.5)), torch.tensor([0])
    method = made(model, (1, 1, 2), eps=0.25)
    assert close(trained(method, model, x, y), math.log(2))
    assert close(method.delta, two_pixels((-0.25, 0.25)))
    assert close(trained(method, model, x, y), math.log(1 + math.exp(0.5)))
    assert close(method.delta, two_pixels((-0.25, 0.25)))
    # weights: log 2 sends (-1/2, 1/2)^T (1/2, 1/2); then p = sigmoid(1/2) sends (-p, p)^T (1/4, 3/4)
    p = 1 / (1 + math.exp(-0.5))
    row = torch.tensor([0.25 + p * 0.25, 0.25 + p * 0.75], dtype=torch.float64)
    assert model.weight.grad is not None and close(model.weight.grad, torch.stack([-row, row]))


def test_a_shorter_step_and_l2_by_hand() -> None:
    model, x, y = Pixels(), two_pixels((0.5, 0.5)), torch.tensor([0])
    method = made(model, (1, 1, 2), eps=0.25, step_size=0.1)
    for moved in (0.1, 0.2, 0.25):
        trained(method, model, x, y)
        assert close(method.delta, two_pixels((-moved, moved)))
    method = made(model, (1, 1, 2), eps=0.25, norm="l2", step_size=0.2)
    for length in (0.2, 0.25):
        trained(method, model, x, y)
        assert close(method.delta, two_pixels((-length / math.sqrt(2), length / math.sqrt(2))))


def test_the_perturbation_belongs_to_the_place_and_not_to_the_image() -> None:
    # (-1/4, 1/4) was learned on another image: on (1/8, 1) (-1/8, 0) is left of it. Label 1 asks for (1/4, -1/4) more.
    model = Pixels()
    method = made(model, (1, 1, 2), eps=0.25)
    trained(method, model, two_pixels((0.5, 0.5)), torch.tensor([0]))
    x = two_pixels((0.125, 1.0))
    assert close(method.craft(model, x, torch.tensor([1])).x_adv, two_pixels((0, 1)))
    trained(method, model, x, torch.tensor([1]))
    assert close(method.delta, two_pixels((0.125, -0.25)))
    trained(method, model, x, torch.tensor([0]))  # (1/8 - 1/4, -1/4 + 1/4)
    trained(method, model, x, torch.tensor([0]))  # (-3/8, 1/4), cut to the ball, then to what the image allows
    assert close(method.delta, two_pixels((-0.125, 0)))
    assert close(method.craft(model, two_pixels((0.5, 0.5)), torch.tensor([0])).x_adv, two_pixels((0.375, 0.5)))


def test_where_the_image_alone_is_cut_the_perturbation_stays_outside() -> None:
    # (-1/4, 1/4) was learned on another image: on (1/8, 1) it gives (0, 1), cut to the box, the ball's part stays.
    # There neither pixel lies within the box any more, so no step follows, whatever the label asks for.
    model = Pixels()
    method = made(model, (1, 1, 2), eps=0.25, clamp="image")
    trained(method, model, two_pixels((0.5, 0.5)), torch.tensor([0]))
    x = two_pixels((0.125, 1.0))
    assert close(method.craft(model, x, torch.tensor([1])).x_adv, two_pixels((0, 1)))
    trained(method, model, x, torch.tensor([1]))
    assert close(method.delta, two_pixels((-0.25, 0.25)))
    trained(method, model, two_pixels((0.5, 0.5)), torch.tensor([1]))  # seen within the box it moves back
    assert close(method.delta, two_pixels((0, 0)))


# ---- The released algorithms written out.


def clamped(x: Tensor) -> Tensor:
    """Cut to [0, 1], with a gradient at 0 and 1 themselves, as the released code has it; torch 2.15's has none."""
    return torch.where((x >= 0) & (x <= 1), x, x.detach().clamp(0, 1))


def allowed(delta: Tensor, x: Tensor) -> Tensor:
    """What of a perturbation leaves these images in [0, 1], as FBF's authors cut it."""
    return torch.max(torch.min(delta, 1 - x), 0 - x)


@pytest.mark.parametrize("clamp", ["delta", "image"])
def test_replays_and_batches_equal_the_released_algorithm(clamp: Any, mnist: tuple[Images, Labels]) -> None:
    """Two batches of three replays, the second one shorter, with momentum: gradients at the perturbation of before.

    "image" as Free's authors release it, "delta" as FBF's do; these begin a batch with an image outside [0, 1], where
    we cut the perturbation first.
    """
    net, written = pair()
    method = made(net, eps=E, replays=3, clamp=clamp)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    delta = torch.zeros(16, 1, 28, 28, dtype=torch.float64)
    for start, n in ((0, 16), (16, 10)):
        x, y = mnist[0][start : start + n].double(), mnist[1][start : start + n]
        if clamp == "delta":
            delta[:n] = allowed(delta[:n], x)
        for _ in range(method.replays):
            moving = delta[:n].clone().requires_grad_()
            loss = cross_entropy(written.training(clamped(x + moving)), y)
            (slope,) = torch.autograd.grad(loss, moving, retain_graph=True)
            optimizer.zero_grad()
            step = method(net, x, y)
            assert close(step.terms["robust"], loss.detach())
            same_step(net, step.loss, written, loss)
            delta[:n] = (delta[:n] + E * slope.sign()).clamp(-E, E)
            if clamp == "delta":
                delta[:n] = allowed(delta[:n], x)
            optimizer.step()
            with torch.no_grad():
                for (_, ours), theirs in zip(net.named_parameters(), written.weights.values(), strict=True):
                    theirs.copy_(ours)
            method.after_step(net)
            assert close(method.delta, delta)
    assert delta.abs().max() == E and (method.craft(net, x, y).x_adv - x).abs().max() <= E + 1e-12
    assert close(method.craft(net, x, y).x_adv, clip(x + delta[:10], x, E))
    outside = (x + delta[:10] < 0) | (x + delta[:10] > 1)
    assert bool(outside.any()) == (clamp == "image")  # so that the two forms differ on these images


# ---- Memory.


def test_a_larger_batch_finds_new_places_at_zero(mnist: tuple[Images, Labels]) -> None:
    net, _ = pair()
    x, y = mnist[0].double(), mnist[1]
    method = made(net, eps=E)
    trained(method, net, x[:8], y[:8])
    before = method.delta.clone()
    crafted = method.craft(net, x[:12], y[:12])
    assert torch.equal(method.delta[:8], before) and not method.delta[8:].any() and len(method.delta) == 12
    assert torch.equal(crafted.x_adv[8:], x[8:12]) and not torch.equal(crafted.x_adv[:8], x[:8])


def test_state_and_copies_in_the_middle_of_a_step(mnist: tuple[Images, Labels]) -> None:
    net, _ = pair()
    x, y = mnist[0][:8].double(), mnist[1][:8]
    method = made(net, eps=E)
    trained(method, net, x, y)
    step = method(net, x, y)
    twin = copy.deepcopy(method)  # between loss and step: it has nothing to step along
    step.loss.backward()
    before = method.delta.clone()
    twin.after_step(net)
    assert torch.equal(twin.delta, before)
    method.after_step(net)
    method.after_step(net)  # a step is taken once
    moved = method.delta.clone()
    assert not torch.equal(moved, before)
    restored = made(net, eps=E)
    restored.load_state_dict(method.state_dict())
    assert torch.equal(restored.delta, moved) and set(method.state_dict()) == {"delta"}


def test_the_last_of_several_losses_counts(mnist: tuple[Images, Labels]) -> None:
    """As under AWP: the first loss is differentiated towards weights alone, the second is what is lowered."""
    net, _ = pair()
    x, y = mnist[0][:8].double(), mnist[1][:8]
    method, alone = made(net, eps=E), made(net, eps=E)
    other = copy.deepcopy(net)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    crafted = method.craft(net, x, y)
    torch.autograd.grad(method.loss(net, x, y, crafted).loss, list(net.parameters()))
    method.loss(other, x, y, crafted).loss.backward()
    method.after_step(net)
    trained(alone, other, x, y)
    assert torch.equal(method.delta, alone.delta)
    trained(alone := made(net, eps=E), net, x, y)
    assert not torch.equal(method.delta, alone.delta)  # the two models disagree, so the test says something


# ---- Cost and settings.


def test_a_step_costs_three_passes_and_makes_one_perturbation(mnist: tuple[Images, Labels]) -> None:
    net, _ = pair()
    x, y = mnist[0][:8].double(), mnist[1][:8]
    method = made(net, eps=E)
    with PassCounter(net) as passes:
        for step in range(method.replays):
            method(net, x, y, known(8, step)).loss.backward()
            method.after_step(net)
    assert passes.crafted == 8 * 8 and passes.total == 3 * 8 * 8  # gamma is m for each distinct batch
    assert passes.input_gradient == 0


@pytest.mark.parametrize("settings", [{"replays": 0}, {"step_size": -0.1}, {"step_size": math.nan}], ids=str)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(settings))}.*at least"):
        Free(eps=E, **settings)
    assert Free(eps=E).replays == 8 and Free(eps=E, replays=4).replays == 4

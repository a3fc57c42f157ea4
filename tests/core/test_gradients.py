"""Gradients towards images: right, at their stated cost, and without a trace on the model."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from problems import Flops, SmallNet, Whole, flops, linear_problem, trained_net, unchanged
from torch import Tensor, nn

from toughen.core.cost import PassCounter
from toughen.core.gradients import input_gradient, logits, mode
from toughen.core.objectives import NuclearAscent, Objective, cross_entropy, margin_loss
from toughen.core.types import Images, Labels

# ---- the gradient


def test_gradient_of_a_linear_model() -> None:
    """The margin loss falls by 2 w."""
    model, x, y, _ = linear_problem("linf")
    found = input_gradient(model, x, y, margin_loss)
    torch.testing.assert_close(found.gradient, -2 * model.weight.detach()[None], rtol=1e-12, atol=0)
    torch.testing.assert_close(found.logits, model(x).detach())
    torch.testing.assert_close(found.value, (model(x)[:, 1] - model(x)[:, 0]).detach())
    assert not any(each.requires_grad for each in found)


def test_each_image_has_its_own_gradient(mnist: tuple[Images, Labels]) -> None:
    """A sum over the images, not a mean, so that none depends on how many there are."""
    x, y = mnist
    model = trained_net(torch.float64)
    with mode(model, "eval"):
        whole = input_gradient(model, x.double(), y, cross_entropy)
        alone = input_gradient(model, x[5:6].double(), y[5:6], cross_entropy)
    torch.testing.assert_close(whole.gradient[5:6], alone.gradient, rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(whole.value[5:6], alone.value)


def test_gradient_of_a_batchwise_objective() -> None:
    model, x, y, _ = linear_problem("linf")
    found = input_gradient(model, x, y, NuclearAscent(torch.zeros_like(model(x)).detach(), 1.0))
    assert found.value.ndim == 0 and found.gradient.shape == x.shape


class Square(Objective):
    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        return logits[:, 0].square()


def test_create_graph_keeps_the_way_to_the_weights() -> None:
    """The slope of (w x)^2 is 2 w^2 x; for w = 3, x = 2 its square is 1296, which rises by 1728 with w."""
    weight = torch.tensor(3.0, requires_grad=True)
    model = Whole(lambda x: (weight * x).flatten(1))
    x, y = torch.full((1, 1, 1, 1), 2.0), torch.tensor([0])
    squared = input_gradient(model, x, y, Square(), create_graph=True).gradient.square().sum()
    assert squared.item() == pytest.approx(1296)
    assert torch.autograd.grad(squared, weight)[0].item() == pytest.approx(1728)
    assert not input_gradient(model, x, y, Square()).gradient.requires_grad


def test_works_within_no_grad_and_leaves_x_alone() -> None:
    model, x, y, _ = linear_problem("linf")
    before = x.clone()
    with torch.no_grad():
        found = input_gradient(model, x, y, cross_entropy)
    assert found.gradient.abs().sum() > 0
    assert torch.equal(x, before) and not x.requires_grad and x.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_is_kept(dtype: torch.dtype, mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    found = input_gradient(trained_net(dtype), x.to(dtype), y, cross_entropy)
    assert {each.dtype for each in found} == {dtype}


# ---- logits


@pytest.mark.parametrize("wrap", [lambda out: SimpleNamespace(logits=out), lambda out: out], ids=["object", "tensor"])
def test_logits_are_unwrapped(wrap: Any) -> None:
    model, x, y, _ = linear_problem("linf")
    whole = Whole(lambda x: wrap(model(x)))
    assert torch.equal(logits(whole, x), model(x))
    assert torch.equal(input_gradient(whole, x, y, cross_entropy).logits, model(x).detach())


WRONG: list[tuple[Any, str]] = [
    (lambda x: x, r"\[2, classes\], this one returned \(2, 1, 4, 4\)"),
    (lambda x: x.sum((1, 2, 3)), r"this one returned \(2,\)"),
    (lambda x: x[:1].flatten(1), r"this one returned \(1, 16\)"),
    (lambda x: (x.flatten(1), x), "this one returned tuple"),
    (lambda x: {"logits": x.flatten(1)}, "this one returned dict"),
    (lambda x: None, "this one returned NoneType"),
]


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_wrong_outputs_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match="a model must return logits of shape .*" + message):
        logits(Whole(call), torch.rand(2, 1, 4, 4))


@torch.no_grad()
def blind(x: Tensor) -> Tensor:
    return x.flatten(1)


@pytest.mark.parametrize("call", [blind, lambda x: x.detach().flatten(1) * nn.Parameter(torch.ones(16))])
def test_models_without_a_gradient_are_refused(call: Any) -> None:
    """They would look robust to every attack that follows gradients."""
    with pytest.raises(ValueError, match="no gradient for the images"):
        input_gradient(Whole(call), torch.rand(2, 1, 4, 4), torch.tensor([0, 1]), cross_entropy)


def test_inference_mode_is_named() -> None:
    """A model without ``no_grad`` is not told to remove it."""
    model, x, y, _ = linear_problem("linf")
    with torch.inference_mode(), pytest.raises(ValueError, match=r"inference_mode\(\) allows none: call it outside"):
        input_gradient(model, x, y, cross_entropy)


# ---- modes


def test_mode_restores_every_submodules_own() -> None:
    model = trained_net()
    assert not model.frozen.training and model.trained.training
    with unchanged(model):
        with mode(model, "eval"):
            assert not any(module.training for module in model.modules())
    with mode(model, "train"):
        assert model.trained.training and not model.frozen.training
    with unchanged(model), pytest.raises(KeyError), mode(model, "eval"):
        raise KeyError


# ---- cost


def test_an_input_gradient_computes_no_weight_gradient(mnist: tuple[Images, Labels]) -> None:
    """A backward pass to the input repeats each product of the forward pass once, one to the weights twice."""
    x, y = mnist
    model = trained_net()
    forward = flops(model, x)
    with Flops() as counted, PassCounter(model) as passes:
        input_gradient(model, x, y, cross_entropy)
    assert counted.total == 2 * forward
    assert (passes.forward, passes.input_gradient, passes.weight_gradient) == (64, 64, 0)
    assert passes.total == 2 * 64


def test_a_training_step_costs_three_passes(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    model = trained_net()
    forward, first_layer = flops(model, x), flops(model[0], x)
    with Flops() as counted, PassCounter(model) as passes:
        F.cross_entropy(logits(model, x), y).backward()
    assert counted.total == 3 * forward - first_layer  # nothing goes on to the images
    assert (passes.forward, passes.input_gradient, passes.weight_gradient) == (64, 0, 64)
    assert passes.total == 3 * 64


def test_passes_count_what_lies_within_their_block(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    model = Whole(lambda x: SimpleNamespace(logits=net(x)))
    net = trained_net()
    with PassCounter(model) as passes:
        with torch.no_grad():
            model(x[:10])
        input_gradient(model, x[:3], y[:3], cross_entropy)
        F.cross_entropy(logits(model, x), y).backward()
    model(x)
    assert (passes.forward, passes.input_gradient, passes.weight_gradient) == (77, 3, 64)


def test_a_failed_input_gradient_does_not_colour_the_next_pass() -> None:
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *gradient: Tensor) -> Any:
            raise KeyError

    weight, broken = nn.Parameter(torch.ones(16)), cast(Any, Broken.apply)
    x, y = torch.rand(2, 1, 4, 4), torch.tensor([0, 1])
    with pytest.raises(KeyError):
        input_gradient(Whole(lambda x: broken(x).flatten(1)), x, y, cross_entropy)
    with PassCounter(model := Whole(lambda x: x.flatten(1) * weight)) as passes:
        F.cross_entropy(model(x), y).backward()
    assert (passes.input_gradient, passes.weight_gradient) == (0, 2)


# ---- autocast


def weight_gradients(model: SmallNet, x: Tensor, y: Tensor, *, before: str) -> list[Tensor]:
    """Of one loss under autocast, after a pass that must not leave its own casts of the weights behind."""
    model = copy.deepcopy(model)
    with torch.autocast("cpu", dtype=torch.bfloat16), mode(model, "eval"):
        if before == "no_grad":
            with torch.no_grad():
                logits(model, x)
        elif before == "attack":
            input_gradient(model, x, y, cross_entropy)
        loss = F.cross_entropy(logits(model, x), y)
    loss.backward()
    assert all(each.grad is not None for each in model.parameters())
    return [each.grad for each in model.parameters() if each.grad is not None]


@pytest.mark.parametrize("before", ["no_grad", "attack"])
def test_autocast_keeps_no_weights_that_were_cast_without_a_graph(before: str, mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    model = trained_net()
    expected = weight_gradients(model, x, y, before="nothing")
    for found, other in zip(weight_gradients(model, x, y, before=before), expected, strict=True):
        assert torch.equal(found, other) and other.abs().sum() > 0


def test_passes_without_a_graph_keep_out_of_autocasts_cache() -> None:
    """The torch of today heals the trap above by itself (pytorch/pytorch#165068), older ones do not."""
    seen = []
    model = Whole(lambda x: seen.append(torch.is_autocast_cache_enabled()) or x.flatten(1))  # type: ignore[func-returns-value]
    x = torch.rand(1, 1, 2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits(model, x)
        with torch.no_grad():
            logits(model, x)
        assert torch.is_autocast_cache_enabled()
    assert seen == [True, False]


def test_autocast_gives_float32_logits_and_gradients(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    model = trained_net()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = input_gradient(model, x, y, cross_entropy)
    assert {each.dtype for each in found} == {torch.float32}
    exact = input_gradient(model, x, y, cross_entropy)
    assert not torch.equal(found.logits, exact.logits)  # it was bfloat16 inside

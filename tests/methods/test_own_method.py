"""Methods that users wrote: what ``craft`` returns, what it leaves behind in the model, and what it keeps per image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from commands import digits
from contract import batch
from torch import Tensor, nn

from toughen.core.types import Batch, Crafted, Images, Labels, Step
from toughen.methods import AWP
from toughen.methods.base import Method
from toughen.training import Recipe, train


class Own(Method):
    """FGSM-AT by hand, with a fault if one is named."""

    eps = 0.1
    keeps_images = False

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.fault = fault

    def prepare(self, model: nn.Module, shape: tuple[int, int, int], classes: int, images: int | None = None) -> None:
        super().prepare(model, shape, classes, images)
        if self.fault == "rows":
            self.per_image_buffers = ("delta",)
            self.register_buffer("delta", torch.zeros(images or 1, *shape))

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Any:
        moved = x.clone().requires_grad_()
        if self.fault == "mode":
            model.eval()
        loss = F.cross_entropy(model(moved), y)
        if self.fault == "backward":
            loss.backward()
            assert moved.grad is not None
            slope = moved.grad
        else:
            (slope,) = torch.autograd.grad(loss, moved)
        x_adv = (x + 0.1 * slope.sign()).clamp(0, 1)
        faulty: dict[str, Any] = {
            "tensor": x_adv,
            "shape": Crafted(x_adv=x_adv[:1]),
            "graph": Crafted(x_adv=moved * 1.0),
            "outside": Crafted(x_adv=x_adv + 5),
            "nan": Crafted(x_adv=x_adv * torch.nan),
        }
        return faulty.get(self.fault, Crafted(x_adv=x_adv))

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        return self.adversarial_cross_entropy(model, y, crafted)


def recipe(**settings: Any) -> Recipe:
    base: dict[str, Any] = {"data": str(digits()), "model": "fbf-mnist-cnn", "validation": 10, "batch_size": 16}
    return Recipe(**(base | {"epochs": 1, "validation_steps": 2, "device": "cpu"} | settings))


FAULTS = {
    "mode": "Own.craft left the model, or a part of it, in another mode: restore",
    "backward": "Own.craft left gradients in the model's weights, .* torch.autograd.grad",
    "tensor": "Own.craft returned Tensor: it must return a toughen.core.types.Crafted",
    "shape": "Own.craft must return images of the shape and type that it was given",
    "graph": "Own.craft must return images without a graph",
    "outside": r"Own.craft returned pixels from 5 to 6, outside \[0, 1\]",
    "nan": r"Own.craft returned pixels from nan to nan, outside \[0, 1\]",
}


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 5, 5), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(100, 10))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_craft_is_named(fault: str, mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    with pytest.raises(ValueError, match=FAULTS[fault]):
        Own(fault)(small().train(), x, y, batch(len(x)))


def test_a_fault_inside_a_wrapper_is_named(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    with pytest.raises(ValueError, match=FAULTS["backward"]):
        AWP(inner=Own("backward"), gamma=0.01)(small().train(), x, y, batch(len(x)))


def test_gradients_that_were_there_before_may_stay(mnist: tuple[Images, Labels]) -> None:
    """As where gradients of several batches are added up."""
    (x, y), model = mnist, small().train()
    method = Own()
    sums: list[Tensor] = []
    for _ in range(2):
        method(model, x, y, batch(len(x))).loss.backward()
        (first, *_) = model.parameters()
        assert first.grad is not None
        sums.append(first.grad.clone())
    assert torch.allclose(sums[1], 2 * sums[0], rtol=1e-4)


def test_a_fault_ends_a_run(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match=FAULTS["mode"]):
        train(recipe(method=Own("mode"), eps=0.1), tmp_path / "run")


def test_values_of_each_pixel_must_be_aligned(tmp_path: Any) -> None:
    class Aligned(Own):
        keeps_images = True

    message = r"Own keeps values for each pixel \(delta\), and crop may move pixels: align .* or leave crop out"
    with pytest.raises(ValueError, match=message):
        train(recipe(method=Own("rows"), eps=0.1, crop=1), tmp_path / "run")
    with pytest.raises(ValueError, match="and flip may move pixels"):
        train(recipe(method=Own("rows"), eps=0.1, flip=True), tmp_path / "run")
    train(recipe(method=Own("rows"), eps=0.1), tmp_path / "plain")
    train(recipe(method=Aligned("rows"), eps=0.1, crop=1), tmp_path / "aligned")


def test_what_is_not_defined_is_named(mnist: tuple[Images, Labels]) -> None:
    class Half(Method):
        eps = 0.1

    with pytest.raises(NotImplementedError, match="Half has no craft: define it"):
        Half()(small().train(), *mnist, batch(len(mnist[0])))

"""What surrounds a run: progress and hooks through methods that wrap others, first use, and the rescue."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from contract import EPS, batch, build, every_method, every_threat, net, prepared, train
from torch import nn

from toughen.core.cost import PassCounter
from toughen.core.threat import Threat
from toughen.core.types import Batch, Crafted, Images, Labels, Norm, Plan, Step
from toughen.methods.delayed import Delayed
from toughen.methods.nuat import NuAT
from toughen.methods.nuat2 import NuAT2
from toughen.methods.pgd_at import PGDAT
from toughen.methods.standard import Standard


class Diary(Standard):
    """Writes down what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def prepare(self, model: nn.Module, shape: tuple[int, int, int], classes: int, images: int | None = None) -> None:
        super().prepare(model, shape, classes, images)
        self.told.append(("prepare", shape, classes, images))

    def start(self, plan: Plan) -> None:
        self.told.append(("start", plan))

    def after_step(self, model: nn.Module) -> None:
        self.told.append(("after_step", model))

    def after_epoch(self, metrics: dict[str, Any]) -> None:
        self.told.append(("after_epoch", metrics))


@every_method
def test_progress_is_all_of_it_unless_a_loop_says_otherwise(name: str) -> None:
    method = build(name)
    assert method.progress == 1.0
    assert method.replays >= 1 and method.stop_reason is None


def test_progress_and_hooks_reach_what_a_wrapper_wraps() -> None:
    one, two = Diary(), Diary()
    wrapper = Delayed(before=Delayed(before=Standard(), after=one), after=two)
    wrapper.progress = 0.25
    assert all(each.progress == 0.25 for each in (wrapper, wrapper.before, one, two))
    wrapper.progress = 1
    assert one.progress == two.progress == 1.0

    model, plan = net(), Plan(epochs=3, steps=12, images=64)
    metrics: dict[str, Any] = {"epoch": 0, "terms": {"clean": 1.0}}
    wrapper.prepare(model, (1, 28, 28), 10, 64)
    wrapper.start(plan)
    wrapper.after_step(model)
    wrapper.after_epoch(metrics)
    expected = [("prepare", (1, 28, 28), 10, 64), ("start", plan), ("after_step", model), ("after_epoch", metrics)]
    assert one.told == two.told == expected


@every_method
def test_every_method_can_be_wrapped(name: str, mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    before = Standard()
    torch.manual_seed(1)  # what a method learns starts at random
    alone = prepared(name, model)
    before.replays = alone.replays
    wrapper = Delayed(before=before, after=build(name))
    torch.manual_seed(1)
    wrapper.prepare(model, (1, 28, 28), 10, 64)
    assert wrapper.threat == alone.threat
    for switched, expected in ((False, Standard()), (True, alone)):
        wrapper.switched, wrapper.progress = switched, 0.5
        expected.progress = 0.5
        twins = copy.deepcopy(model), copy.deepcopy(model)
        found = wrapper(twins[0], x, y, batch(len(x)))
        assert torch.equal(found.loss, expected(twins[1], x, y, batch(len(x))).loss)
    assert set(wrapper.state_dict()) == {"_extra_state", *(f"after.{key}" for key in alone.state_dict())}


def test_a_wrapped_method_keeps_its_state(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    wrapper = Delayed(before=Standard(), after=NuAT(eps=EPS))
    train(wrapper, model, x, y, 3)
    restored = Delayed(before=Standard(), after=NuAT(eps=EPS))
    restored.load_state_dict(json.loads(json.dumps(wrapper.state_dict())))
    assert isinstance(restored.after, NuAT) and restored.after.iteration == 3
    wrapper.after_epoch({"epoch": 0, "terms": {"clean": 1.0}})
    assert isinstance(wrapper.after, NuAT) and wrapper.after.iteration == 0


def test_a_wrapper_of_an_unthreatened_and_a_threatened_method_has_the_threat_of_the_latter() -> None:
    first, second = NuAT(eps=0.1), NuAT(eps=2.0, norm="l2")
    assert Delayed(before=first, after=second).threat == Threat("l2", 2.0)
    assert Delayed(before=first, after=Standard()).threat == Threat("linf", 0.1)
    assert Delayed(before=Standard(), after=Standard()).threat is None


def test_repr_of_a_wrapper_shows_what_it_wraps() -> None:
    text = repr(Delayed(before=Standard(), after=NuAT(eps=EPS)))
    assert "sensitivity=5" in text and "(before): Standard()" in text and "(after): NuAT(eps=0.1," in text


@every_threat
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 1.5)])
def test_a_collapsed_method_is_rescued_by_two_steps_of_pgd_and_pgd_by_ten(
    name: str, norm: Norm, eps: float, wrapped: bool, mnist: tuple[Images, Labels]
) -> None:
    (x, y), model = mnist, net()
    method = build(name, norm=norm, eps=eps)
    before = Standard()
    before.replays = method.replays
    rescue = (Delayed(before=before, after=method) if wrapped else method).rescue()
    assert isinstance(rescue, NuAT2 if name == "NuAT" else PGDAT) and rescue.threat == Threat(norm, eps)
    rescue.prepare(model, (1, 28, 28), 10)
    with PassCounter(model) as passes:
        rescue(model, x, y, batch(len(x))).loss.backward()
    steps = 10 if any(isinstance(each, PGDAT) for each in method.modules()) else 2
    assert passes.input_gradient == steps * len(x)


class Named(PGDAT):
    """Rescued by a method of another package."""

    rescued_by = f"{__name__}.Named"

    def rescue_settings(self) -> dict[str, Any]:
        return {"steps": 3}


class Misnamed(PGDAT):
    rescued_by = "NuAT3"


def test_a_method_of_ones_own_is_rescued_by_the_one_that_it_names() -> None:
    rescue = Named(eps=0.1).rescue()
    assert type(rescue) is Named and rescue.threat == Threat("linf", 0.1) and rescue.attack.steps == 3
    with pytest.raises(ValueError, match="Misnamed is rescued by 'NuAT3', and there is no such method"):
        Misnamed(eps=0.1).rescue()


def test_clean_training_needs_no_rescue() -> None:
    assert Standard().rescue() is None
    assert Delayed(before=Standard(), after=Standard()).rescue() is None


def test_first_use_prepares_for_the_models_classes_and_once(mnist: tuple[Images, Labels]) -> None:
    model, method = net(), Diary()
    x, y = mnist[0][:8], torch.zeros(8, dtype=torch.int64)  # a batch that holds one class of ten
    modes = [module.training for module in model.modules()]
    for _ in range(2):
        method(model, x, y)
    assert method.told == [("prepare", (1, 28, 28), 10, None)]
    assert [module.training for module in model.modules()] == modes
    assert model.norm.num_batches_tracked is not None and int(model.norm.num_batches_tracked) == 2


class Kept(Standard):
    """Hands on images of two kinds and keeps what its loss is given."""

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        extra = {"other": x + 0.2, "slope": x * 7}
        return Crafted(x_adv=x + 0.1, clean=torch.zeros(len(x), 10), extra=extra, bases={"other": x - 0.2})

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        self.given = crafted
        return super().loss(model, x, y, crafted)


def test_half_strength_brings_all_adversarial_images_half_way_back(mnist: tuple[Images, Labels]) -> None:
    (x, y), model, method = mnist, net(), Kept()
    x = 0.25 + x / 2  # so that what is added stays in [0, 1]
    method.perturbation_scale = 0.5
    method(model, x, y)
    torch.testing.assert_close(method.given.x_adv, x + 0.05)
    torch.testing.assert_close(method.given.extra["other"], x)  # half-way between x - 0.2 and x + 0.2
    assert torch.equal(method.given.extra["slope"], x * 7) and method.given.clean is None
    method.perturbation_scale = 1.0
    method(model, x, y)
    assert torch.equal(method.given.extra["other"], x + 0.2) and method.given.clean is not None


@every_method
def test_at_no_strength_a_method_trains_on_clean_images(name: str, mnist: tuple[Images, Labels]) -> None:
    """All that lies in ``x_adv`` and what else a method calls adversarial images are then the clean ones."""
    (x, y), model = mnist, net()
    method = prepared(name, model)
    crafted = method.craft(model, x, y, batch(len(x))).scaled(x, 0.0)
    assert torch.equal(crafted.x_adv, x)
    for name_, base in crafted.bases.items():
        assert torch.equal(crafted.extra[name_], base) and base.shape[1:] == x.shape[1:]
    known = {"inside", "gradient", "begin", "near", "y_reg", "non_robust"}  # no adversarial images of the loss
    assert set(crafted.extra) - set(crafted.bases) <= known

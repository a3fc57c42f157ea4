"""The contract of every method: a class in toughen/methods is tested here as soon as its file exists."""

from __future__ import annotations

import copy
import inspect
import json
import math
import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toughen import methods
from toughen.gradients import logits
from toughen.methods import REGISTRY, Method
from toughen.methods.nuat import NuAT
from toughen.methods.pgd_at import PGDAT
from toughen.methods.standard import Standard
from toughen.noise import StepNoise
from toughen.passes import Passes
from toughen.threat import Threat
from toughen.types import Batch, Crafted, Images, Labels, Norm, Plan, Step

EPS = 0.1
THREATENED = [name for name, method in REGISTRY.items() if "eps" in inspect.signature(method).parameters]
PASSES = {  # forward equivalents for each image; a new method's number is written here
    "Standard": 3,
    "FGSMAT": 5,
    "RFGSMAT": 5,
    "FBF": 5,
    "NuAT": 8,
    "PGDAT": 23,
    "TRADES": 27,
}
EQUALS_CROSS_ENTROPY_AT_ZERO = ["FGSMAT", "RFGSMAT", "FBF", "NuAT", "PGDAT", "TRADES"]
WEIGHTS = ("lam", "beta", "gamma")  # what the settings are called that weigh a method's own term

every_method = pytest.mark.parametrize("name", REGISTRY)
every_threat = pytest.mark.parametrize("name", THREATENED)


def build(name: str, **settings: Any) -> Method:
    """A method by name: at ``EPS`` unless told, and around plain PGD training where it wraps a method."""
    parameters = inspect.signature(REGISTRY[name]).parameters
    if "eps" in parameters:
        settings.setdefault("eps", EPS)
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and "Method" in str(parameter.annotation):
            settings.setdefault(key, PGDAT(eps=settings.get("eps", EPS), steps=2))
    return REGISTRY[name](**settings)


class Net(nn.Module):
    """Two batch norms, the second for a user to freeze; three channels or one."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 6, 5, stride=3, bias=False), nn.BatchNorm2d(6)
        self.second, self.frozen = nn.Conv2d(6, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8)
        self.linear = nn.Linear(8 * 3 * 3, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x)))
        out: Tensor = self.linear(F.relu(self.frozen(self.second(x))).flatten(1))
        return out


def net() -> Net:
    """In training mode but for one batch norm, whose statistics are away from (0, 1)."""
    model = Net().train()
    assert model.frozen.running_mean is not None
    model.frozen.running_mean.fill_(0.2)
    model.frozen.eval()
    return model


def batch(n: int, step: int = 0) -> Batch:
    """What a loop knows of a batch."""
    still = torch.zeros(n, dtype=torch.bool)
    index = torch.arange(n)
    return Batch(index=index, shift=torch.zeros(n, 2, dtype=torch.int64), flip=still, noise=StepNoise(5, step))


def prepared(name: str, model: nn.Module, **settings: Any) -> Method:
    method = build(name, **settings)
    method.prepare(model, (1, 28, 28), 10, 64)
    return method


def train(method: Method, model: nn.Module, x: Images, y: Labels, steps: int) -> None:
    """A few plain steps, keyed noise."""
    optimizer = torch.optim.SGD([*model.parameters(), *method.parameters()], lr=0.1, momentum=0.9)
    for step in range(steps):
        optimizer.zero_grad()
        method(model, x, y, batch(len(x), step)).loss.backward()
        optimizer.step()
        method.after_step(model)


# ---- What a step is.


@every_method
def test_a_step_has_the_promised_form(name: str, mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    step = prepared(name, model)(model, x, y, batch(len(x)))
    assert isinstance(step, Step)
    assert step.loss.shape == () and step.loss.isfinite() and step.loss.requires_grad
    assert step.logits.shape == (64, 10) and step.logits.isfinite().all()
    assert step.terms
    for term, value in step.terms.items():
        assert isinstance(term, str) and re.fullmatch("[a-z_]+", term)
        assert value.shape == () and value.isfinite() and value.grad_fn is None and not value.requires_grad


@every_method
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_parameter_gets_a_gradient(name: str, precision: str, mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method = prepared(name, model)
    method.after_step(model)  # NuAT's second step attacks both of its terms
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        step = method(model, x, y, batch(len(x)))
    assert step.loss.dtype == step.logits.dtype == torch.float32
    step.loss.backward()
    for weight, parameter in [*model.named_parameters(), *method.named_parameters()]:
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), weight


@every_method
def test_images_and_modes_stay_as_they_are(name: str, mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method, before = prepared(name, model), (x.clone(), y.clone())
    modes = {part: module.training for part, module in model.named_modules()}
    frozen = copy.deepcopy(model.frozen.state_dict())
    method(model, x, y, batch(len(x))).loss.backward()
    assert torch.equal(x, before[0]) and torch.equal(y, before[1]) and not x.requires_grad
    assert {part: module.training for part, module in model.named_modules()} == modes and not modes["frozen"]
    assert all(torch.equal(value, frozen[key]) for key, value in model.frozen.state_dict().items())
    assert model.norm.num_batches_tracked is not None and model.norm.num_batches_tracked > 0


@every_method
def test_the_inner_maximum_leaves_nothing_behind(name: str, mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method = prepared(name, model)
    crafted = method.craft(model, x, y, batch(len(x)))
    assert isinstance(crafted, Crafted) and not crafted.x_adv.requires_grad
    assert all(parameter.grad is None for parameter in [*model.parameters(), *method.parameters()])


@every_threat
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 1.5)])
def test_the_images_lie_within_the_threat_and_raise_the_loss(
    name: str, norm: Norm, eps: float, mnist: tuple[Images, Labels]
) -> None:
    (x, y), model = mnist, net()
    train(Standard(), model, x, y, 20)
    method = prepared(name, model, norm=norm, eps=eps)
    x_adv = method.craft(model, x, y, batch(len(x))).x_adv
    delta = (x_adv - x).flatten(1)
    distance = delta.abs().amax(1) if norm == "linf" else delta.square().sum(1).sqrt()
    assert (distance <= eps * (1 + 1e-5)).all() and distance.min() > eps / 2
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    model.eval()
    assert F.cross_entropy(model(x_adv), y) > F.cross_entropy(model(x), y) + 0.05


@every_method
def test_the_same_noise_gives_the_same_step(name: str, mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)  # must not matter: the noise is the batch's
        method, twin = prepared(name, model), copy.deepcopy(model)
        losses.append(method(twin, x, y, batch(len(x))).loss)
    assert torch.equal(losses[0], losses[1])


@every_method
def test_without_a_batch_the_noise_is_torchs(name: str, mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method = prepared(name, model)
    if method.inner():
        pytest.skip("a wrapper may pass on to a method that needs the batch")
    losses = []
    for _ in range(2):
        torch.manual_seed(3)
        losses.append(method(copy.deepcopy(model), x, y).loss)
    assert torch.equal(losses[0], losses[1])


@every_method
def test_outputs_with_logits_are_unwrapped(name: str, mnist: tuple[Images, Labels]) -> None:
    class Wrapped(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> SimpleNamespace:
            return SimpleNamespace(logits=self.model(x))

    (x, y), model = mnist, net()
    method = prepared(name, model)
    plain = copy.deepcopy(method)(copy.deepcopy(model), x, y, batch(len(x)))
    assert torch.equal(method(Wrapped(model), x, y, batch(len(x))).loss, plain.loss)


# ---- State.


@every_method
def test_state_survives_saving_and_loading_within_an_epoch(name: str, mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method = prepared(name, model)
    train(method, model, x, y, 3)
    saved = method.state_dict()
    extra = {key: value for key, value in saved.items() if not isinstance(value, Tensor)}
    tensors = {key: value.clone() for key, value in saved.items() if isinstance(value, Tensor)}
    restored = prepared(name, model)
    restored.load_state_dict({**tensors, **json.loads(json.dumps(extra))})
    for step in (3, 4):
        here, there = (
            each(copy.deepcopy(model), x, y, batch(len(x), step)) for each in (method, restored)
        )
        assert torch.equal(here.loss, there.loss) and torch.equal(here.logits, there.logits)
        for each in (method, restored):
            each.after_step(model)


def test_nuat_remembers_whether_its_next_step_is_odd(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method = prepared("NuAT", model)
    train(method, model, x, y, 3)
    restored, forgetful = prepared("NuAT", model), prepared("NuAT", model)
    restored.load_state_dict(method.state_dict())
    x_adv, kept, lost = (
        each.craft(copy.deepcopy(model), x, y, batch(len(x))).x_adv for each in (method, restored, forgetful)
    )
    assert torch.equal(x_adv, kept) and not torch.equal(x_adv, lost)


@every_method
def test_a_copy_is_a_method_of_its_own(name: str, mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method = prepared(name, model)
    twin = copy.deepcopy(method).to("cpu")
    losses = [each(copy.deepcopy(model), x, y, batch(len(x))).loss for each in (method, twin)]
    assert torch.equal(losses[0], losses[1])
    twin.progress = 0.25
    assert method.progress == 1.0 and twin.progress == 0.25


@every_method
def test_its_text_shows_its_settings(name: str) -> None:
    method = build(name)
    assert repr(method).startswith(name + "(")
    if name in THREATENED:
        assert f"eps={EPS}" in repr(method) and "norm='linf'" in repr(method)
    assert "lam=4.0, ramp=0.9" in repr(NuAT(eps=EPS)) and "steps=7" in repr(PGDAT(eps=EPS, steps=7))


# ---- Settings.


@pytest.mark.parametrize("name", EQUALS_CROSS_ENTROPY_AT_ZERO)
def test_at_eps_zero_it_is_clean_training(name: str, mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net().double()
    method = prepared(name, model, eps=0.0)
    method.after_step(model)
    twin, x = copy.deepcopy(model), x.double()
    found = method(model, x, y, batch(len(x))).loss
    clean = F.cross_entropy(twin(x), y)
    assert (found - clean).abs() < 1e-12
    slopes = [torch.autograd.grad(loss, list(m.parameters())) for loss, m in ((found, model), (clean, twin))]
    assert all((a - b).abs().max() < 1e-12 for a, b in zip(*slopes, strict=True))


@every_threat
def test_a_missing_or_absurd_eps_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} needs eps.*eps=8/255"):
        build(name, eps=None)
    with pytest.raises(ValueError, match="did you mean 8/255"):
        build(name, eps=8)
    for eps in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="eps .* not below 0"):
            build(name, eps=eps)


@every_threat
def test_an_l2_radius_beyond_the_box_is_refused(name: str, mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method = prepared(name, model, norm="l2", eps=28.5)
    with pytest.raises(ValueError, match="exceeds 28"):
        method(model, x, y, batch(len(x)))


@every_method
def test_a_weight_changes_the_loss(name: str, mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    train(Standard(), model, x, y, 20)  # until the terms are of some size
    for weight in WEIGHTS:
        if weight in inspect.signature(REGISTRY[name]).parameters:
            losses = [
                float(prepared(name, model, **{weight: value})(copy.deepcopy(model), x, y, batch(len(x))).loss.detach())
                for value in (0.0, 1.0, 3.0)
            ]
            assert losses[0] + 1e-3 < losses[1] and losses[1] + 1e-3 < losses[2]


@pytest.mark.parametrize(("name", "weight"), [("NuAT", "lam"), ("TRADES", "beta")])
def test_the_weights_are_the_ones_known(name: str, weight: str) -> None:
    """So that the test above does not pass because it looked at nothing."""
    assert weight in WEIGHTS and weight in inspect.signature(REGISTRY[name]).parameters


@pytest.mark.parametrize("name", PASSES)
def test_a_step_costs_what_it_should(name: str, mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method = prepared(name, model)
    for _ in range(2):  # NuAT's odd steps cost what its even ones do
        with Passes(model) as passes:
            method(model, x, y, batch(len(x))).loss.backward()
        method.after_step(model)
        assert passes.total == PASSES[name] * len(x)
        assert passes.weight_gradient <= 2 * len(x)


def test_the_released_order_of_nuat_costs_a_forward_more(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method = prepared("NuAT", model, share_clean=False)
    with Passes(model) as passes:
        method(model, x, y, batch(len(x))).loss.backward()
    assert passes.total == 9 * len(x)


# ---- Around a run: hooks, wrappers, rescue.


class Delayed(Method):
    """One method, then another: what a wrapper looks like."""

    def __init__(self, *, before: Method, after: Method, at: float = 0.5) -> None:
        super().__init__()
        self.before, self.after, self.at = before, after, at

    @property
    def now(self) -> Method:
        return self.before if self.progress < self.at else self.after

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        return self.now.craft(model, x, y, batch)

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        return self.now.loss(model, x, y, crafted)


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

    model, plan, metrics = net(), Plan(epochs=3, steps=12, images=64), {"epoch": 0}
    wrapper.prepare(model, (1, 28, 28), 10, 64)
    wrapper.start(plan)
    wrapper.after_step(model)
    wrapper.after_epoch(metrics)
    expected = [("prepare", (1, 28, 28), 10, 64), ("start", plan), ("after_step", model), ("after_epoch", metrics)]
    assert one.told == two.told == expected


@every_method
def test_every_method_can_be_wrapped(name: str, mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    wrapper = Delayed(before=Standard(), after=build(name))
    wrapper.prepare(model, (1, 28, 28), 10, 64)
    alone = prepared(name, model)
    assert wrapper.threat == alone.threat
    for progress, expected in ((0.25, Standard()), (0.75, alone)):
        wrapper.progress = expected.progress = progress
        twins = copy.deepcopy(model), copy.deepcopy(model)
        found = wrapper(twins[0], x, y, batch(len(x)))
        assert torch.equal(found.loss, expected(twins[1], x, y, batch(len(x))).loss)
    assert set(wrapper.state_dict()) == {f"after.{key}" for key in alone.state_dict()}


def test_a_wrapped_method_keeps_its_state(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    wrapper = Delayed(before=Standard(), after=NuAT(eps=EPS))
    train(wrapper, model, x, y, 3)
    restored = Delayed(before=Standard(), after=NuAT(eps=EPS))
    restored.load_state_dict(json.loads(json.dumps(wrapper.state_dict())))
    assert isinstance(restored.after, NuAT) and restored.after.iteration == 3
    wrapper.after_epoch({})
    assert isinstance(wrapper.after, NuAT) and wrapper.after.iteration == 0


def test_a_wrapper_of_an_unthreatened_and_a_threatened_method_has_the_threat_of_the_latter() -> None:
    first, second = NuAT(eps=0.1), NuAT(eps=2.0, norm="l2")
    assert Delayed(before=first, after=second).threat == Threat("l2", 2.0)
    assert Delayed(before=first, after=Standard()).threat == Threat("linf", 0.1)
    assert Delayed(before=Standard(), after=Standard()).threat is None


def test_repr_of_a_wrapper_shows_what_it_wraps() -> None:
    text = repr(Delayed(before=Standard(), after=NuAT(eps=EPS)))
    assert "at=0.5" in text and "(before): Standard()" in text and "(after): NuAT(eps=0.1," in text


@every_threat
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 1.5)])
def test_a_collapsed_method_is_rescued_by_two_steps_of_pgd(
    name: str, norm: Norm, eps: float, wrapped: bool, mnist: tuple[Images, Labels]
) -> None:
    (x, y), model = mnist, net()
    method = build(name, norm=norm, eps=eps)
    rescue = (Delayed(before=Standard(), after=method) if wrapped else method).rescue()
    assert isinstance(rescue, PGDAT) and rescue.threat == Threat(norm, eps)
    with Passes(model) as passes:
        rescue(model, x, y, batch(len(x))).loss.backward()
    rescue.prepare(model, (1, 28, 28), 10)
    assert passes.input_gradient == 2 * len(x)


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


# ---- The folder of methods.


def test_a_method_that_is_not_there_is_named_among_those_that_are() -> None:
    with pytest.raises(AttributeError, match="no method NuTA: .*NuAT"):
        _ = methods.NuTA
    assert methods.NuAT is NuAT is REGISTRY["NuAT"] and "Method" not in REGISTRY


@every_method
def test_its_docstring_and_its_settings_are_complete(name: str) -> None:
    text, parameters = inspect.getdoc(REGISTRY[name]) or "", inspect.signature(REGISTRY[name]).parameters
    for key, parameter in parameters.items():
        if "__init__" not in vars(REGISTRY[name]):
            continue  # it has no settings
        assert parameter.kind is parameter.KEYWORD_ONLY, key
        assert re.search(rf"^    {key}: ", text, re.MULTILINE), f"{key} is not described"
    assert text and text.split("\n")[0].endswith(".")
    assert "eps" not in parameters or parameters["eps"].default is None  # the run's eps fills it


def test_logits_come_from_the_mode_that_the_caller_chose(mnist: tuple[Images, Labels]) -> None:
    model, (x, y) = net().eval(), mnist
    step = Standard()(model, x, y)
    assert torch.equal(step.logits, logits(model, x))  # a method never switches the model to training by itself

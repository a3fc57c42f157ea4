"""The contract of every method: a class in toughen/methods is tested here as soon as its file exists."""

from __future__ import annotations

import copy
import inspect
import json
import math
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from commands import process
from contract import EPS, THREATENED, batch, build, every_method, every_threat, net, prepared, train
from paths import ROOT
from torch import Tensor, nn

from toughen import methods
from toughen.attacks.fgsm import FGSM
from toughen.core.cost import PassCounter
from toughen.core.distributed import ProcessGroup
from toughen.core.gradients import logits
from toughen.core.rng import StepNoise
from toughen.core.types import Batch, Crafted, Images, Labels, Norm, Step
from toughen.methods import REGISTRY, Method
from toughen.methods.converge_smooth import ConvergeSmooth
from toughen.methods.nuat import NuAT
from toughen.methods.pgd_at import PGDAT
from toughen.methods.standard import Standard

EQUALS_CROSS_ENTROPY_AT_ZERO = [
    "Free",
    "GradAlign",
    "NFGSM",
    "PGI",
    "FGSMAT",
    "RFGSMAT",
    "FBF",
    "GAT",
    "NuAT",
    "PGDAT",
    "TRADES",
]
NEEDS_INDEX = ["EFGSM", "PGI"]  # what they keep belongs to an image, so they refuse a batch that names none
WEIGHTS = ("lam", "beta", "gamma")  # what the settings are called that weigh a method's own term


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
def test_the_first_batch_of_an_own_loop_must_lie_in_0_to_1(name: str, mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method, own = prepared(name, model), Batch(index=torch.arange(len(x)))
    with pytest.raises(ValueError, match=r"values from 0 to 255, but must lie in \[0, 1\]"):
        method(model, x * 255, y, own)
    assert method(model, x, y, own).loss.isfinite()


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
    method(copy.deepcopy(model), x, y, batch(len(x))).loss.backward()
    method.after_step(model)  # Free's perturbation is zero until then
    x_adv = method.craft(model, x, y, batch(len(x))).x_adv
    delta = (x_adv - x).flatten(1)
    distance = delta.abs().amax(1) if norm == "linf" else delta.square().sum(1).sqrt()
    reach = 3 * eps if getattr(method, "leaves_ball", False) else eps  # N-FGSM: noise of 2 eps, a step of eps
    assert (distance <= reach * (1 + 1e-5)).all() and distance.min() > eps / 3
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    model.eval()
    assert F.cross_entropy(model(x_adv), y) > F.cross_entropy(model(x), y) + 0.05


@every_method
def test_the_same_noise_gives_the_same_step(name: str, mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method, losses = prepared(name, model), []
    for seed in (1, 2):
        torch.manual_seed(seed)  # must not matter: the noise is the batch's
        losses.append(copy.deepcopy(method)(copy.deepcopy(model), x, y, batch(len(x))).loss)
    assert torch.equal(losses[0], losses[1])


@every_method
def test_without_a_batch_the_noise_is_torchs(name: str, mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method = prepared(name, model)
    if method.inner():
        pytest.skip("a wrapper may pass on to a method that needs the batch")
    losses = []
    known = Batch(index=torch.arange(len(x))) if name in NEEDS_INDEX else None
    for _ in range(2):
        torch.manual_seed(3)
        losses.append(copy.deepcopy(method)(copy.deepcopy(model), x, y, known).loss)
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
        here, there = (each(copy.deepcopy(model), x, y, batch(len(x), step)) for each in (method, restored))
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


def test_labels_of_another_kind_are_refused_in_the_first_batch() -> None:
    """In a process of its own, because types are checked while tests run."""
    words = "import torch, toughen; net, x = torch.nn.Flatten(), torch.rand(2, 1, 1, 3)\n"
    ended = process("-c", words + "toughen.methods.FBF(eps=0.1)(net, x, torch.tensor([0, 1]).int())")
    said = "the labels are int32 of shape [2] for 2 images: give one class number per image, int64 [n]"
    assert ended.stderr.splitlines()[-1] == f"ValueError: {said}"


@every_method
def test_a_weight_changes_the_loss(name: str, mnist: tuple[Images, Labels]) -> None:
    if name == "PAP":
        pytest.skip("a cycle's first batch compares equal images: lam is tested in test_pap.py")
    if name == "ConvergeSmooth":
        pytest.skip("gamma is a bound, and nothing is bounded in the first epochs: test_converge_smooth.py")
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


@every_method
def test_a_step_costs_what_its_docstring_says(name: str, mnist: tuple[Images, Labels]) -> None:
    """`Passes: 8 ...` in forward equivalents for each image; `Passes: +3 ...` beyond those of the method it wraps."""
    stated = re.search(r"^Passes: (\+?)([\d.]+)", inspect.getdoc(REGISTRY[name]) or "", re.MULTILINE)
    assert stated, "the docstring must have a line `Passes: N`, at default settings"
    (x, y), model = mnist, net()
    method = prepared(name, model)
    expected = float(stated[2])
    if stated[1]:
        expected += cost(getattr(method, "now", method.inner()[-1]), net(), x, y) / len(x)
    weighed = name in ("Ensemble", "Reconstruct")  # whose docstrings count other nets as if they were the model
    alike = {id(net): 1.0 for net in method.companions()} if weighed else None
    if name == "LIET":  # its first step makes the classes' perturbations
        method(model, x, y, batch(len(x)))
        method.after_step(model)
    if isinstance(method, ConvergeSmooth):
        method.epoch = 2  # before that nothing is bounded
    for step in (0, 2):  # odd steps cost what even ones do; the noise of these draws either kind of Ensemble's sources
        assert cost(method, model, x, y, step, alike) == pytest.approx(expected * len(x), rel=0.02)
        method.after_step(model)


def cost(
    method: Method, model: nn.Module, x: Images, y: Labels, step: int = 0, costs: dict[int, float] | None = None
) -> float:
    """A real step's passes, each image's added up."""
    with PassCounter(model, method.companions(), x[:1], costs) as passes:
        method(model, x, y, batch(len(x), step)).loss.backward()
    return passes.total


def test_the_released_order_of_nuat_costs_a_forward_more(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method = prepared("NuAT", model, share_clean=False)
    with PassCounter(model) as passes:
        method(model, x, y, batch(len(x))).loss.backward()
    assert passes.total == 9 * len(x)


# ---- The folder of methods.


def test_a_method_that_is_not_there_is_named_among_those_that_are() -> None:
    with pytest.raises(AttributeError, match="no method NuTA: .*NuAT"):
        _ = methods.NuTA
    assert methods.NuAT is NuAT is REGISTRY["NuAT"] and "Method" not in REGISTRY


@every_method
def test_its_docstring_and_its_settings_are_complete(name: str) -> None:
    text, own = inspect.getdoc(REGISTRY[name]) or "", "__init__" in vars(REGISTRY[name])  # Standard has no settings
    parameters = inspect.signature(REGISTRY[name]).parameters if own else {}
    for key, parameter in parameters.items():
        assert parameter.kind is parameter.KEYWORD_ONLY, key
        assert re.search(rf"^    {key}: ", text, re.MULTILINE), f"{key} is not described"
    assert text and text.split("\n")[0].endswith(".")
    assert "eps" not in parameters or parameters["eps"].default is None  # the run's eps fills it


def test_logits_come_from_the_mode_that_the_caller_chose(mnist: tuple[Images, Labels]) -> None:
    model, (x, y) = net().eval(), mnist
    step = Standard()(model, x, y)
    assert torch.equal(step.logits, logits(model, x))  # a method never switches the model to training by itself


# ---- What many processes need.


@every_method
def test_a_memory_of_the_own_images_is_declared(
    name: str, mnist: tuple[Images, Labels], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes of the same weights with other images: what they then remember differently, the method names."""
    monkeypatch.setattr(
        ProcessGroup, "all_reduce", lambda _, values: torch.ones_like(values)
    )  # what is summed over processes is the same in them
    (x, y), states, extras = mnist, [], []
    for first in (0, 32):
        torch.manual_seed(0)
        model = net()
        before = copy.deepcopy(model.state_dict())
        method = prepared(name, model)
        rows = slice(first, first + 32)
        seen = replace(batch(32), index=torch.arange(64)[rows], noise=StepNoise(5, 0, 64, first))
        method(model, x[rows], y[rows], seen).loss.backward()
        model.load_state_dict(before)  # statistics are brought together before anyone looks at them
        method.after_step(model)
        state = method.state_dict()
        states.append({key: value.clone() for key, value in state.items() if isinstance(value, Tensor)})
        extras.append({key: value for key, value in state.items() if not isinstance(value, Tensor)})
    declared = [
        ".".join(filter(None, (place, kept)))
        for place, each in method.named_modules()
        if isinstance(each, Method)
        for kept in (*each.per_process_buffers, *each.per_image_buffers)
    ]
    differ = [key for key, value in states[0].items() if not torch.equal(value, states[1][key])]
    assert set(differ) <= set(declared) and extras[0] == extras[1]
    for _, each in method.named_modules():
        if isinstance(each, Method):
            assert all(len(getattr(each, kept)) in (0, 64) for kept in each.per_image_buffers)


def test_the_example_in_contributing_works(mnist: tuple[Images, Labels]) -> None:
    """Its step is FGSM's from a start as wide as eps, trained on alone."""
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Add a method")[1]
    names: dict[str, Any] = {"__name__": "wide_start"}
    exec(compile(section.split("```python\n")[1].split("```")[0], "wide_start.py", "exec"), names)
    with pytest.raises(ValueError, match="WideStart needs eps"):
        names["WideStart"]()
    (x, y), model = (mnist[0][:8], mnist[1][:8]), net()
    x_adv = FGSM(eps=EPS, start="uniform", mode="train")(copy.deepcopy(model), x, y, batch(8).noise)
    expected = F.cross_entropy(copy.deepcopy(model)(x_adv), y)
    assert names["WideStart"](eps=EPS)(model, x, y, batch(8)).loss.item() == pytest.approx(expected.item(), abs=1e-6)

"""Every attack of the folder against a linear model, the contract, and other people's attacks.

A new file in toughen/attacks is tested here without a line more: CASES is made out of the registry, but for attacks
that couple images or need another model, and for AutoAttack, which is made of the others.
"""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
import torchattacks
from commands import process
from foolbox import attacks as foolbox_attacks
from foolbox.models.pytorch import PyTorchModel
from problems import (
    Flops,
    MakeAttack,
    Whole,
    check_box,
    check_margin,
    flops,
    linear_problem,
    trained_net,
    unchanged,
    within,
)
from torch import Tensor, nn

from toughen.attacks import (
    APGD,
    APGDT,
    FAB,
    FGSM,
    IFGSM,
    MIFGSM,
    PGD,
    REGISTRY,
    Attack,
    AutoAttack,
    DeepFool,
    RandomPoints,
    Square,
)
from toughen.attacks.pgd_adp import PGDADP
from toughen.core.cost import PassCounter
from toughen.core.gradients import mode
from toughen.core.objectives import NuclearAscent, cross_entropy, kl, margin, margin_loss, targeted
from toughen.core.rng import ImageNoise, Noise, StepNoise
from toughen.core.threat import Threat
from toughen.core.types import Images, Labels, Logits, Norm
from toughen.methods.fast import FGSMAT
from toughen.utils.collect import collect

ELSEWHERE = ("AutoAttack", "LogitMatrix", "Transfer")  # have tests of their own
CASES: dict[str, MakeAttack] = {name: kind for name, kind in REGISTRY.items() if name not in ELSEWHERE} | {
    "Square": partial(Square, queries=200),  # short, and settings that take other ways through the code
    "RandomPoints": partial(RandomPoints, points=50),
    "FAB": partial(FAB, steps=15, targets=3),
    "APGDT": partial(APGDT, steps=30, targets=3),
    "PGDADP": partial(PGDADP, steps=5),
    "PGD, restarts": partial(PGD, restarts=3),
    "PGD, margin": partial(PGD, objective=margin_loss),
    "PGD, no start": partial(PGD, start="none"),
    "PGD, bernoulli": partial(PGD, start="bernoulli"),
    "PGD, gaussian": partial(PGD, start="gaussian"),
    "PGD, gaussian of size 1": partial(PGD, start="gaussian", start_size=1.0, steps=20),
    "PGD, momentum": partial(PGD, decay=0.5),
    "PGD, train": partial(PGD, mode="train"),
    "PGD, stop early": partial(PGD, stop_early=True),
    "PGD, one long step": partial(PGD, steps=1, step_size=3.0),
    "FGSM, long step": partial(FGSM, start="bernoulli", start_size=0.02, step_size=3.0),
}
NORMS: list[Norm] = ["linf", "l2"]

every_attack = pytest.mark.parametrize("name", CASES)
every_norm = pytest.mark.parametrize("norm", NORMS)
small_eps = {"linf": 0.1, "l2": 1.0}


def is_random(make: MakeAttack, **settings: Any) -> bool:
    attack = make(**settings)
    return isinstance(attack, APGD | APGDT | Square | RandomPoints) or getattr(attack, "start", "none") != "none"


# ---- every attack, on a model whose margin is known


@every_norm
@pytest.mark.parametrize("name", [name for name in CASES if name not in ("RandomPoints", "Square")])  # need luck, time
def test_breaks_a_linear_model_beyond_its_margin_and_never_before(name: str, norm: Norm) -> None:
    check_margin(CASES[name], norm)


@every_norm
@every_attack
def test_stays_in_ball_and_box_where_images_touch_the_box(name: str, norm: Norm) -> None:
    check_box(CASES[name], norm, moves=name not in ("DeepFool", "FAB"))  # these return x where they find nothing near


@every_attack
@pytest.mark.parametrize("wrong", ["bytes", "normalised", "NaN"])
def test_images_outside_0_to_1_are_refused(name: str, wrong: str) -> None:
    model, x, y, _ = linear_problem("linf")
    x = {"bytes": x * 255, "normalised": (x - 0.5) / 0.25, "NaN": x.masked_fill(x == x.max(), math.nan)}[wrong]
    with pytest.raises(ValueError, match=r"values from .* to .*, but must lie in \[0, 1\]: divide bytes by 255"):
        CASES[name](eps=0.1)(model, x, y)


@every_attack
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_images_too_coarse_for_a_radius_are_refused(name: str, dtype: torch.dtype) -> None:
    """In bfloat16 PGD at 8/255 ended 8.5/255 away."""
    model, x, y, _ = linear_problem("linf")
    with pytest.raises(ValueError, match=r"are b?float16, which cannot hold a radius .* give float32 images"):
        CASES[name](eps=0.1)(model.to(dtype), x.to(dtype), y)


@every_attack
def test_images_of_another_type_than_the_weights_are_refused(name: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"the images are float64, and the model's weights float32: .* images\.float"):
        CASES[name](eps=0.1)(model, torch.rand(2, 1, 1, 3).double(), torch.tensor([0, 1]))


def test_an_array_is_no_tensor() -> None:
    """In a process of its own, where types are not checked."""
    words = "import numpy as np, torch; from toughen.attacks import PGD\n"
    words += "net = torch.nn.Flatten(); PGD(eps=0.1)(net, np.zeros((2, 1, 1, 3), 'float32'), torch.zeros(2).long())"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=False)
    assert done.stderr.strip().endswith(
        "ValueError: the images are ndarray: give a tensor, such as torch.as_tensor(images)"
    )


def test_a_net_that_writes_into_its_images_is_named() -> None:
    """``clamp_`` changes no value of images in [0, 1]: only autograd sees it."""
    model, x, y, _ = linear_problem("linf")
    net = nn.Sequential(nn.Hardtanh(0, 1, inplace=True), model)
    for attack in (PGD(eps=0.1), FAB(eps=0.1, steps=2)):
        with pytest.raises(ValueError, match=r"the model changes its input images in place: .* inplace=False"):
            attack(net, x, y)


@pytest.mark.parametrize("attack", [PGD, APGD, PGDADP])
def test_a_targeted_objective_goes_on_to_its_class(attack: Any, mnist: tuple[Images, Labels]) -> None:
    """APGD and PGD-ADP ended where an image was of another class than the target: nearly all are, at the start."""
    net, x, y = trained_net(torch.float64).eval(), mnist[0][::4].double(), mnist[1][::4]
    towards = (y + 1) % 10
    x_adv = attack(eps=0.3, steps=40, objective=targeted)(net, x, towards)
    reached = float((net(x_adv).argmax(1) == towards).double().mean())
    assert reached > 0.5


def test_an_unknown_mode_is_refused() -> None:
    """In a process of its own, because types are checked while tests run."""
    words = "import torch; from toughen.attacks import PGD; net = torch.nn.Flatten(); x = torch.rand(1, 1, 2, 2); "
    ended = process("-c", words + "PGD(eps=0.1, mode='Train')(net, x, torch.zeros(1, dtype=torch.int64))")
    assert ended.stderr.splitlines()[-1] == 'ValueError: mode \'Train\' is unknown: use "eval" or "train"'


@pytest.mark.parametrize("make", ["attacks.PGD(eps='8/255')", "methods.FBF(eps='8/255')", "Threat('l2', '8/255')"])
def test_a_radius_that_is_a_text_is_refused(make: str) -> None:
    """In a process of its own, because types are checked while tests run."""
    ended = process("-c", f"import toughen; toughen.{make}")
    assert ended.stderr.splitlines()[-1] == "ValueError: eps is '8/255': give a number, such as 8 / 255"


def test_a_step_size_that_is_a_text_is_refused() -> None:
    ended = process("-c", "import toughen; toughen.attacks.PGD(eps=0.1, step_size='1/255')")
    assert ended.stderr.splitlines()[-1] == "ValueError: step_size is '1/255': give a number, such as 2 / 255"


WRONG_TARGETS = """
import torch
from toughen.attacks import FAB, FGSM, PGD, APGD, AutoAttack, DeepFool, Square
net, x, y = torch.nn.Flatten(), torch.rand(2, 1, 1, 3), torch.tensor([0, 1])
for attack in (FGSM(eps=0.1), PGD(eps=0.1), APGD(eps=0.1), FAB(eps=0.1), Square(eps=0.1), DeepFool(eps=0.1),
               AutoAttack(eps=0.1)):
    for wrong in (y.float(), y.int(), y[:1], y[:, None], y[0], y.numpy(), y - 1):
        try:
            attack(net, x, wrong)
            print("no error")
        except ValueError as error:
            print(error)
"""


def test_labels_of_another_kind_are_refused() -> None:
    """In a process of its own. DeepFool and AutoAttack returned the clean images for some of them."""
    ended = process("-c", WRONG_TARGETS)
    advice = "for 2 images: give one class number per image, int64 [n]"
    said = [
        f"the labels are float32 of shape [2] {advice}",
        f"the labels are int32 of shape [2] {advice}",
        f"the labels are int64 of shape [1] {advice}",
        f"the labels are int64 of shape [2, 1] {advice}",
        f"the labels are int64 of shape [] {advice}",
        "the labels are ndarray: give a tensor, such as torch.as_tensor(labels)",
        "the labels go down to -1: number the classes from 0",
    ]
    assert ended.stdout.splitlines() == 7 * said, ended


BEYOND = r"labels go from 0 to 3, but the model has 3 classes: number them from 0"


@pytest.mark.parametrize("attack", [DeepFool(eps=0.1), AutoAttack(eps=0.1)])
def test_labels_beyond_the_model_s_classes_are_refused(attack: Attack) -> None:
    """DeepFool returned the clean images."""
    with pytest.raises(ValueError, match=BEYOND):
        attack(nn.Flatten(), torch.rand(2, 1, 1, 3), torch.tensor([0, 3]))


@pytest.mark.parametrize("name", [name for name in CASES if name != "PGDR"])  # which asks for no label
def test_every_attack_says_which_labels_are_beyond_the_model_s_classes(name: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 3))
    with pytest.raises(ValueError, match=BEYOND):
        CASES[name](eps=0.1)(model, torch.rand(2, 1, 1, 3), torch.tensor([0, 3]))


def test_a_method_refuses_labels_beyond_the_model_s_classes_in_its_first_batch() -> None:
    with pytest.raises(ValueError, match=BEYOND):
        FGSMAT(eps=0.1)(nn.Flatten(), torch.rand(2, 1, 1, 3), torch.tensor([0, 3]))


WRONG_COUNTS = """
from dataclasses import fields
from toughen.attacks import REGISTRY

for kind in REGISTRY.values():
    for field in fields(kind):
        if field.type in ("int", "int | None"):
            for value in ("3", 2.5):
                try:
                    kind(eps=0.1, **{field.name: value})
                    print("nothing is said")
                except ValueError as error:
                    print(str(error).replace(f"{field.name} is {value!r}", "..."))
                except TypeError as error:
                    print("TypeError", error)
"""


def test_a_count_that_is_no_whole_number_is_refused() -> None:
    """In a process of its own; a text gave Python's own error of a comparison, 2.5 steps one of a range."""
    said = process("-c", WRONG_COUNTS).stdout.splitlines()
    assert set(said) == {"...: give a whole number, such as 10"} and len(said) > 40


def test_a_single_image_and_a_function_are_refused() -> None:
    words = "import torch; from toughen.attacks import PGD; net = torch.nn.Flatten(); y = torch.tensor([0]); "
    ended = process("-c", words + "PGD(eps=0.1)(net, torch.rand(1, 2, 2), y)")
    said = "the images have shape [1, 2, 2], not [n, c, h, w]: give a single image as image[None]"
    assert ended.stderr.splitlines()[-1] == f"ValueError: {said}"
    ended = process("-c", words + "PGD(eps=0.1)(lambda x: net(x), torch.rand(1, 1, 2, 2), y)")
    said = "the model is a function: give an nn.Module, whose forward may call a function"
    assert ended.stderr.splitlines()[-1] == f"ValueError: {said}"


def test_rounding_outside_0_to_1_is_allowed() -> None:
    model, x, y, _ = linear_problem("linf")
    x_adv = PGD(eps=0.1)(model, x.masked_fill(x == x.max(), 1 + 1e-6), y)
    assert 0 <= float(x_adv.min()) and float(x_adv.max()) <= 1


@dataclass(frozen=True, kw_only=True)
class Faulty(Attack):
    """PGD with one fault, which the two checks above must notice."""

    fault: str
    eps: float = 0.0
    norm: Norm = "linf"

    def __call__(self, model: nn.Module, x: Images, target: Labels | Logits, noise: Noise | None = None) -> Images:
        attack: Attack = PGD(eps=self.eps, norm=self.norm)
        if self.fault == "a single weak step":
            attack = FGSM(eps=self.eps, norm=self.norm, step_size=0.9 * self.eps)
        if self.fault == "1 % over eps":
            attack = PGD(eps=1.01 * self.eps, norm=self.norm)
        x_adv = attack(model, x, target, noise)
        if self.fault == "below 0":
            return torch.where(x == 0, -1e-9, x_adv)
        if self.fault == "above 1":
            return torch.where(x == 1, 1 + 1e-9, x_adv)
        return x if self.fault == "does nothing" else x_adv


FAULTS = ["does nothing", "a single weak step", "1 % over eps", "below 0", "above 1"]


@every_norm
@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_notice_a_faulty_attack(fault: str, norm: Norm) -> None:
    check = check_box if fault in ("below 0", "above 1") else check_margin
    with pytest.raises(AssertionError):
        check(partial(Faulty, fault=fault), norm)


# ---- the contract of every attack, on a net that reads real digits


@every_norm
@every_attack
def test_leaves_no_trace_and_repeats_itself(name: str, norm: Norm, mnist: tuple[Images, Labels]) -> None:
    (x, y), model = (each[::4] for each in mnist), trained_net()
    attack, before = CASES[name](eps=small_eps[norm], norm=norm), (x.clone(), y.clone())
    evaluated = getattr(attack, "mode", "eval") == "eval"
    with unchanged(model, buffers=evaluated):
        x_adv = attack(model, x, y, StepNoise(0, 0))
        again = attack(model, x, y, StepNoise(0, 0))
        other = attack(model, x, y, StepNoise(1, 0))
    assert torch.equal(x, before[0]) and torch.equal(y, before[1]) and not x.requires_grad
    assert not x_adv.requires_grad and x_adv.shape == x.shape and x_adv.dtype == x.dtype
    assert x_adv.data_ptr() != x.data_ptr()
    assert not attack(model, x.clone().requires_grad_(), y, StepNoise(0, 0)).requires_grad
    if evaluated:  # dropout draws from the global generator
        assert torch.equal(x_adv, again)
        assert torch.equal(x_adv, other) is not is_random(CASES[name], eps=0.1)


@every_attack
def test_without_noise_draws_come_from_the_global_generator(name: str, mnist: tuple[Images, Labels]) -> None:
    (x, y), model, attack = (each[::8] for each in mnist), trained_net(), CASES[name](eps=0.1)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(attack(model, x, y))
    if getattr(attack, "mode", "eval") == "eval":
        assert torch.equal(results[0], results[1])
        assert torch.equal(results[0], results[2]) is not is_random(CASES[name], eps=0.1)


@every_attack
def test_given_noise_is_the_only_source(name: str, mnist: tuple[Images, Labels]) -> None:
    (x, y), model, attack = (each[::8] for each in mnist), trained_net(), CASES[name](eps=0.1)
    if getattr(attack, "mode", "eval") == "train":
        model.eval()
    state = torch.get_rng_state()
    attack(model, x, y, StepNoise(0, 0))
    assert torch.equal(torch.get_rng_state(), state)


@every_attack
def test_an_evaluations_images_do_not_depend_on_their_batch(name: str, mnist: tuple[Images, Labels]) -> None:
    (x, y), model = (each[::8].double() if each.ndim == 4 else each[::8] for each in mnist), trained_net(torch.float64)
    attack = CASES[name](eps=0.1)
    model.eval()
    whole = attack(model, x, y, ImageNoise(0, name, list(range(8))))
    part = attack(model, x[[6, 1]], y[[6, 1]], ImageNoise(0, name, [6, 1]))
    assert (part - whole[[6, 1]]).abs().amax() < 1e-9


@every_attack
def test_computes_no_weight_gradient(name: str, mnist: tuple[Images, Labels]) -> None:
    """All that the attack computes are forwards and input gradients, at one forward each: the passes counted."""
    (x, y), model = (each[::4] for each in mnist), trained_net()
    forward = flops(model, x) / len(x)
    with Flops() as counted, PassCounter(model) as passes:
        CASES[name](eps=0.1)(model, x, y)
    assert passes.weight_gradient == 0
    assert counted.total == forward * passes.total > 0


@every_attack
def test_an_exception_in_the_model_changes_nothing(name: str, mnist: tuple[Images, Labels]) -> None:
    (x, y), model = (each[::8] for each in mnist), trained_net()
    calls = []

    def fail(module: nn.Module, args: Any) -> None:
        assert model.trained.training is (getattr(attack, "mode", "eval") == "train")
        calls.append(1)
        if len(calls) == 2:
            raise KeyError("after the first pass")

    attack = CASES[name](eps=0.1)
    if getattr(attack, "steps", 1) == 1:
        calls.append(1)
    handle = model.register_forward_pre_hook(fail)
    with unchanged(model, buffers=False), pytest.raises(KeyError, match="after the first pass"):
        attack(model, x, y)
    handle.remove()


@every_attack
def test_works_within_no_grad_and_on_frozen_models(name: str, mnist: tuple[Images, Labels]) -> None:
    (x, y), model, attack = (each[::8] for each in mnist), trained_net().eval(), CASES[name](eps=0.1)
    expected = attack(model, x, y, StepNoise(0, 0))
    with torch.no_grad():
        assert torch.equal(attack(model, x, y, StepNoise(0, 0)), expected)
    model.requires_grad_(False)
    with unchanged(model):
        assert torch.equal(attack(model, x, y, StepNoise(0, 0)), expected)


@every_attack
def test_a_radius_of_zero_leaves_the_image(name: str) -> None:
    model, x, y, _ = linear_problem("linf")
    assert torch.equal(CASES[name](eps=0, norm="linf")(model, x, y), x)


@pytest.mark.parametrize("name", [name for name in REGISTRY if name != "Transfer"])  # asks for a source first
def test_settings(name: str) -> None:
    """Keyword-only, frozen, each one described, and eps is asked for by name."""
    attack = REGISTRY[name]
    assert is_dataclass(attack) and attack.__dataclass_params__.frozen
    assert all(each.kw_only for each in fields(attack))
    written = "".join(inspect.getdoc(each) or "" for each in attack.__mro__ if issubclass(each, Attack))
    assert all(f"{each.name}" in written for each in fields(attack))
    for settings, message in [
        ({}, f"{name} needs eps, the radius in image units: for example eps=8/255"),
        ({"eps": 8}, "did you mean 8/255"),
        ({"eps": math.nan}, "finite"),
        ({"eps": -0.1}, "not below 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            attack(**settings)
    with pytest.raises(ValueError, match="longest L2 distance"):
        attack(eps=3.0, norm="l2")(Whole(lambda x: x.flatten(1)), torch.rand(1, 1, 2, 2), torch.tensor([0]))


def test_the_folder_is_the_registry() -> None:
    assert {"PGD", "FGSM", "IFGSM", "MIFGSM"} <= set(REGISTRY)
    assert "Attack" not in REGISTRY
    import toughen.attacks as attacks

    assert all(getattr(attacks, name) is REGISTRY[name] for name in REGISTRY)
    assert collect("toughen.attacks", attacks.__path__, PGD) == {}  # without the base itself
    with pytest.raises(AttributeError, match="there is no attack PDG: .*PGD"):
        _ = attacks.PDG


# ---- settings out of their range


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(PGD, steps=0), r"steps \(0\) and restarts \(1\) must be at least 1"),
        (partial(PGD, restarts=0), r"steps \(10\) and restarts \(0\) must be at least 1"),
        (partial(IFGSM, steps=0), r"steps \(0\) must be at least 1"),
        (partial(MIFGSM, steps=-1), r"steps \(-1\) must be at least 1"),
        (partial(PGD, step_size=-0.1), "step_size -0.1 must be a finite number, not below 0"),
        (partial(PGD, step_size=math.nan), "step_size nan must be a finite number"),
        (partial(FGSM, step_size=math.inf), "step_size inf must be a finite number"),
        (partial(PGD, start_size=-0.1), "start_size -0.1 must be a finite number"),
        (partial(MIFGSM, decay=math.nan), "decay nan must be a finite number"),
        (partial(PGD, restarts=2, objective=NuclearAscent(None, 1.0)), "couples the images of a batch.*use one"),
    ],
)
def test_settings_out_of_range_are_refused(make: MakeAttack, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(eps=0.1)


# ---- batch norm


def test_training_mode_moves_statistics_and_evaluation_mode_does_not(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    model = trained_net()
    seen, frozen = int(model.trained.num_batches_tracked or 0), int(model.frozen.num_batches_tracked or 0)
    PGD(eps=0.1, steps=3)(model, x, y)
    assert model.trained.num_batches_tracked == seen
    PGD(eps=0.1, steps=3, mode="train")(model, x, y)
    FGSM(eps=0.1, mode="train")(model, x, y)
    MIFGSM(eps=0.1, steps=2, mode="train")(model, x, y)
    assert model.trained.num_batches_tracked == seen + 6
    assert model.frozen.num_batches_tracked == frozen


# ---- worked by hand


def test_single_steps() -> None:
    """On a linear model the gradient is -w (times a positive number), whatever the objective."""
    model, x, y, _ = linear_problem("linf")
    weight = model.weight.detach()[None]
    length = weight.square().sum().sqrt()
    torch.testing.assert_close(FGSM(eps=0.1)(model, x, y), x - 0.1 * weight.sign())
    torch.testing.assert_close(FGSM(eps=0.2, norm="l2")(model, x, y), x - 0.2 * weight / length)
    torch.testing.assert_close(FGSM(eps=0.1, step_size=0.03)(model, x, y), x - 0.03 * weight.sign())
    torch.testing.assert_close(FGSM(eps=0.1, step_size=0.5)(model, x, y), x - 0.1 * weight.sign())
    torch.testing.assert_close(PGD(eps=0.1, steps=5, start="none")(model, x, y), x - 0.1 * weight.sign())
    half = PGD(eps=0.1, steps=5, step_size=0.01, start="none")(model, x, y)
    torch.testing.assert_close(half, x - 0.05 * weight.sign())
    torch.testing.assert_close(IFGSM(eps=0.1, steps=7)(model, x, y), x - 0.1 * weight.sign())
    start = FGSM(eps=0.1, step_size=0, start="bernoulli", start_size=0.02)(model, x, y) - x
    torch.testing.assert_close(start.abs(), torch.full_like(x, 0.02))


@pytest.mark.parametrize("attack", [PGD, FGSM, IFGSM, MIFGSM])
def test_the_objective_decides_the_direction(attack: MakeAttack) -> None:
    model, x, y, _ = linear_problem("linf")
    for objective, sign in [(cross_entropy, -1), (targeted, 1)]:
        x_adv = attack(eps=0.1, objective=objective)(model, x, y)
        torch.testing.assert_close(x_adv, x + sign * 0.1 * model.weight.detach()[None].sign())


def test_the_default_step_is_two_and_a_half_radii_over_the_steps(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, trained_net()
    found = PGD(eps=0.1, steps=4)(model, x, y, StepNoise(0, 0))
    assert torch.equal(found, PGD(eps=0.1, steps=4, step_size=0.0625)(model, x, y, StepNoise(0, 0)))


def test_momentum_worked_by_hand() -> None:
    """One pixel, f = -(x - 0.5)^2: the gradient's sign turns at 0.5, an accumulated one carries on beyond it."""

    def parabola(x: Tensor) -> Tensor:
        return torch.stack([(x[:, 0, 0, 0] - 0.5) ** 2, torch.zeros(1)], 1)

    x, y = torch.full((1, 1, 1, 1), 0.3), torch.tensor([0])
    plain = PGD(eps=0.4, steps=3, step_size=0.15, start="none", objective=margin_loss)
    moved = [float(replace(plain, decay=decay)(Whole(parabola), x, y)) for decay in (0.0, 0.6)]
    # divided by its mean magnitude each gradient is +-1. Plain: 0.45, 0.6, 0.45. Momentum: 1, 1.6, then 0.96 - 1 < 0
    assert moved == pytest.approx([0.45, 0.45])
    moved = [float(replace(plain, decay=decay)(Whole(parabola), x, y)) for decay in (0.0, 0.7)]
    # 1, 1.7, then 1.19 - 1 > 0: 0.45, 0.6, 0.7 (the ball ends there)
    assert moved == pytest.approx([0.45, 0.7])


# ---- objectives


def test_targeted(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    model, wanted = trained_net(), (y + 3) % 10
    x_adv = PGD(eps=0.3, steps=20, objective=targeted)(model, x, wanted)
    with mode(model, "eval"):
        assert (model(x_adv).argmax(1) == wanted).float().mean() > 0.9
        assert (model(x).argmax(1) == wanted).float().mean() < 0.2


@pytest.mark.parametrize("objective", [cross_entropy, margin_loss, kl], ids=lambda each: type(each).__name__)
def test_objectives_rise(objective: Any, mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    model = trained_net().eval()
    target = model(x).detach() if objective is kl else y
    x_adv = PGD(eps=0.1, objective=objective)(model, x, target)
    assert (objective(model(x_adv), target) > objective(model(x), target)).all()


# ---- stopping early, restarts


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.06), ("l2", 0.8)])
def test_stopping_early_breaks_what_the_last_step_breaks(norm: Norm, eps: float, mnist: tuple[Images, Labels]) -> None:
    x, y = mnist[0].double(), mnist[1]
    model, attack = trained_net(torch.float64).eval(), PGD(eps=eps, norm=norm, steps=8)
    to_the_end = margin(model(attack(model, x, y, StepNoise(0, 0))), y) < 0
    x_adv = replace(attack, stop_early=True)(model, x, y, StepNoise(0, 0))
    early = margin(model(x_adv), y) < 0
    assert 0.1 < to_the_end.double().mean() < 0.9
    assert (early >= to_the_end).all()
    assert within(x_adv, x, norm, eps)


def test_stopping_early_stops_where_an_image_first_falls() -> None:
    """The boundary is 0.1 away: the third step of 0.04 is the first beyond it."""
    model, x, y, _ = linear_problem("linf")
    attack = PGD(eps=0.2, steps=10, step_size=0.04, start="none", stop_early=True)
    with PassCounter(model) as passes:
        x_adv = attack(model, x, y)
    assert float((x_adv - x).abs().amax()) == pytest.approx(0.12)
    assert passes.forward == 4  # the one that sees it fallen is the last


def test_an_unprojected_start_that_fools_is_projected() -> None:
    model, x, y, _ = linear_problem("linf")
    x_adv = PGD(eps=0.2, start=x - 0.5 * model.weight.detach()[None].sign(), stop_early=True)(model, x, y)
    assert within(x_adv, x, "linf", 0.2) and model(x_adv).argmax(1) != y


@every_norm
def test_a_start_outside_the_ball_that_fools_does_not_end_the_attack(norm: Norm, mnist: tuple[Images, Labels]) -> None:
    """Far outside nearly all images are misclassified; projected, most of them are not."""
    x, y = mnist[0].double(), mnist[1]
    model, eps = trained_net(torch.float64).eval(), {"linf": 0.06, "l2": 0.8}[norm]
    attack = PGD(eps=eps, norm=norm, steps=20, start="gaussian", start_size=1.0)
    begin = Threat(norm, eps).start(x, "gaussian", StepNoise(0, 0).restart(0), 1.0)
    assert (margin(model(begin), y) < 0).double().mean() > 0.5
    to_the_end = margin(model(attack(model, x, y, StepNoise(0, 0))), y) < 0
    early = margin(model(replace(attack, stop_early=True)(model, x, y, StepNoise(0, 0))), y) < 0
    assert 0.1 < to_the_end.double().mean() and (early >= to_the_end).all()


@every_norm
def test_restarts_keep_the_best_of_each_image(norm: Norm, mnist: tuple[Images, Labels]) -> None:
    """And the evaluation, which runs restarts one by one, sees the very same ones."""
    x, y = mnist
    model, once = trained_net().eval(), PGD(eps=small_eps[norm] / 2, norm=norm, steps=2)
    noises = [ImageNoise(0, "PGD", list(range(64)), number) for number in range(3)]
    single = torch.stack([once(model, x, y, noise) for noise in noises])
    logits = torch.stack([model(each) for each in single])
    values = torch.stack([cross_entropy(each, y) for each in logits])
    best = (values + 1000 * (logits.argmax(2) != y)).argmax(0)  # one that fools before one with a greater loss
    assert len(best.unique()) == 3  # each restart is the best one of some image
    found = replace(once, restarts=3)(model, x, y, noises[0])
    assert torch.equal(found, single[best, torch.arange(64)])


def test_what_one_restart_breaks_is_broken(mnist: tuple[Images, Labels]) -> None:
    """An image that stops early where it falls may have a lower loss than one that goes on, and does not fall."""
    x, y = mnist
    model = trained_net().eval()
    once = PGD(eps=small_eps["linf"], steps=20, stop_early=True)
    noises = [ImageNoise(0, "PGD", list(range(64)), number) for number in range(5)]
    single = torch.stack([model(once(model, x, y, noise)) for noise in noises])
    broken = (single.argmax(2) != y).any(0)
    assert 0 < broken.sum() < 64
    assert torch.equal(model(replace(once, restarts=5)(model, x, y, noises[0])).argmax(1) != y, broken)


# ---- cost


def test_passes(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    expected = [
        (FGSM(eps=0.1), (1, 1)),
        (PGD(eps=0.1, steps=7), (7, 7)),
        (PGD(eps=0.1, steps=7, restarts=3), (24, 21)),
        (IFGSM(eps=0.1, steps=4), (4, 4)),
        (MIFGSM(eps=0.1, steps=4), (4, 4)),
    ]
    for attack, (forward, backward) in expected:
        with PassCounter(model := trained_net()) as passes:
            attack(model, x, y)
        assert (passes.forward, passes.input_gradient, passes.weight_gradient) == (64 * forward, 64 * backward, 0)


def test_comparing_restarts_builds_no_graph(mnist: tuple[Images, Labels]) -> None:
    (x, y), model, graphs = (each[::8] for each in mnist), trained_net(), []
    model.register_forward_hook(lambda module, args, out: graphs.append(out.requires_grad))
    PGD(eps=0.1, steps=2, restarts=2)(model, x, y)
    assert graphs == [True, True, False, True, True, False]


# ---- other people's attacks


def fooled_somewhat(model: nn.Module, x: Tensor, y: Tensor) -> bool:
    return bool((model(x).argmax(1) != y).any())


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize(
    ("norm", "theirs", "eps", "step_size"),
    [("linf", foolbox_attacks.LinfPGD, 0.1, 0.02), ("l2", foolbox_attacks.L2PGD, 1.0, 0.3)],
    ids=["linf", "l2"],
)
def test_agrees_with_foolbox(
    norm: Norm, theirs: Any, eps: float, step_size: float, random: bool, mnist: tuple[Images, Labels]
) -> None:
    x, y = mnist[0].double(), mnist[1]
    model = trained_net(torch.float64).eval()
    start = Threat(norm, eps).start(x, "uniform" if random else "none", StepNoise(0, 0))

    class FromStart(theirs):  # type: ignore[misc]
        def get_random_start(self, x0: Any, epsilon: float) -> Any:
            return type(x0)(start)

    attack = FromStart(abs_stepsize=step_size, steps=10, random_start=True)
    expected = attack.run(PyTorchModel(model, bounds=(0, 1)), x, y, epsilon=eps)
    found = PGD(eps=eps, norm=norm, steps=10, step_size=step_size, start=start)(model, x, y)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert fooled_somewhat(model, found, y)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (FGSM(eps=0.1), partial(torchattacks.FGSM, eps=0.1)),
        (
            PGD(eps=0.1, steps=10, step_size=0.02, start="none"),
            partial(torchattacks.PGD, eps=0.1, alpha=0.02, steps=10, random_start=False),
        ),
        (
            PGD(eps=1.0, norm="l2", steps=10, step_size=0.3, start="none"),
            partial(torchattacks.PGDL2, eps=1.0, alpha=0.3, steps=10, random_start=False),
        ),
        (MIFGSM(eps=0.1, steps=10), partial(torchattacks.MIFGSM, eps=0.1, alpha=0.01, steps=10, decay=1.0)),
        (
            MIFGSM(eps=0.1, steps=10, decay=0.5),
            partial(torchattacks.MIFGSM, eps=0.1, alpha=0.01, steps=10, decay=0.5),
        ),
        (IFGSM(eps=0.1, steps=10), partial(torchattacks.BIM, eps=0.1, alpha=0.01, steps=10)),
    ],
    ids=["FGSM", "PGD", "PGDL2", "MIFGSM", "MIFGSM, 0.5", "IFGSM"],
)
def test_agrees_with_torchattacks(ours: Attack, theirs: Any, mnist: tuple[Images, Labels]) -> None:
    x, y = mnist[0].double(), mnist[1]
    model = trained_net(torch.float64).eval()
    expected, found = theirs(model)(x, y), ours(model, x, y)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert fooled_somewhat(model, found, y)

"""The packaged recipes: each trains, and says what its source says."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from toughen import models
from toughen.config import settings
from toughen.config.train import parse_train
from toughen.core.rng import StepNoise
from toughen.core.types import Batch, Images, Labels, Plan
from toughen.methods.base import Method
from toughen.methods.delayed import Delayed
from toughen.methods.gat import GAT
from toughen.methods.pgi import PGI
from toughen.training import Recipe
from toughen.utils.units import scale_radius

every_recipe = pytest.mark.parametrize("name", settings.recipes())
SHAPES = {
    "mnist": (1, 28, 28),
    "mnist-5k": (1, 28, 28),
    "cifar10": (3, 32, 32),
    "cifar100": (3, 32, 32),
    "imagenet": (3, 224, 224),
}
EPS = {"mnist": 0.3, "mnist-5k": 0.3, "cifar10": 8 / 255, "cifar100": 8 / 255, "imagenet": 4 / 255}
TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "mnist": "MNIST", "mnist-5k": "MNIST", "imagenet": "ImageNet"}
EPS_OF = {"nuat-imagenet100": 8 / 255, "gat-imagenet100": 8 / 255}  # where a recipe's is not its data set's


def recipe(words: str) -> Recipe:
    return parse_train(words.split())[0]


@cache
def packaged(name: str) -> Recipe:
    """A recipe that nothing is changed on."""
    return recipe(name)


def comment(name: str) -> str:
    """A recipe's comment as one line."""
    lines = settings.recipes()[name].read_text(encoding="utf-8").splitlines()
    return " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))


def part(method: Any, path: str) -> Any:
    """What lies at "after.attack.steps" in a method."""
    for name in path.split("."):
        method = getattr(method, name)
    return method


# ---- All of them.


@every_recipe
def test_a_recipe_names_its_data_set_and_its_radius_in_its_first_line(name: str) -> None:
    first = settings.recipes()[name].read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ") and first.endswith(".") and len(first) <= 120
    made = packaged(name)
    assert re.search(rf"\b{TITLES[made.data]}\b(?!\d)", first)
    assert made.eps is None or re.search(rf"\beps {made.eps}\b", first)


@every_recipe
def test_a_recipe_s_methods_train_against_its_eps(name: str) -> None:
    made = packaged(name)
    assert float(made.eps or 0) == EPS_OF.get(name, EPS[made.data]) * (made.eps is not None)
    threats = [method.threat for method in made.method.modules() if isinstance(method, Method) and method.threat]
    trained = set() if made.eps is None else {("linf", float(scale_radius(made.eps, made.eps_factor)))}
    assert {(threat.norm, float(threat.eps)) for threat in threats} == trained


@every_recipe
def test_a_recipe_s_net_exists(name: str) -> None:
    made = packaged(name)
    with torch.device("meta"):
        models.create(made.model, 10, SHAPES[made.data], **made.model_settings)


class Tiny(nn.Module):
    """A net with batch norm for images of any size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 8, 5, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()
        )
        self.last = nn.Linear(128, 10)

    def forward(self, x: Images) -> Any:
        return self.last(self.layers(x))


@every_recipe
def test_a_recipe_s_method_takes_two_steps_with_its_optimizer(name: str, mnist: tuple[Images, Labels]) -> None:
    if name.startswith("eat-"):
        pytest.skip("needs trained sources")
    made, (x, y) = recipe(name), (mnist[0][:20], mnist[1][:20])
    if SHAPES[made.data][0] == 3:
        x = F.pad(x, (2, 2, 2, 2)).expand(-1, 3, -1, -1).clone()
    model, method = Tiny(x.shape[1]).train(), made.method
    method.prepare(model, SHAPES[made.data], 10, 20)
    optimizer = made.optimizer.build([*model.parameters(), *method.parameters()])
    method.start(Plan(epochs=made.epochs, steps=2 * made.epochs, images=20, first_drop=made.schedule.first_drop))
    for number, progress in enumerate((0.3, 0.95)):
        method.progress = progress
        for group in optimizer.param_groups:
            group["lr"] = made.optimizer.lr * made.schedule.factor(progress)
        batch = Batch(index=torch.arange(20), noise=StepNoise(0, number))
        optimizer.zero_grad()
        step = method(model, x, y, batch)
        step.loss.backward()
        optimizer.step()
        method.after_step(model)
        assert step.loss.isfinite() and step.logits.shape == (20, 10)


# ---- What the sources say. Rates are those after so many epochs, .5 where an epoch is half through.

PUBLISHED: dict[str, tuple[str, int, int, float, dict[float, float]]] = {
    # net, epochs, batch, weight decay, rates: R-MGM and PAP give the first two, the slides of DAT no batch and decay
    "nuat-cifar10": ("resnet18", 100, 64, 5e-4, {20: 0.05, 40: 0.1, 65: 0.05, 85.5: 0.02, 86.5: 2e-3, 91.5: 2e-4}),
    "nuat-wa-cifar10": ("resnet18", 100, 64, 5e-4, {12.5: 0.05, 25: 0.1, 62.5: 0.05, 100: 0}),
    "nuat2-wa-cifar10": ("wrn-34-10", 80, 64, 5e-4, {10: 0.05, 20: 0.1, 50: 0.05, 80: 0}),
    "nuat-wa-h-cifar10": ("wrn-34-10", 60, 64, 5e-4, {7.5: 0.05, 15: 0.1, 37.5: 0.05, 60: 0}),
    "nuat2-cifar10": (
        "wrn-34-10",
        55,
        64,
        5e-4,
        {10: 0.05, 20: 0.1, 30: 0.05, 35: 0.025, 40.5: 0.025, 41.5: 2.5e-3, 46.5: 2.5e-4},
    ),
    "trades-wa-cifar10": ("resnet18", 110, 128, 5e-4, {99.5: 0.1, 100.5: 0.01, 104.5: 0.01, 105.5: 1e-3}),
    "nuat-imagenet100": ("resnet18", 120, 64, 1e-4, {}),  # GAT's
    "gat-imagenet100": ("resnet18", 120, 64, 1e-4, {59.5: 0.1, 60.5: 0.01, 89.5: 0.01, 90.5: 1e-3}),
    "pgi-cifar100": ("resnet18", 110, 128, 5e-4, {99.5: 0.1, 100.5: 0.01, 104.5: 0.01, 105.5: 1e-3}),
    "awp-cifar100": ("preact-resnet18", 200, 128, 5e-4, {99.5: 0.1, 100.5: 0.01, 149.5: 0.01, 150.5: 1e-3}),
    "trades-awp-cifar100": ("wrn-34-10", 200, 128, 5e-4, {98.5: 0.1, 99.5: 0.01, 148.5: 0.01, 149.5: 1e-3}),
    "free-cifar100": ("wrn-34-10", 26, 128, 2e-4, {12.5: 0.1, 13.5: 0.01, 19: 0.01, 20: 1e-3}),
    "nfgsm-cifar100": ("preact-resnet18", 30, 128, 5e-4, {7.5: 0.1, 15: 0.2, 22.5: 0.1}),
    "dat-cifar100": ("resnet50", 155, 128, 5e-4, {99.5: 0.1, 100.5: 0.01, 154.5: 0.01}),
    "gat-mnist": ("m-lenet", 50, 64, 5e-4, {0.5: 0.01, 25.5: 0.01, 26.5: 0.002, 49.5: 0.002}),
    "gat-cifar10": ("resnet18", 100, 64, 5e-4, {70.5: 0.1, 71.5: 0.01, 85.5: 0.01, 86.5: 1e-3}),
    "gat-wa-cifar10": ("resnet18", 100, 64, 5e-4, {70.5: 0.1, 71.5: 0.01, 85.5: 0.01, 86.5: 1e-3}),
    "fbf-mnist": ("fbf-mnist-cnn", 10, 100, 0, {2: 2.5e-3, 4: 5e-3, 7: 2.5e-3}),
    "fbf-cifar10": ("preact-resnet18", 15, 128, 5e-4, {3.75: 0.1, 7.5: 0.2, 11.25: 0.1}),
    "free-mnist": ("fbf-mnist-cnn", 2, 100, 0, {0.4: 2.5e-3, 0.8: 5e-3, 1.4: 2.5e-3}),  # FBF's, but for the epochs
    "free-cifar10": ("wrn-34-10", 26, 128, 2e-4, {12.5: 0.1, 13.5: 0.01, 19: 0.01, 20: 1e-3}),
    "awp-cifar10": ("preact-resnet18", 200, 128, 5e-4, {99.5: 0.1, 100.5: 0.01, 149.5: 0.01, 150.5: 1e-3}),
    "trades-awp-cifar10": ("wrn-34-10", 200, 128, 5e-4, {98.5: 0.1, 99.5: 0.01, 148.5: 0.01, 149.5: 1e-3}),
    "dat-cifar10": ("wrn-28-10", 155, 128, 5e-4, {99.5: 0.1, 100.5: 0.01, 154.5: 0.01}),
    "dat-mnist": ("madry-cnn", 85, 50, 0, {0.5: 1e-4, 84.5: 1e-4}),
    "nfgsm-cifar10": ("preact-resnet18", 30, 128, 5e-4, {7.5: 0.1, 15: 0.2, 22.5: 0.1}),
    "gradalign-cifar10": ("preact-resnet18", 30, 128, 5e-4, {6: 0.15, 12: 0.3, 21: 0.15}),
    "pgi-cifar10": ("resnet18", 110, 128, 5e-4, {99.5: 0.1, 100.5: 0.01, 104.5: 0.01, 105.5: 1e-3}),
    "fgsm-mnist": ("small-cnn", 50, 128, 0, {}),
    "fgsm-cifar10": ("resnet18", 100, 128, 5e-4, {}),
    "pap-mnist": ("small-cnn", 50, 128, 0, {}),
    "pap-cifar10": ("resnet18", 100, 128, 5e-4, {}),
    "pap-trades-mnist": ("small-cnn", 50, 128, 0, {}),
    "pap-trades-cifar10": ("resnet18", 100, 128, 5e-4, {}),
    "rmgm-mnist": ("lenet+", 50, 32, 0, {}),
    "rmgm-cifar10": ("resnet34", 60, 128, 5e-4, {}),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_net_epochs_batch_decay_and_rates_are_the_source_s(name: str) -> None:
    made, (net, epochs, batch, decay, rates) = packaged(name), PUBLISHED[name]
    optimizer: Any = made.optimizer
    assert (made.model, made.epochs, made.batch_size, optimizer.weight_decay) == (net, epochs, batch, decay)
    found = {at: optimizer.lr * made.schedule.factor(at / epochs) for at in rates}
    assert found == pytest.approx(rates, abs=1e-12)


def test_nuat_h_has_the_shape_of_nuat2_s_rate() -> None:
    """55 epochs there: up to 0.1 at 20, halfway down at 30, 0.025 from 35 on, a tenth of it at 41 and again at 46."""
    made = packaged("nuat-h-cifar10")
    there = {10: 0.05, 20: 0.1, 30: 0.05, 35: 0.025, 40.5: 0.025, 41.5: 2.5e-3, 45.5: 2.5e-3, 46.5: 2.5e-4}
    found = {at: made.optimizer.lr * made.schedule.factor(at / 55) for at in there}
    assert found == pytest.approx(there)
    assert (made.model, made.epochs, made.batch_size) == ("wrn-34-10", 50, 64)


SETTINGS: dict[str, dict[str, object]] = {
    "pap-mnist": {"over": "fgsm", "lam": 0.5, "share": 0.1},
    "pap-cifar10": {"over": "fgsm", "lam": 0.1, "share": 0.1},
    "pap-trades-mnist": {"over": "trades", "lam": 0.5, "share": 0.1},
    "pap-trades-cifar10": {"over": "trades", "lam": 1, "share": 0.1},
    "rmgm-mnist": {"lam": 5, "cross_entropy_on": "fgsm", "start_size": 0.05},
    "rmgm-cifar10": {"lam": 5, "cross_entropy_on": "fgsm", "start_size": 4 / 255},
    "fbf-mnist": {"eps": 0.3, "attack.step_size": 0.375, "clip_start": False},
    "fbf-cifar10": {"attack.step_size": 10 / 255, "clip_start": True},
    "free-cifar10": {"replays": 8, "step_size": 8 / 255, "clamp": "image"},
    "free-mnist": {"replays": 8, "step_size": 0.3, "clamp": "delta"},
    "nuat2-cifar10": {"lam": 4, "ramp": 1, "start_size": 4 / 255, "first_step": "live"},
    "gat-imagenet100": {"lam": 20, "jump_at": 0.75, "jump": 7, "start_size": 4 / 255},
    "pgi-cifar100": {"lam": 10, "decay": 0.3, "reset": 10, "prior": "momentum", "step_size": 8 / 255},
    "dat-cifar100": {"after.attack.steps": 10, "after.attack.step_size": 2 / 255, "switch_epoch": 78},
    "trades-awp-cifar100": {"gamma": 0.005, "begin_at": 9 / 200, "method.beta": 6, "method.attack.steps": 10},
    "awp-cifar100": {"gamma": 0.01, "begin_at": 0, "method.attack.steps": 10, "method.attack.mode": "train"},
    "gat-mnist": {"start_size": 0.3, "alternate": False},
    "gat-cifar10": {"start_size": 4 / 255, "alternate": True},
    "gat-wa-cifar10": {"start_size": 4 / 255, "alternate": True},
    "nuat-h-cifar10": {"cheap.lam": 4, "cheap.ramp": 1, "strong.lam": 4, "strong.first_step": "live"},
    "nuat-wa-h-cifar10": {
        "cheap.lam": 4,
        "cheap.start_size": 4 / 255,
        "strong.ramp": 1,
        "strong.first_step": "average",
    },
    "awp-cifar10": {"gamma": 0.01, "begin_at": 0, "method.attack.steps": 10, "method.attack.mode": "train"},
    "trades-awp-cifar10": {"gamma": 0.005, "begin_at": 9 / 200, "method.beta": 6, "method.attack.steps": 10},
    "dat-cifar10": {"after.attack.steps": 10, "after.attack.step_size": 2 / 255},
    "dat-mnist": {"after.attack.steps": 40, "after.attack.step_size": 0.01, "switch_epoch": "auto"},
    "nfgsm-cifar10": {"start_size": 16 / 255, "step_size": 8 / 255, "limit": None, "mode": "train"},
    "gradalign-cifar10": {"lam": 0.2},
    "liet-cifar10": {"lam": 100, "min_share": 0.1, "max_share": 0.5, "refresh": 20, "start_size": 8 / 255},
    "liet-cifar100": {"lam": 200, "min_share": 0.1, "max_share": 0.5, "refresh": 20, "start_size": 8 / 255},
    "rs-convergesmooth-cifar10": {"gamma": 0.03, "ratio": 1, "stride": 1, "method.start_size": 8 / 255},
    "pgi-cifar10": {"lam": 10, "decay": 0.3, "reset": 40, "prior": "momentum", "step_size": 8 / 255},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_method_s_settings_are_the_source_s(name: str) -> None:
    method = packaged(name).method
    assert {path: part(method, path) for path in SETTINGS[name]} == SETTINGS[name]


def test_trades_wa_averages_as_nuat_wa_does() -> None:
    assert packaged("trades-wa-cifar10").averaging == 0.9998 and packaged("trades-cifar10").averaging is None


CHANGED = {  # as the sources say
    "pgi": {"reset", "smoothing"},
    "dat": {"model", "switch_epoch"},
    "liet": {"lam", "label_smoothing"},
    "rs-convergesmooth": {"label_smoothing"},
}
ON_100 = [name.removesuffix("-cifar100") for name in settings.recipes() if name.endswith("-cifar100")]


def test_each_method_of_cifar_10_has_a_recipe_for_cifar_100() -> None:
    methods: dict[str, set[str]] = {"cifar10": set(), "cifar100": set()}
    for made in map(packaged, settings.recipes()):
        if made.data in methods:
            methods[made.data].add(type(made.method).__name__)
    assert methods["cifar100"] == methods["cifar10"] and len(methods["cifar100"]) >= 15


@pytest.mark.parametrize("name", ON_100)
def test_a_cifar_100_recipe_differs_from_cifar_10_s_where_its_source_does_alone(name: str) -> None:
    ten, hundred = (leaves(settings.read_recipe(f"{name}-{data}")) for data in ("cifar10", "cifar100"))
    assert ten.keys() == hundred.keys()
    differ = {path.rpartition(".")[2] for path in ten if ten[path] != hundred[path]}
    assert differ == {"data"} | CHANGED.get(name, set())
    said = comment(f"{name}-cifar100")
    assert f"{name}-cifar10" in said and "trained here" in said


def leaves(node: Any, path: str = "") -> dict[str, Any]:
    """A recipe's settings by their dotted paths."""
    if not isinstance(node, dict):
        return {path: node}
    return {key: value for name, part in node.items() for key, value in leaves(part, f"{path}.{name}").items()}


def test_momentum_is_cycled_where_the_source_s_scheduler_does_it() -> None:
    at_peak = {"fbf-cifar10": 0.5, "nfgsm-cifar10": 0.5, "nuat-wa-h-cifar10": 0.25, "nuat-h-cifar10": 20 / 55}
    for name, peak in at_peak.items():
        assert packaged(name).schedule.momentum(0.0) == 0.9
        assert packaged(name).schedule.momentum(peak) == pytest.approx(0.8)
    assert packaged("gradalign-cifar10").schedule.momentum(0.4) is None


@pytest.mark.parametrize(
    ("name", "before", "after", "first"), [("gat-mnist", 25.5, 26.5, 15), ("gat-cifar10", 85.5, 86.5, 10)]
)
def test_gat_s_lam_jumps_with_the_rate(name: str, before: float, after: float, first: int) -> None:
    """15 to 45 on MNIST, 10 to 40 on CIFAR-10; the attack leaves it out of an epoch's first batch on CIFAR-10 alone."""
    made = recipe(name)
    method = made.method
    assert isinstance(method, GAT)
    for at, lam in ((before, first), (after, first + 30)):
        method.progress = at / made.epochs
        assert float(method.lam_now) == lam and float(method.guides) == (name == "gat-mnist")


def test_free_takes_the_source_s_80_000_steps() -> None:
    made = packaged("free-cifar10")
    steps = made.epochs * -(-49_000 // made.batch_size) * made.method.replays
    assert steps == 79_664 and abs(steps - 80_000) < 383 * 8 / 2  # no other number of epochs is nearer


def test_dat_switches_where_the_slides_hours_put_it() -> None:
    """155 epochs: natural 2.2 hours, RAT 14.7, DAT 7.8; stopped early, DAT 4.1 and RAT 10.9."""
    made = recipe("dat-cifar10")
    method = made.method
    assert isinstance(method, Delayed) and isinstance(method.switch_epoch, int)
    natural, adversarial, switch = 2.2 / 155, 14.7 / 155, method.switch_epoch
    assert switch * natural + (155 - switch) * adversarial == pytest.approx(7.8, abs=0.05)
    assert switch * natural + (116 - switch) * adversarial == pytest.approx(4.1, abs=0.05)
    assert 115 * adversarial == pytest.approx(10.9, abs=0.05)
    method.start(Plan(epochs=155, steps=155, images=1, first_drop=made.schedule.first_drop))
    first, method.progress = 0, 0.0
    while method.now is method.before:
        method.progress = first / 155
        method.after_epoch({"epoch": first, "terms": {"clean": torch.tensor(0.1)}})
        first += 1
    assert first == 86


@pytest.mark.parametrize(
    ("words", "epochs", "drops"),
    [
        ("pgd-cifar10", 110, (100, 105)),
        ("pgi-cifar10", 110, (100, 105)),
        ("trades-cifar10", 110, (100, 105)),
        ("trades-cifar10 --epochs 76 --schedule.milestones [74/76]", 76, (74,)),
        ("dat-cifar10", 155, (100,)),
        ("nuat-h-cifar10 --epochs 55", 55, (41, 46)),
        ("gat-cifar10", 100, (71, 86)),
        ("trades-awp-cifar10", 200, (99, 149)),
    ],
)
@pytest.mark.parametrize("steps", [351, 391])
def test_a_rate_drops_with_the_first_step_of_an_epoch(
    words: str, epochs: int, drops: tuple[int, ...], steps: int
) -> None:
    made = recipe(words)
    assert made.epochs == epochs
    for drop in drops:
        before, first = (made.schedule.factor((drop * steps + step) / (epochs * steps)) for step in (-1, 0))
        assert first == pytest.approx(made.schedule.gamma * before)  # type: ignore[attr-defined]


def test_pgi_s_labels_are_the_source_s() -> None:
    """0.6 on the true class and 0.4 / 9 on each other one."""
    method = packaged("pgi-cifar10").method
    assert isinstance(method, PGI)
    assert 1 - method.smoothing + method.smoothing / 10 == pytest.approx(0.6)
    assert method.smoothing / 10 == pytest.approx(0.4 / 9)
    method = packaged("pgi-cifar100").method  # 0.6 on the true class and 0.4 / 99 on each other one
    assert isinstance(method, PGI)
    assert 1 - method.smoothing + method.smoothing / 100 == pytest.approx(0.6)
    assert method.smoothing / 100 == pytest.approx(0.4 / 99)


def test_imagenet_s_recipes_crop_as_is_usual_there() -> None:
    for name, eps in (("nuat-imagenet100", 8 / 255), ("gat-imagenet100", 8 / 255), ("nuat-imagenet", 4 / 255)):
        made = packaged(name)
        assert (made.image_size, made.resize, made.crop, float(made.eps or 0)) == (224, 256, "resized", eps)
    with torch.device("meta"):
        made = packaged("nuat-imagenet")
        net = models.create(made.model, 1000, (3, 224, 224), **made.model_settings)
    assert sum(each.numel() for each in net.parameters()) == 25_557_032  # torchvision's ResNet-50


def test_a_baseline_that_collapses_is_not_rescued() -> None:
    assert {name for name in settings.recipes() if packaged(name).watch != "rescue"} == {
        "fgsm-mnist",
        "fgsm-cifar10",
        "fgsm-cifar100",
    }


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("dat-cifar10", "--method.switch_epoch auto", {"method.switch_epoch": "auto", "method.after.attack.steps": 10}),
        ("dat-cifar10", "--stop_epoch 116", {"stop_epoch": 116, "epochs": 155}),
        ("dat-cifar10", "--method PGDAT --method.steps 10 --method.step_size 2/255", {"method.attack.steps": 10}),
        ("dat-mnist", "--method PGDAT --method.steps 40 --method.step_size 0.01", {"method.attack.steps": 40}),
        ("pap-cifar10", "--method.lam 0 --method.ablation true", {"method.ablation": True, "method.steps": 7}),
        (
            "rmgm-mnist",
            "--method.lam 0 --method.cross_entropy_on both --method.start_size 0.15",
            {"method.cross_entropy_on": "both", "method.start_size": 0.15, "method.lam": 0},
        ),
        ("rmgm-cifar10", "--method.lam 0 --method.cross_entropy_on both", {"method.cross_entropy_on": "both"}),
        ("awp-cifar10", "--model wrn-34-10", {"model": "wrn-34-10", "method.gamma": 0.01}),
        ("pgi-cifar10", "--method.prior epoch", {"method.prior": "epoch", "method.lam": 10}),
        ("pgi-cifar10", "--method.prior batch", {"method.prior": "batch"}),
        (
            "free-cifar10",
            "--model preact-resnet18 --epochs 10 --crop 4 --optimizer.lr 0.04 --optimizer.weight_decay 5e-4 "
            "--schedule Cyclic --schedule.cycle_momentum true --method.clamp delta",
            {
                "optimizer.lr": 0.04,
                "optimizer.momentum": 0.9,
                "schedule.peak": 0.5,
                "method.replays": 8,
                "method.clamp": "delta",
            },
        ),
        ("free-mnist", "--method.clamp image", {"method.clamp": "image", "method.replays": 8}),
        ("free-mnist", "--method.replays 15 --method.step_size 0.01", {"method.replays": 15, "method.step_size": 0.01}),
    ],
)
def test_what_a_comment_proposes_can_be_run(name: str, words: str, expected: dict[str, object]) -> None:
    assert words in comment(name)
    made = recipe(f"{name} {words}")
    assert {path: part(made, path) for path in expected} == expected


@pytest.mark.parametrize(
    ("name", "path", "classes", "remember"),
    [
        ("efgsm-mnist", "method", 1, "gradient"),  # as its committed results
        ("efgsm-cifar10", "method", None, "perturbation"),  # as Eq. 12 and 13 are printed
        ("efgsm-trades-cifar10", "crafter", None, "perturbation"),
    ],
)
def test_efgsm_s_recipes_stop_early_and_have_their_form(name: str, path: str, classes: Any, remember: str) -> None:
    found = part(packaged(name).method, path)
    assert (found.stop_drop, found.classes, found.remember) == (0.2, classes, remember)
    assert found.sigma == pytest.approx(float(found.eps) / 2) and "Sec. 3.2" in comment("efgsm-mnist")


def test_efgsm_over_trades_is_efgsm_s_run_on_cifar10_with_the_paper_s_beta() -> None:
    ours, own = packaged("efgsm-trades-cifar10"), packaged("efgsm-cifar10")
    assert part(ours.method, "beta") == 6 and "48.05 %" in comment("efgsm-trades-cifar10")
    for each in ("model", "eps", "epochs", "batch_size", "optimizer", "schedule", "crop", "flip"):
        assert getattr(ours, each) == getattr(own, each), each

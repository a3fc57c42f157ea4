"""Attacks and models that others wrote: what they leave behind, hide, change or cannot do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from commands import toughen
from paths import NETS
from torch import Tensor, nn

import toughen as library
from toughen.attacks import APGD, PGD
from toughen.attacks.base import Attack
from toughen.core.gradients import mode
from toughen.core.objectives import TargetedDLR, TowardsClass
from toughen.core.types import Images, Labels, Norm
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation import pipeline
from toughen.evaluation.fingerprint import fingerprint
from toughen.evaluation.harness import Harness
from toughen.runs.files import read_json

EPS = 0.01
FEW: dict[str, Any] = {"eps": EPS, "depth": "cheap", "details": False}


def normed() -> nn.Sequential:
    """A net with batch norm and dropout, whose statistics are not those of its batches."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 8, 5, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(288, 10))
    net, statistics = nn.Sequential(*layers), cast(Any, layers[1])
    statistics.running_mean.uniform_(-0.2, 0.2)
    statistics.running_var.fill_(0.05)
    return net.eval()


@pytest.fixture
def images(mnist: tuple[Images, Labels]) -> tuple[Images, Labels]:
    """Images that ``normed`` classifies as labelled."""
    x, _ = mnist
    with torch.no_grad():
        return x, normed()(x).argmax(1)


@dataclass(frozen=True)
class Step(Attack):
    """FGSM, with what a stranger's code may do after it."""

    eps: float | None = EPS
    norm: Norm = "linf"
    after: Callable[[nn.Module], Any] = field(default=lambda model: None)
    dtype: torch.dtype = torch.float32

    def __call__(self, model: nn.Module, x: Any, target: Any, noise: Any = None) -> Tensor:
        moved = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(model(moved), target), moved)
        self.after(model)
        x_adv: Tensor = (x + EPS * slope.sign()).clamp(0, 1).to(self.dtype)
        return x_adv


def train_all(model: nn.Module) -> None:
    for module in model.modules():
        module.train()


@torch.no_grad()
def spoil(model: nn.Module) -> None:
    for weight in model.parameters():
        weight.zero_()


def spoil_by_data(model: nn.Module) -> None:
    for weight in model.parameters():
        weight.data.zero_()


def in_training(model: nn.Module) -> None:
    """A pass in training mode, which changes the statistics of batch norm."""
    model.train()
    with torch.no_grad():
        model(torch.rand(8, 1, 28, 28))
    model.eval()


def robust(net: Any, images: tuple[Images, Labels], attack: Attack, **settings: Any) -> dict[str, Any]:
    return library.evaluate(net, images, eps=EPS, attacks={"a": attack}, verdict=False, **settings)


@pytest.mark.parametrize("after", [nn.Module.train, train_all])
def test_the_mode_that_an_attack_leaves_behind_changes_no_number(
    after: Callable[[nn.Module], Any], images: tuple[Images, Labels]
) -> None:
    net = normed()
    x, y = images
    kept = float((net(Step()(net, x, y)).argmax(1) == y).double().mean())  # by hand, in evaluation mode
    assert 0 < kept < 1
    assert robust(net, images, Step(after=after))["robust_accuracy"] == kept
    assert not any(module.training for module in net.modules())


@pytest.mark.parametrize("after", [spoil, spoil_by_data, in_training])
def test_an_attack_that_changes_the_model_is_named_and_the_model_put_back(
    after: Callable[[nn.Module], Any], images: tuple[Images, Labels]
) -> None:
    net = normed()
    before = {name: value.clone() for name, value in net.state_dict().items() if "tracked" not in name}
    with pytest.raises(RuntimeError, match=r"attack a changed \S+ of the model, which was put back: let it attack a"):
        robust(net, images, Step(after=after))
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())


def test_images_of_another_type_are_named(images: tuple[Images, Labels]) -> None:
    with pytest.raises(RuntimeError, match=r"attack a returned images of torch.float64 on cpu: return torch.float32"):
        robust(normed(), images, Step(dtype=torch.float64))


def test_modes_are_restored_in_both_directions() -> None:
    net = normed()
    net[1].train()
    with mode(net, "eval"):
        assert not any(module.training for module in net.modules())
        net.train()
    assert [module.training for module in net] == [False, True, False, False, False, False] and not net.training


ONES = torch.ones(64, dtype=torch.int64)
HOLDING = [PGD(eps=EPS, objective=TowardsClass(ONES)), APGD(eps=EPS, objective=TargetedDLR(ONES))]


@pytest.mark.parametrize("attack", HOLDING)
def test_an_objective_with_a_value_for_each_image_is_refused(attack: Attack, images: tuple[Images, Labels]) -> None:
    """It would be that of other images wherever some are not attacked."""
    with pytest.raises(ValueError, match="attack a has an objective with values for single images"):
        robust(normed(), images, attack)


class Narrow(nn.Module):
    """Takes eight images at most."""

    def __init__(self) -> None:
        super().__init__()
        self.net = normed()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 8:
            raise RuntimeError("too many")
        out: Tensor = self.net(x)
        return out


def test_a_model_that_takes_few_images_at_once_is_told(images: tuple[Images, Labels]) -> None:
    message = r"the model fails on 64 images at once at .*: RuntimeError: too many. Give fewer: --batch-size"
    with pytest.raises(ValueError, match=message):
        robust(Narrow().eval(), images, Step(), batch_size=64)
    assert robust(Narrow().eval(), images, Step(), batch_size=8)["clean_accuracy"] == 1.0


class Squeezing(nn.Module):
    """Loses the first dimension of a batch of one."""

    def __init__(self) -> None:
        super().__init__()
        self.net = normed()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out.squeeze()


def test_a_model_that_fails_in_a_check_keeps_its_results(images: tuple[Images, Labels], tmp_path: Path) -> None:
    found = library.evaluate(Squeezing().eval(), images, attacks=["fgsm"], out=tmp_path / "out", **FEW)
    check = next(each for each in found["checks"] if each["name"] == "the same answer alone")
    assert check["passed"] is False and "ended with an error" in check["sentence"] and found["verdict"] != "sound"
    assert read_json(tmp_path / "out/evaluation.json")["robust_accuracy"] == found["robust_accuracy"]


def test_results_are_kept_where_the_checks_fail(
    images: tuple[Images, Labels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*given: Any) -> Any:
        raise RuntimeError("no")

    monkeypatch.setattr(pipeline, "conclude", failing)
    with pytest.raises(RuntimeError, match="no"):
        library.evaluate(normed(), images, attacks=["fgsm"], out=tmp_path / "out", **FEW)
    found = read_json(tmp_path / "out/evaluation.json")
    assert found["verdict"] is None and found["attacks"].keys() == {"fgsm"} and found["unfinished"]
    monkeypatch.undo()
    again = library.evaluate(normed(), images, attacks=["fgsm"], out=tmp_path / "out", **FEW)
    assert again["verdict"] and again["robust_accuracy"] == found["robust_accuracy"]


SCRIPTS: dict[str, Callable[[nn.Module], Any]] = {
    "script": torch.jit.script,
    "trace": lambda net: torch.jit.trace(net, torch.rand(2, 1, 28, 28)),
    "frozen": lambda net: torch.jit.freeze(torch.jit.script(net)),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SCRIPTS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_script_is_evaluated_as_its_net(kind: str, mnist: tuple[Images, Labels]) -> None:
    net, (x, y) = library.load(NETS / "pgd-at"), mnist
    found = [
        library.evaluate(model, (x[:40], y[:40]), eps=0.3, attacks=["fgsm"], details=False)
        for model in (net, SCRIPTS[kind](net))
    ]
    for name in ("clean_accuracy", "robust_accuracy", "verdict"):
        assert found[0][name] == found[1][name]


class Listed(nn.Module):
    """Keeps its nets in a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = [normed().train()]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.nets[0](x)
        return out


class Holder:
    """No module, with a list of them."""

    def __init__(self) -> None:
        self.nets = [normed().train()]

    def predict(self, x: Tensor) -> Tensor:
        out: Tensor = self.nets[0](x)
        return out


def test_modules_in_training_mode_that_no_one_lists_are_refused(images: tuple[Images, Labels]) -> None:
    for holder, model in ((listed := Listed(), listed), (plain := Holder(), plain.predict)):
        statistics: Any = holder.nets[0][1]
        before = statistics.running_mean.clone()
        with pytest.raises(ValueError, match=r"uses a BatchNorm2d in training mode that is not among its modules"):
            robust(model, images, Step())
        assert torch.equal(statistics.running_mean, before)
        holder.nets[0].eval()
        assert robust(model, images, Step())["clean_accuracy"] == 1.0


def test_a_net_may_choose_the_mode_of_its_own_modules(images: tuple[Images, Labels]) -> None:
    """As a defence by dropout, which is random on purpose."""

    class Random(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = normed()

        def forward(self, x: Tensor) -> Tensor:
            self.net[4].train()
            out: Tensor = self.net(x)
            return out

    assert robust(Random().eval(), images, Step())["clean_accuracy"] > 0


@pytest.mark.slow
def test_exchanged_labels_are_found(tmp_path: Path) -> None:
    """Of a robust net, with the labels of threes and fives exchanged."""
    net, test = library.load(NETS / "pgd-at"), library.data.load("mnist-5k").test
    rows = torch.cat([(test.labels == label).nonzero()[:12, 0] for label in range(10)])
    x, y = test.images[rows], test.labels[rows]
    wrong = torch.where(y == 3, 5, torch.where(y == 5, 3, y))
    for labels, passed in ((y, True), (wrong, False)):
        found = library.evaluate(net, (x, labels), attacks=["fgsm"], eps=0.1, details=False, depth="cheap")
        (check,) = (each for each in found["checks"] if "labels" in each["name"] or "chance" in each["sentence"])
        assert check["passed"] is passed, check
    assert "most images of class 3 are predicted as 5 and most of 5 as 3" in check["sentence"]
    assert found["verdict"] == "doubtful"


def test_images_of_one_name_are_told_apart(images: tuple[Images, Labels], tmp_path: Path) -> None:
    (x, y), net = images, normed()
    for name, rows in (("a", slice(0, 32)), ("b", slice(32, 64)), ("c", slice(0, 32))):
        library.evaluate(net, (x[rows], y[rows]), eps=EPS, attacks=["fgsm"], verdict=False, out=tmp_path / name)
    differ = "The evaluations differ in images or labels, which have the same name"
    assert differ in " ".join(toughen("compare", tmp_path / "a", tmp_path / "b").out.split())
    assert "differ in" not in toughen("compare", tmp_path / "a", tmp_path / "c").out


def test_a_helper_s_code_counts_for_a_stored_state(
    images: tuple[Images, Labels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "deep_helper.py").write_text("FACTOR = 1.0\n")
    (tmp_path / "near_helper.py").write_text("import deep_helper\ndef step(x): return deep_helper.FACTOR * x\n")
    (tmp_path / "own_attack.py").write_text(
        "from dataclasses import dataclass\nimport near_helper\nfrom toughen.attacks.base import Attack\n"
        "@dataclass(frozen=True)\nclass Own(Attack):\n    eps: float | None = 0.1\n    norm: str = 'linf'\n"
        "    def __call__(self, model, x, target, noise=None): return near_helper.step(x)\n"
    )
    own: Any = __import__("own_attack")
    harness = Harness(FixedBatchModel(normed(), 8), *images, torch.arange(64), 0)
    first, again = (fingerprint(harness, {"a": own.Own()}) for _ in range(2))
    (tmp_path / "deep_helper.py").write_text("FACTOR = 2.0\n")
    changed = fingerprint(harness, {"a": own.Own()})
    assert first == again != changed
    for name in ("own_attack", "near_helper", "deep_helper"):
        del sys.modules[name]

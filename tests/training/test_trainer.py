"""The one loop: what it keeps, what it counts, and what chooses the weights."""

from __future__ import annotations

import copy
import gc
import json
import math
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from commands import digits, files, small, state_of, timeless, toughen
from torch import Tensor, nn

from toughen import data, models, runs
from toughen.core.cost import flops
from toughen.core.rng import derive_seed
from toughen.core.types import Batch, Crafted, Images, Labels, Step
from toughen.data import Data
from toughen.evaluation.harness import as_floats
from toughen.methods.base import Method
from toughen.methods.converge_smooth import ConvergeSmooth
from toughen.methods.delayed import Delayed
from toughen.methods.efgsm import EFGSM
from toughen.methods.fast import FBF
from toughen.methods.hybrid import Hybrid
from toughen.methods.liet import LIET
from toughen.methods.nuat import NuAT
from toughen.methods.nuat2 import NuAT2
from toughen.methods.pgi import PGI
from toughen.methods.standard import Standard
from toughen.report.history import read_history
from toughen.runs.files import read_tensors
from toughen.training import SGD, AdamW, Constant, Cyclic, Recipe, train
from toughen.training.averaging import ExponentialAverage
from toughen.training.callbacks.validation import score
from toughen.training.trainer import Trainer
from toughen.training.validation import Validation


def recipe(**settings: Any) -> Recipe:
    base: dict[str, Any] = {"data": str(digits()), "model": "fbf-mnist-cnn", "validation": 10, "batch_size": 16}
    base |= {"method": Standard(), "epochs": 2, "validation_steps": 2, "precision": "fp32", "device": "cpu", **settings}
    return Recipe(**base)


class Watching(Standard):
    """Standard training that keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []
        self.models: list[dict[str, Tensor]] = []
        self.progresses: list[float] = []

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        assert batch is not None and batch.index is not None and model.training
        self.seen.append((x.clone(), batch.index))
        self.progresses.append(self.progress)
        return super().craft(model, x, y, batch)

    def after_step(self, model: nn.Module) -> None:
        self.models.append(copy.deepcopy(model.state_dict()))


def batch_norm_net(num_classes: int) -> nn.Module:
    """A user's own net, named by its import path."""
    layers = [nn.Conv2d(1, 4, 5, stride=3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, num_classes)]
    return nn.Sequential(*layers)


def test_averaging_is_an_exponential_mean_of_all_state(tmp_path: Path) -> None:
    """Batch norm's statistics too; the first update copies; the decay rises as (1 + t) / (10 + t) up to its value."""
    method = Watching()
    train(recipe(method=method, model="test_trainer:batch_norm_net", averaging=0.4), tmp_path / "run")
    mean = {name: value.double() for name, value in method.models[0].items()}
    decays = [2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 0.4, 0.4, 0.4, 0.4]  # of the 2nd to the 10th update
    for decay, state in zip(decays, method.models[1:], strict=True):
        mean = {name: decay * value + (1 - decay) * state[name].double() for name, value in mean.items()}
    last = state_of(tmp_path / "run")
    moving = [name for name in mean if "num_batches" not in name and not name.startswith("normalize")]
    assert len(method.models) == 10 and "net.1.running_var" in moving
    for name in moving:
        torch.testing.assert_close(last[f"average.module.{name}"].double(), mean[name], rtol=1e-5, atol=1e-7)
        assert not torch.equal(last[f"average.module.{name}"], method.models[-1][name])


def test_averaging_takes_whole_numbers_as_they_are() -> None:
    """Rows and columns that a net looks up, a mask and a count: a mean, rounded down, would be another index."""
    model = nn.BatchNorm2d(2)
    model.register_buffer("places", torch.randperm(200, generator=torch.Generator().manual_seed(0)), persistent=False)
    model.register_buffer("mask", torch.tensor([True, False]))
    model.register_buffer("phase", torch.ones(2, dtype=torch.complex64))
    average = ExponentialAverage(model, 0.99)
    places = model.get_buffer("places").clone()
    for t in range(300):
        model.get_buffer("phase").fill_(1j if t else 1)
        model(torch.ones(2, 2, 1, 1))
        average.update_parameters(model)
    taken = average.module
    assert torch.equal(taken.get_buffer("places"), places) and taken.get_buffer("num_batches_tracked") == 300
    assert taken.get_buffer("mask").tolist() == [True, False]
    kept = math.prod(min(0.99, (1 + t) / (10 + t)) for t in range(1, 300))
    expected = torch.full((2,), kept + (1 - kept) * 1j, dtype=torch.complex64)
    torch.testing.assert_close(taken.get_buffer("phase"), expected, rtol=0, atol=1e-5)


def test_averaged_weights_are_the_ones_to_use(tmp_path: Path) -> None:
    settings = {"model": "test_trainer:batch_norm_net", "averaging": 0.75, "validation": 0}
    train(recipe(method=Standard(), **settings), tmp_path / "run")
    saved, last = read_tensors(tmp_path / "run" / runs.WEIGHTS)[0], state_of(tmp_path / "run")
    assert all(torch.equal(value, last[f"average.module.{name}"]) for name, value in saved.items())
    assert runs.read_record(tmp_path / "run").weights == "averaged"
    train(recipe(method=Standard()), tmp_path / "live")
    assert runs.read_record(tmp_path / "live").weights == "live"


def test_one_step_is_the_optimizer_s(tmp_path: Path) -> None:
    """A single batch of all images, no crops: the weights move as a hand-written step of SGD moves them."""
    settings = {"epochs": 1, "validation": 0, "batch_size": 80, "schedule": Constant(), "normalize": False}
    method = Watching()
    train(
        recipe(method=method, optimizer=SGD(lr=0.1, weight_decay=0.01), channels_last=False, **settings),
        tmp_path / "run",
    )
    (x, index), train_set = method.seen[0], data.load(str(digits())).train
    assert torch.equal(x, as_floats(train_set.images[index])) and sorted(index.tolist()) == list(range(80))
    torch.manual_seed(derive_seed("weights", 0))
    net = models.create("fbf-mnist-cnn", 10, (1, 28, 28))
    F.cross_entropy(net(x), train_set.labels[index]).backward()
    expected = {
        name: p.detach() - 0.1 * (p.grad + 0.01 * p.detach())
        for name, p in net.named_parameters()
        if p.grad is not None
    }
    for name, value in runs.load(tmp_path / "run").state_dict().items():
        torch.testing.assert_close(value, expected[name])


def test_in_float64_all_that_is_looked_at_is_float64(tmp_path: Path) -> None:
    """Validation and the watch's signal too, of a net that casts nothing itself; accuracies are those of float32."""
    found = []
    for precision in ("fp64", "fp32"):
        settings = {"method": FBF(eps=0.1), "eps": 0.1, "normalize": False, "log_every": 1, "seed": 3}
        train(recipe(precision=precision, **settings), tmp_path / precision)
        found.append([line["validation"] for line in runs.read_history(tmp_path / precision)])
    assert found[0] == found[1] and found[0][-1].keys() == {"clean", "fgsm", "pgd"}


def test_every_image_once_an_epoch_in_a_new_order_and_never_a_validation_image(tmp_path: Path) -> None:
    method = Watching()
    train(recipe(method=method), tmp_path / "run")
    epochs = [torch.cat([index for _, index in method.seen[i : i + 5]]) for i in (0, 5)]
    assert [len(index) for _, index in method.seen] == [16, 16, 16, 16, 6] * 2
    assert all(sorted(epoch.tolist()) == list(range(70)) for epoch in epochs) and not torch.equal(*epochs)
    assert method.progresses == [step / 10 for step in range(10)]
    whole = data.load(str(digits()))
    kept, held_out, _ = whole.split(10, 0)
    shown = {image.numpy().tobytes() for x, _ in method.seen for image in x.mul(255).round().to(torch.uint8)}
    assert shown == {image.numpy().tobytes() for image in kept.images}
    assert not shown & {image.numpy().tobytes() for image in held_out.images}
    assert held_out.labels.bincount().tolist() == [1] * 10


def test_noise_is_every_step_s_own(tmp_path: Path) -> None:
    class Drawing(Standard):
        drawn: list[float]

        def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
            assert batch is not None and batch.noise is not None
            self.drawn.append(float(batch.noise.uniform(x[:1, :1, :1, :1])))
            return super().craft(model, x, y, batch)

    def drawn(name: str, **settings: Any) -> list[float]:
        method = Drawing()
        method.drawn = []
        train(recipe(method=method, **settings), tmp_path / name)
        return method.drawn

    first = drawn("one")
    assert len(set(first)) == 10 and drawn("two") == first and not set(drawn("three", seed=1)) & set(first)


def test_crops_and_flips_are_off_for_grey_images_unless_asked_for(tmp_path: Path) -> None:
    method = Watching()
    train(recipe(method=method, crop=2, flip=True, epochs=1), tmp_path / "run")
    images = data.load(str(digits())).split(10, 0)[0].images
    moved = [
        not torch.equal(a, b) for x, index in method.seen for a, b in zip(x, as_floats(images[index]), strict=True)
    ]
    assert sum(moved) > 0.9 * len(moved)


def test_test_images_choose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = small("--method", "FBF", "--eps", 0.2)
    assert toughen(*words, "--out", tmp_path / "one").status == 0
    load = data.load_training

    def noise_for_tests(*arguments: Any, **settings: Any) -> Data:
        made = load(*arguments, **settings)
        assert isinstance(made, Data)
        made.test.images.random_(0, 256)
        return made

    monkeypatch.setattr("toughen.training.build.data_sets.load_training", noise_for_tests)
    assert toughen(*words, "--out", tmp_path / "two").status == 0
    assert timeless(tmp_path / "one") == timeless(tmp_path / "two")
    assert files(tmp_path / "one")[runs.WEIGHTS] == files(tmp_path / "two")[runs.WEIGHTS]


@pytest.mark.parametrize(
    ("weights", "chosen", "written"), [("best", 2, [True, True, True, False, False]), ("last", 4, [True] * 5)]
)
def test_the_weights_kept_are_those_of_the_first_highest_pgd_accuracy_or_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str, chosen: int, written: list[bool]
) -> None:
    scores = [(0.9, 0.2), (0.5, 0.6), (0.8, 0.6), (0.8, 0.6), (0.99, 0.5)]  # clean, pgd; a tie is clean's
    seen: list[dict[str, Tensor]] = []

    def scripted(self: Validation, model: nn.Module) -> dict[str, float]:
        clean, pgd = scores[len(seen)]
        seen.append(copy.deepcopy(model.state_dict()))
        return {"clean": clean, "fgsm": 1.0, "pgd": pgd}

    monkeypatch.setattr(Validation, "__call__", scripted)
    words = small("--method", "FBF", "--eps", 0.2, "--epochs", 5, "--weights", weights, "--out", tmp_path / "run")
    assert toughen(*words).status == 0
    assert [line["kept"] for line in timeless(tmp_path / "run")] == written
    record = runs.read_record(tmp_path / "run")
    clean, pgd = scores[chosen]
    assert (record.epoch, record.validation) == (chosen, {"clean": clean, "fgsm": 1.0, "pgd": pgd})
    saved = runs.load(tmp_path / "run").state_dict()
    assert all(torch.equal(saved[name], seen[chosen][name]) for name in saved)
    assert not all(torch.equal(saved[name], seen[6 - chosen][name]) for name in saved)


def test_scores() -> None:
    assert score({"clean": 0.5}) == (0.5, 0.5) and score({"clean": 0.5, "fgsm": 0.9, "pgd": 0.1}) == (0.1, 0.5)


@pytest.mark.parametrize(
    ("words", "passes", "terms"),
    [
        ("--method Standard", 3, {"clean"}),
        ("--method FBF --eps 0.2", 5, {"robust"}),
        ("--method NuAT --eps 0.2", 8, {"clean", "nuclear"}),
        ("--method PGDAT --method.steps 10 --eps 0.2", 23, {"robust"}),
        (
            "--method TRADES --method.steps 10 --eps 0.2",
            27,
            {"clean", "robust"},
        ),  # a target, ten steps, two trained passes
    ],
)
def test_a_line_an_epoch(words: str, passes: int, terms: set[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert toughen(*small(*words.split(), "--out", run)).status == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1] and [line["step"] for line in lines] == [5, 10]
    for line in lines:
        assert {
            "lr",
            "loss",
            "accuracy",
            "terms",
            "passes",
            "flops",
            "seconds",
            "images_per_second",
            "validation",
        } <= set(line)
        assert line["passes"] == passes and line["terms"].keys() >= terms
        assert 0 <= line["accuracy"] <= 1 and line["seconds"] > 0
        assert line["images_per_second"] == pytest.approx(70 / line["seconds"], rel=0.05)
        threatened = words != "--method Standard"
        assert line["validation"].keys() == ({"clean", "fgsm", "pgd"} if threatened else {"clean"})
    # two convolutions and two linear layers, a multiply-add is two operations
    forward = 2 * (14 * 14 * 16 * 16 + 7 * 7 * 32 * 16 * 16 + 1568 * 100 + 100 * 10)
    assert lines[0]["flops"] == forward * passes * 70
    # the rate of the epoch's last step: a triangle of ten steps, up to 0.05 after a quarter
    assert [line["lr"] for line in lines] == pytest.approx([0.05 * (1 - 0.15 / 0.75), 0.05 * (1 - 0.65 / 0.75)])
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))


def test_the_passes_of_an_epoch_are_those_of_all_its_steps(tmp_path: Path) -> None:
    """Free takes each batch several times; a time budget may end in an epoch; a last batch of one image is left out."""
    found = {}
    for name, words in (
        ("replays", "--method Free --method.replays 4 --eps 0.1 --watch off"),
        ("standard", "--method Standard"),
        ("one left", "--method Standard --batch_size 23"),
    ):
        assert toughen(*small(*words.split(), "--out", tmp_path / name)).status == 0
        found[name] = [(line["passes"], line["epoch_passes"]) for line in runs.read_history(tmp_path / name)]
    assert found == {"replays": [(3, 12)] * 2, "standard": [(3, 3)] * 2, "one left": [(3, 3 * 69 / 70)] * 2}
    assert read_history((tmp_path / "replays" / "metrics.jsonl").read_bytes().splitlines()).all_passes == 24


def test_figures_are_means_over_images(tmp_path: Path) -> None:
    """The last batch is short; each image counts alike."""
    given = iter([1.0, 2.0, 3.0, 4.0, 10.0] * 2)

    class Scripted(Standard):
        def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
            step = super().loss(model, x, y, crafted)
            value = next(given)
            return Step(step.loss * 0 + value, F.one_hot(y, 10).float(), {"clean": torch.tensor(value / 2)})

    train(recipe(method=Scripted()), tmp_path / "run")
    line = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[0])
    mean = (16 * (1 + 2 + 3 + 4) + 6 * 10) / 70
    assert line["loss"] == pytest.approx(mean) and line["terms"]["clean"] == pytest.approx(mean / 2)
    assert line["accuracy"] == 1


@pytest.mark.parametrize("replays", [1, 2])
def test_an_image_that_would_make_a_batch_of_its_own_is_left_out_of_the_epoch(replays: int, tmp_path: Path) -> None:
    method = Watching()
    method.replays = replays
    train(recipe(method=method, batch_size=23), tmp_path / "run")  # 70 are 3 x 23 + 1
    assert [len(x) for x, _ in method.seen] == [23] * 6 * replays
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3 * replays, 6 * replays]
    rows = [row for _, index in method.seen for row in index.tolist()]
    first, second = set(rows[: len(rows) // 2]), set(rows[len(rows) // 2 :])
    assert len(first) == len(second) == 69 and first != second  # another one is left out


def test_replays_train_on_the_same_images_again(tmp_path: Path) -> None:
    class Twice(Watching):
        replays = 2

    method = Twice()
    train(recipe(method=method, epochs=1, crop=2), tmp_path / "run")
    assert len(method.seen) == 10
    for first, second in zip(method.seen[::2], method.seen[1::2], strict=True):
        assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_a_method_may_end_a_run(tmp_path: Path) -> None:
    class Ends(Standard):
        def after_epoch(self, metrics: dict[str, Any]) -> None:
            self.stop_reason = "enough"

    train(recipe(method=Ends(), epochs=5), tmp_path / "run")
    assert len(timeless(tmp_path / "run")) == 1


@pytest.mark.parametrize(
    "method",
    [
        lambda: Delayed(after=FBF(eps=0.2), switch_epoch=1),
        lambda: ConvergeSmooth(inner=FBF(eps=0.2), gamma=0.0, stride=0),
    ],
)
def test_a_recipe_that_is_trained_again_begins_anew(method: Callable[[], Method], tmp_path: Path) -> None:
    again = recipe(method=method(), eps=0.2, optimizer=SGD(lr=0.3))
    lines = [(train(again, tmp_path / name) / "metrics.jsonl").read_text().splitlines() for name in ("one", "two")]
    assert [json.loads(line)["terms"] for line in lines[0]] == [json.loads(line)["terms"] for line in lines[1]]


@pytest.mark.parametrize(
    ("method", "left"),
    [
        (Hybrid(cheap=NuAT(eps=0.2)), {"use_strong": True, "last_mean": 1.0, "seen": 3}),
        (EFGSM(eps=0.2), {"last_share": 0.9, "stop_reason": "it fell"}),
        (NuAT2(eps=0.2), {"averaged": True, "use_average": True}),
        (NuAT(eps=0.2), {"iteration": 3}),
        (LIET(eps=0.2), {"iteration": 3}),
        (PGI(eps=0.2), {"epoch": 3}),
    ],
)
def test_a_method_that_is_prepared_again_begins_anew(method: Method, left: dict[str, Any]) -> None:
    method.prepare(nn.Linear(4, 3), (1, 2, 2), 3, 5)
    before = method.get_extra_state()
    for name, value in left.items():
        setattr(method, name, value)
    assert method.get_extra_state() != before
    method.prepare(nn.Linear(4, 3), (1, 2, 2), 3, 5)
    assert method.get_extra_state() == before


def test_a_method_s_own_weights_are_trained_and_kept(tmp_path: Path) -> None:
    class Scaled(Standard):
        def prepare(
            self, model: nn.Module, shape: tuple[int, int, int], classes: int, images: int | None = None
        ) -> None:
            super().prepare(model, shape, classes, images)
            assert (shape, classes, images) == ((1, 28, 28), 10, 70)
            self.scale = nn.Parameter(torch.ones(()))

        def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
            step = super().loss(model, x, y, crafted)
            return Step(step.loss * self.scale, step.logits, step.terms)

    method = Scaled()
    train(recipe(method=method, optimizer=AdamW()), tmp_path / "run")
    assert float(method.scale.detach()) != 1
    assert float(state_of(tmp_path / "run")["method.scale"]) == float(method.scale.detach())


def test_a_failing_method_leaves_no_half_epoch(tmp_path: Path) -> None:
    class Fails(Standard):
        def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
            if self.progress >= 0.7:
                raise RuntimeError("of the method's own")
            return super().craft(model, x, y, batch)

    with pytest.raises(RuntimeError, match="of the method's own"):
        train(recipe(method=Fails()), tmp_path / "run")
    assert len(timeless(tmp_path / "run")) == 1 and runs.load(tmp_path / "run")


def test_the_schedule_sets_rate_and_momentum_of_each_step(tmp_path: Path) -> None:
    found: list[float] = []
    trainer = made(tmp_path, optimizer=SGD(lr=0.2), schedule=Cyclic(cycle_momentum=True))
    for progress in (0.0, 0.25, 0.5):
        trainer.recipe.schedule.set(trainer.optimizer, trainer.recipe.optimizer.lr, progress)
        group = trainer.optimizer.param_groups[0]
        found += [group["lr"], group["momentum"]]
    assert found == pytest.approx([0.0, 0.9, 0.1, 0.85, 0.2, 0.8])
    trainer = made(tmp_path, optimizer=AdamW(beta1=0.7), schedule=Cyclic(cycle_momentum=True))
    trainer.recipe.schedule.set(trainer.optimizer, trainer.recipe.optimizer.lr, 0.5)
    assert trainer.optimizer.param_groups[0]["betas"] == (0.8, 0.999)
    trainer = made(tmp_path, optimizer=AdamW(beta1=0.7))
    trainer.recipe.schedule.set(trainer.optimizer, trainer.recipe.optimizer.lr, 0.5)
    assert trainer.optimizer.param_groups[0]["betas"] == (0.7, 0.999)


def made(folder: Path, method: Method | None = None, **settings: Any) -> Trainer:
    """A trainer that has not begun."""
    whole = data.load(str(digits()))
    net = models.create("fbf-mnist-cnn", 10, (1, 28, 28))
    record = runs.Record(
        model=models.describe("fbf-mnist-cnn", 10, (1, 28, 28), None, None, {}), classes=list(whole.classes),
        shape=[1, 28, 28], norm="linf", eps=None, method="Standard", data=str(digits()), weights="live", epoch=-1,
        validation={},
    )  # fmt: skip
    return Trainer(recipe(method=method or Standard(), **settings), whole, net, folder, record)


def test_a_seed_decides_everything(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        torch.manual_seed(len(name))  # torch's global generator has no say
        train(recipe(method=NuAT(eps=0.2), seed=seed, crop=2), tmp_path / name)
    one, two, three = (files(tmp_path / name)[runs.WEIGHTS] for name in ("one", "two", "three"))
    assert one == two != three


def test_a_trainer_is_freed_with_its_last_name(tmp_path: Path) -> None:
    trainer = made(tmp_path, NuAT(eps=0.2))
    x, y, batch = next(trainer.epoch_batches(0))
    trainer.counted_step(x, y, batch)
    known = weakref.ref(trainer)
    gc.collect()
    gc.disable()
    try:
        del trainer
        assert known() is None  # a cycle would hold its net until a collection
    finally:
        gc.enable()


def test_flops_of_a_layer_by_hand() -> None:
    assert flops(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), torch.rand(1, 3, 2, 2)) == 2 * 12 * 5


def test_loaded_weights_normalize_inside_and_are_in_evaluation_mode(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert toughen(*small("--model", "small-cnn", "--validation", 0, "--epochs", 1, "--out", run)).status == 0
    net, x = runs.load(str(run)), as_floats(data.load(str(digits())).test.images)
    assert not any(module.training for module in net.modules())
    assert torch.equal(net(x), net(x))  # no dropout
    mean, std = data.load(str(digits())).statistics()
    inner = net.get_submodule("net")
    torch.testing.assert_close(net(x), inner((x - mean[0]) / std[0]))


STREAMED = "training images are streamed: they stay in their files and are decoded batch by\n  batch\n"


@pytest.mark.parametrize(("limit", "streamed"), [("1GB", ""), ("70KB", STREAMED)])
def test_it_is_said_which_images_are_kept_apart_as_test_images(limit: str, streamed: str, tmp_path: Path) -> None:
    whole = toughen(*small("--method", "FBF", "--eps", 0.2, "--memory_limit", limit, "--out", tmp_path / "whole"))
    assert f"70 images + 10 to choose the weights\n{streamed}2 epochs of" in whole.err
    shutil.copytree(digits() / "train", tmp_path / "images")
    ended = toughen(*small("--data", tmp_path / "images", "--memory_limit", limit, "--out", tmp_path / "run"))
    said = "62 images + 10 to choose the weights + 8 for the test, because"
    told = " ".join(ended.err.split())
    assert (
        ended.status == 0 and said in told and f"{tmp_path / 'images'} has no test images 2 epochs" in told
    )  # 63 KB: in memory
    assert toughen(*small("--data", tmp_path / "images", "--out", tmp_path / "run", "--resume")).status == 0


@pytest.mark.parametrize("clean", [0.1, 0.16, 0.17, 0.9])
def test_a_net_that_ends_at_chance_level_is_said_to(
    clean: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """20 images of ten classes: 0.1, and one standard error, sqrt(0.1 x 0.9 / 20) = 0.067."""
    found = {"clean": clean, "fgsm": 0.0, "pgd": 0.0}
    monkeypatch.setattr("toughen.training.validation.Validation.__call__", lambda self, model: found)
    how = ("--optimizer.lr", 0.1, "--validation", 20, "--watch", "off")
    words = small("--method", "NuAT", "--eps", 0.2, *how, "--out", tmp_path / "run")
    ended = toughen(*words)
    assert ended.status == 0, ended.err
    told = " ".join(ended.err.split())
    right = f"classify {100 * clean:.1f} % of the 20 validation images correctly."
    said = f"{right} Always predicting the most frequent class gives 10.0 %"
    assert (said in told) is (clean < 0.167)
    for option in ("--optimizer.lr, now 0.1", "--eps (now 0.2)", "--eps-warmup, now 0", "--method.lam, now 4"):
        assert (option in told) is (clean < 0.167), option


def test_a_tenth_of_the_training_images_validates_by_default(tmp_path: Path) -> None:
    trainer = made(tmp_path, validation=None)
    assert len(trainer.state.validation.split) == 8 and len(trainer.train) == 72

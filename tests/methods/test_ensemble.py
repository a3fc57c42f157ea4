"""EAT against numbers worked out by hand and against its steps written out, and what its sources must be."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from commands import small, toughen
from contract import EPS, batch, net, prepared, source_run, train
from kills import Killed, kill_at_step
from literal import Pixels, close, cross_entropy, pair, same_step, sign_of_slope, two_pixels
from safetensors.torch import load_file
from torch import Tensor, nn

from toughen import models, runs
from toughen.core.cost import PassCounter
from toughen.core.rng import Noise
from toughen.core.types import Batch, Images, Labels
from toughen.methods.awp import AWP
from toughen.methods.ensemble import Ensemble
from toughen.training import Recipe
from toughen.training.sources import missing_sources
from toughen.training.trainer import Trainer

E = 0.1
OWN, FIRST = 0.99, 0.01  # draws out of [0, 1): the model itself, whatever the number of sources, and the first source
RATIO = 1218768 / 28416  # operations of a forward pass of the source and of the contract's net, counted by hand:
# source: 2 (14 14 16 16 + 7 7 32 256 + 1568 100 + 100 10); net: 2 (8 8 6 25 + 3 3 8 54 + 72 10)


def other_run(folder: Path, seed: int = 1, **fields: Any) -> Path:
    """A run directory with an untrained net of the same kind; ``fields`` change what its record says."""
    record = replace(runs.read_record(source_run()), **fields)
    torch.manual_seed(seed)
    shape = (record.shape[0], record.shape[1], record.shape[2])
    net = ("fbf-mnist-cnn", len(record.classes), shape)
    folder.mkdir()
    model = models.describe(*net, None, None, {})
    runs.write_model(folder, replace(record, model=model), models.create(*net))
    return folder


class Drawn(Noise):
    """Noise whose shared draws begin with about this number, 0..1."""

    def __init__(self, share: float) -> None:
        self.seed = next(
            seed for seed in range(10**5) if abs(float(torch.rand((), generator=seeded(seed))) - share) < 5e-3
        )

    def shared(self) -> torch.Generator:
        return seeded(self.seed)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawing(share: float) -> Batch:
    """A batch that draws this number."""
    return Batch(noise=Drawn(share))


# ---- By hand: the model's logits are the two pixels.


class Sum(nn.Module):
    """Logits (a + b, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x.flatten(1).sum(1), x.new_zeros(len(x))], 1)


@pytest.mark.parametrize(("share", "x_adv"), [(OWN, (0.5, 0.5)), (FIRST, (0.5, 0.0))])
def test_one_image_by_hand(share: float, x_adv: tuple[float, float]) -> None:
    # x = (3/4, 1/4), label 1. The model takes it for 0, so FGSM lowers a and raises b, towards the label. The source
    # takes it for 0 as well and lowers a + b. The loss is half of ln(1 + e^(a - b)) at x and half at x_adv.
    model, x, y = Pixels(), two_pixels((0.75, 0.25)), torch.tensor([1])
    method = Ensemble(eps=0.25, sources=["given below"])
    method.nets.append(Sum())
    assert close(method.craft(model, x, y, drawing(share)).x_adv, two_pixels(x_adv))
    step = method.loss(model, x, y, method.craft(model, x, y, drawing(share)))
    step.loss.backward()
    clean, robust = (torch.tensor(a - b, dtype=torch.float64) for a, b in ((0.75, 0.25), x_adv))
    assert close(step.terms["clean"], (1 + clean.exp()).log()) and close(step.terms["robust"], (1 + robust.exp()).log())
    assert close(step.loss.detach(), (step.terms["clean"] + step.terms["robust"]) / 2)
    assert close(step.logits.detach(), torch.tensor([[0.75, 0.25]], dtype=torch.float64))
    p, q = clean.sigmoid() / 2, robust.sigmoid() / 2
    first = p * torch.tensor([0.75, 0.25], dtype=torch.float64) + q * torch.tensor(x_adv, dtype=torch.float64)
    assert model.weight.grad is not None and close(model.weight.grad, torch.stack([first, -first]))


# ---- Written out: two sources and the model, over steps that draw each.


def written_source(folder: Path) -> Callable[[Tensor], Tensor]:
    """The net of FBF's MNIST script as formulas over the weights in a run's file."""
    w = {name: weight.double() for name, weight in load_file(folder / "model.safetensors").items()}
    (one, a), (two, b), (three, c), (four, d) = ((w[f"{name}.weight"], w[f"{name}.bias"]) for name in (0, 2, 5, 7))

    def forward(x: Tensor) -> Tensor:
        x = F.conv2d(x, one, a, stride=2, padding=1).clamp(min=0)
        x = F.conv2d(x, two, b, stride=2, padding=1).clamp(min=0)
        return (x.flatten(1) @ three.T + c).clamp(min=0) @ four.T + d

    return forward


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_run_equals_the_algorithm_written_out(mode: Any, tmp_path: Path, mnist: tuple[Images, Labels]) -> None:
    (model, written), x, y = pair(), mnist[0][:16].double(), mnist[1][:16]
    folders = [source_run(), other_run(tmp_path / "other")]
    method = Ensemble(eps=E, sources=[str(folder) for folder in folders], mode=mode)
    method.prepare(model, (1, 28, 28), 10)
    own = written.training if mode == "train" else written.evaluation
    candidates = [*map(written_source, folders), own]
    for share, drawn in ((0.005, 0), (0.7, 2), (0.35, 1), (0.32, 0), (0.65, 1), (0.99, 2)):  # in thirds

        def predicted(z: Tensor, drawn: int = drawn) -> Tensor:
            out = candidates[drawn](z)
            return cross_entropy(out, out.argmax(1))

        x_adv = (x + E * sign_of_slope(predicted, x)).clamp(0, 1)
        assert ((x_adv - x).abs() > E / 2).double().mean() > 0.2  # no source is dead
        expected = (cross_entropy(written.training(x), y) + cross_entropy(written.training(x_adv), y)) / 2
        crafted = method.craft(copy.deepcopy(model), x, y, drawing(share))
        assert close(crafted.x_adv, x_adv) and not crafted.x_adv.requires_grad, drawn
        model.zero_grad()
        same_step(model, method(model, x, y, drawing(share)).loss, written, expected)
        with torch.no_grad():
            for (name, weight), copied in zip(model.named_parameters(), written.weights.values(), strict=True):
                assert weight.grad is not None, name
                weight.sub_(0.05 * weight.grad)
                copied.copy_(weight)
        method.after_step(model)


def test_each_source_is_drawn_as_often_as_the_others(tmp_path: Path, mnist: tuple[Images, Labels]) -> None:
    model, (x, y) = net(), mnist
    method = prepared("Ensemble", model, sources=[str(source_run()), str(other_run(tmp_path / "other"))])
    drawn: Counter[int] = Counter()
    for number, each in enumerate([*method.companions(), model]):
        each.register_forward_hook(lambda *_, number=number: drawn.update([number]))
    for step in range(300):  # expected 100 each, standard deviation 8
        method.craft(model, x[:1], y[:1], batch(1, step))
    assert sum(drawn.values()) == 300 and all(70 < drawn[number] < 130 for number in range(3))
    again = drawn.copy()
    drawn.clear()
    for step in range(300):
        method.craft(model, x[:1], y[:1], batch(1, step))
    assert drawn == again  # keyed by the step


# ---- Sources.


def test_sources_never_change_and_are_no_part_of_what_is_trained_or_saved(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method = prepared("Ensemble", model)
    (source,) = method.companions()
    before, file = copy.deepcopy(dict(source.named_buffers())), load_file(source_run() / "model.safetensors")
    assert {name: tuple(value.shape) for name, value in file.items()} == {n: tuple(v.shape) for n, v in before.items()}
    train(method, model, x, y, 8)  # six of the model's own, two of the source's
    assert all(torch.equal(value, file[name]) for name, value in source.named_buffers())
    assert not list(method.parameters())
    (kept,) = method.state_dict().values()  # not the nets, only what they are known by again
    assert kept.keys() == {"sources"} and len(kept["sources"]) == 1 and len(kept["sources"][0]) == 32
    assert not any(module.training for module in source.modules())
    assert not any(value.requires_grad for value in source.buffers())
    twin = copy.deepcopy(method)
    assert len(twin.companions()) == 1 and twin.companions()[0] is not source


@pytest.mark.parametrize(("step", "ratio"), [(0, 1), (6, RATIO)])
def test_a_step_costs_the_drawn_sources_passes(step: int, ratio: float, mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method = prepared("Ensemble", model)
    with PassCounter(model, method.companions(), x[:1]) as passes:
        method(model, x, y, batch(len(x), step)).loss.backward()
    assert passes.total == pytest.approx((6 + 2 * ratio) * len(x))
    assert passes.crafted == len(x)  # PAP's gamma is 1 for either


def test_images_of_a_source_fool_that_source(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method = prepared("Ensemble", model)
    (source,) = method.companions()
    x_adv = method.craft(model, x, y, batch(len(x), 6)).x_adv
    assert (x_adv - x).abs().max() <= EPS * (1 + 1e-5)
    assert F.cross_entropy(source(x_adv), y) > F.cross_entropy(source(x), y) + 0.5


def test_weights_can_be_perturbed_around_it(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method = AWP(inner=Ensemble(eps=EPS, sources=[str(source_run())]))
    method.prepare(model, (1, 28, 28), 10, 64)
    assert len(method.companions()) == 1
    train(method, model, x, y, 4)
    assert all(weight.isfinite().all() for weight in model.parameters())


# ---- Bad input.


def refused(path: Path, match: str, shape: tuple[int, int, int] = (1, 28, 28), classes: int = 10) -> None:
    method = Ensemble(eps=E, sources=[str(source_run()), str(path)])
    with pytest.raises(ValueError, match=match) as raised:
        method.prepare(net(), shape, classes)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_a_source_that_is_missing_or_no_run_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "there is no run directory .*nowhere")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"has no model\.json: it is not a run directory")
    broken = other_run(tmp_path / "broken")
    (broken / "model.json").write_text("{}")
    refused(broken, "is damaged")
    own = other_run(tmp_path / "own")
    record = json.loads((own / "model.json").read_text())
    record["model"]["name"] = "my.module:net"
    (own / "model.json").write_text(json.dumps(record))
    refused(own, "source .*own cannot be used: ")


def test_a_source_for_other_images_or_classes_is_refused(tmp_path: Path) -> None:
    few = other_run(tmp_path / "few", classes=["cat", "dog"])
    refused(few, r"images of 1 x 28 x 28 in 2 classes, this run of 1 x 28 x 28 in 10: .* same data")
    colour = other_run(tmp_path / "colour", shape=[3, 32, 32])
    refused(colour, r"images of 3 x 32 x 32 in 10 classes, this run of 1 x 28 x 28 in 10")


def test_no_source_and_no_eps_are_refused() -> None:
    with pytest.raises(ValueError, match="Ensemble needs at least one source"):
        Ensemble(eps=E, sources=[])
    with pytest.raises(ValueError, match="Ensemble needs eps"):
        Ensemble(sources=["runs/a"])


NO_NAMES = """
from torch import nn
from toughen.methods import Ensemble
for sources in (nn.Identity(), [nn.Identity()], "runs/a"):
    try:
        Ensemble(eps=0.1, sources=sources)
    except ValueError as error:
        print(error)
"""


def test_sources_that_are_no_list_of_names_are_refused_where_no_type_checker_looks() -> None:
    ended = subprocess.run([sys.executable, "-c", NO_NAMES], capture_output=True, text=True, check=True)
    said = ended.stdout.splitlines()
    assert said == ["sources must be a list of names: run directories of trained nets, or names of nets"] * 3


def test_other_sources_are_refused_when_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = other_run(tmp_path / "first", seed=1), other_run(tmp_path / "other", seed=2)
    words = small("--method", "Ensemble", "--eps", 0.1, "--method.sources", f"[{first}]", "--checkpoint_seconds", 0)
    words += ["--out", tmp_path / "run"]
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_at_step(patched, 3)
        toughen(*words)
    whole = {path.name: path.read_bytes() for path in first.iterdir()}
    for path in other.iterdir():
        (first / path.name).write_bytes(path.read_bytes())
    ended = toughen(*words, "--resume")
    assert ended.status == 2 and f"source {first} have changed" in ended.err, ended.err
    for name, content in whole.items():
        (first / name).write_bytes(content)
    assert toughen(*words, "--resume").status == 0


def test_sources_are_trained_and_named_on_the_command_line(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "ensemble"
    assert toughen(*small("--method", "Standard", "--out", source)).status == 0
    words = ("--method", "Ensemble", "--eps", 0.1, "--out", out, "--method.sources")
    assert toughen(*small(*words, f"[{source}]")).status == 0
    line = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert set(line["terms"]) == {"clean", "robust"}
    assert (out / "model.safetensors").is_file()
    missing = toughen(*small(*words, f"[{tmp_path / 'none'}]", "--out", tmp_path / "second"))
    assert missing.status != 0 and "there is no run directory" in missing.err and "Traceback" not in missing.err
    assert not (tmp_path / "second").exists()


def named(out: Path, *more: object) -> list[object]:
    """A run whose sources are named as nets."""
    words = ("--method", "Ensemble", "--eps", 0.1, "--method.sources", "[fbf-mnist-cnn, m-lenet]")
    return small(*more, *words, "--out", out)


def test_each_run_of_a_recipe_has_its_own_sources(tmp_path: Path) -> None:
    recipe = Recipe(model="fbf-mnist-cnn", method=Ensemble(eps=E, sources=["fbf-mnist-cnn"]))
    for folder in (tmp_path / "one", tmp_path / "two"):
        assert list(missing_sources(recipe, folder)) == [folder / "sources" / "fbf-mnist-cnn"]


def test_sources_that_are_named_as_nets_are_trained_first(tmp_path: Path) -> None:
    assert toughen(*named(tmp_path / "run")).status == 0
    for name in ("fbf-mnist-cnn", "m-lenet"):  # each is what a normal run of half the epochs gives
        alone = small("--model", name, "--epochs", 1, "--seed", 1, "--watch", "off", "--out", tmp_path / name)
        assert toughen(*alone).status == 0
        source = tmp_path / "run" / "sources" / name
        assert (source / "model.safetensors").read_bytes() == (tmp_path / name / "model.safetensors").read_bytes()
    given = [tmp_path / "run" / "sources" / name for name in ("fbf-mnist-cnn", "m-lenet")]
    again = [*named(tmp_path / "again"), "--method.sources", f"[{given[0]}, {given[1]}]"]
    assert toughen(*again).status == 0
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("run", "again")]
    assert weights[0] == weights[1]


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 7, 12])  # of the first source, of the second one, of the run
def test_a_run_killed_while_its_sources_train_goes_on(tmp_path: Path, step: int) -> None:
    assert toughen(*named(tmp_path / "whole")).status == 0
    with pytest.MonkeyPatch.context() as patched, pytest.raises(Killed):
        kill_at(patched, step)
        toughen(*named(tmp_path / "killed"))
    assert toughen(*named(tmp_path / "killed"), "--resume").status == 0
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("whole", "killed")]
    assert weights[0] == weights[1]


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """End at this step out of those of all runs of this process."""
    whole, steps = Trainer.step, iter(range(step + 1))

    def dying(self: Trainer, *arguments: Any) -> Any:
        if next(steps) == step:
            raise Killed
        return whole(self, *arguments)

    monkeypatch.setattr(Trainer, "step", dying)


def test_a_time_budget_is_refused_where_sources_must_be_trained(tmp_path: Path) -> None:
    ended = toughen(*named(tmp_path / "run", "--time-budget", "1m"))
    assert ended.status == 2 and "time_budget does not include the training of the source fbf-mnist-cnn" in ended.err
    assert not (tmp_path / "run").exists()


def test_plan_does_not_train_the_sources(tmp_path: Path) -> None:
    ended = toughen("plan", *named(tmp_path / "run")[1:-2])
    assert ended.status == 0 and "Ensemble" in ended.out, ended.err
    assert not (tmp_path / "run").exists()


def test_a_loop_of_ones_own_is_told_that_a_source_is_not_trained() -> None:
    method = Ensemble(eps=E, sources=["m-lenet"])
    with pytest.raises(ValueError, match="source m-lenet is not trained yet"):
        method.prepare(models.create("m-lenet", 10, (1, 28, 28)), (1, 28, 28), 10)

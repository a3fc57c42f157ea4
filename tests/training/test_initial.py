"""Runs that begin with weights of another run or of a file."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import digits, killed_at, refused, small, state_of, toughen
from PIL import Image
from safetensors.torch import load_file, save_file
from timm_nets import NETS, needs_timm
from torch import Tensor, nn

from toughen import data, models, runs
from toughen.methods.standard import Standard
from toughen.models.normalize import parts_of
from toughen.runs.files import write_tensors
from toughen.runs.weights_file import read_weights
from toughen.training import Recipe
from toughen.training.build import build
from toughen.training.initial import load_into, read_initial, statistics, trained_on


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    assert toughen(*small("--method", "FGSMAT", "--eps", 0.1, "--watch", "off", "--out", folder)).status == 0
    return folder


def begun(tmp_path: Path, **settings: Any) -> tuple[Mapping[str, Tensor], str]:
    """The weights before the first step, and what is said of them."""
    given = {"data": str(digits()), "model": "fbf-mnist-cnn", "validation": 10, **settings}
    trainer, _, about = build(Recipe(method=Standard(), device="cpu", **given), tmp_path / "new")
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}, about.init


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor], but: str = "no such layer") -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name]) and not name.startswith(but)] == []


def test_a_run_goes_on_from_another(run: Path, tmp_path: Path) -> None:
    weights, said = begun(tmp_path, init=str(run), normalize=True)
    same(weights, load_file(run / "model.safetensors"))  # its normalisation, too
    assert said == f"initial weights: those of {run} (FGSMAT, linf eps 0.1)"
    fresh, _ = begun(tmp_path)
    assert [name for name in fresh if name.endswith(".weight") and torch.equal(fresh[name], weights[name])] == []
    exported = tmp_path / "net.safetensors"
    assert toughen("export", run, "--format", "safetensors", "--out", exported).status == 0
    same(begun(tmp_path, init=str(exported))[0], weights)


def test_other_classes_get_a_new_last_layer(run: Path, tmp_path: Path) -> None:
    wanted = tmp_path / "classes.txt"
    wanted.write_text("7\n1\n4\n")
    weights, said = begun(tmp_path, init=str(run), classes=str(wanted))
    before = load_file(run / "model.safetensors")
    head = next(name for name in reversed(before) if before[name].ndim == 2 and len(before[name]) == 10)
    layer = head.removesuffix(".weight")
    same({k: v for k, v in weights.items() if layer not in k}, {k: v for k, v in before.items() if layer not in k})
    assert len(weights[head]) == 3
    assert said.endswith(f"; the last layer, {layer.removeprefix('net.')}, is new, for 3 classes instead of "
                         "0, 1, 2, 3 and 6 others")  # fmt: skip


def test_as_many_classes_of_other_names_get_a_new_last_layer(run: Path) -> None:
    model = models.create("fbf-mnist-cnn", 10, (1, 28, 28), [0.5], [0.5])
    initial = read_initial(str(run))
    assert "is new" in load_into(initial, model, "it", [f"letter {number}" for number in range(10)])
    assert "is new" not in load_into(initial, model, "it", [str(number) for number in range(10)])
    assert parts_of(model)[1].state_dict().keys() == initial.tensors.keys()


def test_a_last_layer_that_larger_images_change_is_told_from_one_for_other_classes(run: Path) -> None:
    small_images = {"1.weight": torch.zeros(10, 28 * 28), "1.bias": torch.zeros(10)}
    initial, net = (
        replace(read_initial(str(run)), tensors=small_images),
        nn.Sequential(nn.Flatten(), nn.Linear(36**2, 10)),
    )
    said = load_into(initial, net, "it", [str(number) for number in range(10)])
    assert said.endswith("; the last layer, 1, is new, because its shape is different")


def test_weights_of_torch_save_are_taken_out_of_what_wraps_them(tmp_path: Path) -> None:
    net = models.create("fbf-mnist-cnn", 10, (1, 28, 28))
    own = {f"module.{name}": value for name, value in net.state_dict().items()}
    torch.save({"state_dict": own, "epoch": 3, "optimizer": {"state": {}}}, tmp_path / "net.pth")
    found = read_weights(tmp_path / "net.pth")
    same(found.tensors, net.state_dict())
    assert found.more == ["epoch", "optimizer"]
    weights, said = begun(tmp_path, init=str(tmp_path / "net.pth"), normalize=False)
    same(weights, net.state_dict())
    assert said.endswith("; the rest of the file (epoch, optimizer) is not used")


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_no_code_of_a_file_runs(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "trap": Trap(tmp_path / "sprung")}, tmp_path / "trap.pth")
    torch.save({"state_dict": {}, "args": argparse.Namespace(lr=1)}, tmp_path / "args.pth")
    for name, what in (("trap", "holds more than weights"), ("args", "(argparse.Namespace)")):
        ended = toughen(*small("--init", tmp_path / f"{name}.pth", "--out", tmp_path / "run"))
        refused(ended, what, "If you trust it", "found.state_dict()", "found['state_dict']", lines=1)
    assert not (tmp_path / "sprung").exists() and not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["train", "plan"])
def test_a_net_that_a_file_names_is_not_imported(run: Path, tmp_path: Path, command: str) -> None:
    """The record, in the run directory and in the weights, names a function of Python's that runs a command."""
    evil = tmp_path / "evil"
    shutil.copytree(run, evil)
    record = runs.read_record(run)
    sprung = tmp_path / "sprung"
    net = {**record.model, "name": "subprocess:getoutput", "settings": {"cmd": f"touch {sprung}"}}
    changed = asdict(replace(record, model=net))
    (evil / "model.json").write_text(json.dumps(changed))
    write_tensors(evil / "model.safetensors", load_file(run / "model.safetensors"), changed)
    for place in (evil, evil / "model.safetensors"):
        words = ["--data", digits(), "--eps", "0.2", *(["--out", tmp_path / "out"] if command == "train" else [])]
        said = f"--init {place} names the model 'subprocess:getoutput'"
        refused(toughen(command, "--init", place, *words), said, "give --model package.module:function", lines=1)
    assert not sprung.exists() and not (tmp_path / "out").exists()


def test_bad_weights_are_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged.pth").write_bytes(b"no zip")
    (tmp_path / "damaged.safetensors").write_bytes(b"none")
    (tmp_path / "weights.h5").write_bytes(b"none")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    torch.save({"epoch": 1}, tmp_path / "none.pth")
    save_file({"w": torch.zeros(1)}, tmp_path / "other.safetensors")
    save_file({"w": torch.tensor([float("nan")])}, tmp_path / "nan.safetensors")
    for name, said in (
        ("gone.pth", "there are no weights"),
        ("damaged.pth", "is damaged, or not a file of torch.save"),
        ("damaged.safetensors", "is damaged"),
        ("weights.h5", "not a file of weights"),
        ("list.pth", "holds list, not a state_dict"),
        ("none.pth", "holds no state_dict"),
        ("other.safetensors", "does not fit fbf-mnist-cnn: it has no "),
        ("nan.safetensors", "holds NaN or infinity in w"),
    ):
        refused(toughen(*small("--init", tmp_path / name, "--out", tmp_path / "run")), said, lines=1)
    refused(toughen(*small("--model", "m-lenet", "--init", run, "--out", tmp_path / "run")), "does not fit m-lenet")
    assert not (tmp_path / "run").exists()


def test_weights_for_grey_images_are_refused_for_colour(run: Path, tmp_path: Path) -> None:
    some = data.load("mnist-5k").train
    for place in range(0, len(some), 100):
        folder = tmp_path / "colour" / str(int(some.labels[place]))
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(some.images[place, 0].numpy()).convert("RGB").save(folder / f"{place}.png")
    ended = toughen(*small("--init", run, "--data", tmp_path / "colour", "--out", tmp_path / "run"))
    refused(ended, f"--init {run} was trained on images with 1 channel, and these have 3: give other --data", lines=1)
    assert not (tmp_path / "run").exists()


def test_the_command_takes_the_net_of_the_weights_and_says_where_they_come_from(run: Path, tmp_path: Path) -> None:
    words = ("train", "--data", digits(), "--init", run, "--eps", 0.2, "--epochs", 1, "--validation", 10)
    ended = toughen(*words, "--out", tmp_path / "second")
    assert ended.status == 0 and "initial weights: those of" in ended.err, ended.err
    record = runs.read_record(tmp_path / "second")
    assert record.model["name"] == "fbf-mnist-cnn" and record.eps == 0.2
    assert f"init: {run}" in (tmp_path / "second" / "config.yaml").read_text()


def test_larger_images_get_the_size_that_the_run_was_trained_at(run: Path, tmp_path: Path) -> None:
    """Its images were all of one size, so that it resized none."""
    for split in ("train", "test"):
        for label in "01":
            (tmp_path / "set" / split / label).mkdir(parents=True)
            for file in sorted((digits() / split / label).iterdir())[:4]:
                Image.open(file).resize((60, 48)).save(tmp_path / "set" / split / label / file.name)
    assert runs.read_record(run).image_size is None
    words = ("--data", tmp_path / "set", "--init", run, "--method", "Standard", "--epochs", 1, "--validation", 0)
    assert toughen("train", *words, "--out", tmp_path / "second").status == 0
    record = runs.read_record(tmp_path / "second")
    assert (record.shape, record.image_size) == ([1, 28, 28], 28)


def test_images_that_the_initial_weights_were_trained_on_are_known(run: Path, tmp_path: Path) -> None:
    """A run that is trained on the test images of the first is not tested on the training images of the first."""
    shutil.copytree(digits() / "test", tmp_path / "set/train")
    shutil.copytree(digits() / "train", tmp_path / "set/test")
    words = (
        "--data",
        tmp_path / "set",
        "--init",
        run,
        "--method",
        "FGSMAT",
        "--eps",
        0.1,
        "--epochs",
        1,
        "--validation",
        0,
    )
    trained = toughen("train", *words, "--out", tmp_path / "second")
    assert trained.status == 0 and "test images are training images, too" in " ".join(trained.err.split())
    refused(toughen("evaluate", tmp_path / "second", "--attacks", "fgsm"), "% of these images")
    assert toughen("train", *words, "--out", tmp_path / "second", "--resume").status == 0
    fresh = [*words[:2], *words[4:]]
    assert toughen("train", *fresh, "--model", "fbf-mnist-cnn", "--out", tmp_path / "third").status == 0
    assert toughen("evaluate", tmp_path / "third", "--attacks", "fgsm", "--verdict", "false").status == 0


def test_without_data_it_is_that_of_the_run(run: Path, tmp_path: Path) -> None:
    ended = toughen("train", "--init", run, "--eps", 0.2, "--epochs", 1, "--validation", 10, "--out", tmp_path / "on")
    assert ended.status == 0, ended.err
    assert runs.read_record(tmp_path / "on").data == runs.read_record(run).data != Recipe.data
    named = ("--model", "fbf-mnist-cnn", "--eps", 0.2, "--epochs", 1, "--validation", 10)
    assert toughen("train", "--init", run, *named, "--out", tmp_path / "named").status == 0
    assert runs.read_record(tmp_path / "named").data == runs.read_record(run).data


def test_a_killed_run_goes_on_as_if_it_had_not_been(run: Path, tmp_path: Path) -> None:
    words = small("--init", run, "--checkpoint_seconds", 0)
    assert toughen(*words, "--out", tmp_path / "whole").status == 0
    assert killed_at(6, *words, "--out", tmp_path / "killed").returncode == -9
    assert toughen(*words, "--out", tmp_path / "killed", "--resume").status == 0
    same(state_of(tmp_path / "killed"), state_of(tmp_path / "whole"))


@needs_timm
@pytest.mark.parametrize("name", NETS)
def test_size_and_normalisation_are_timms_own(name: str, tmp_path: Path) -> None:
    import timm

    net = timm.create_model(name.removeprefix("timm:"), num_classes=7)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    initial = read_initial(str(tmp_path / "net.safetensors"))
    about = timm.data.resolve_model_data_config(net)
    before = trained_on(initial, name, {})
    assert before.size == about["input_size"][-1] == 224
    assert statistics(initial, before, 3) == (about["mean"], about["std"])
    assert trained_on(initial, name, {"img_size": 28}).size == 28 and statistics(initial, before, 1) is None
    model = models.create(name, 5, (3, 224, 224), about["mean"], about["std"])
    assert "is new, for 5 classes" in load_into(initial, model, name, list("abcde"))
    head = timm.create_model(name.removeprefix("timm:"), num_classes=7).pretrained_cfg["classifier"]
    kept = {key: value for key, value in parts_of(model)[1].state_dict().items() if not key.startswith(head)}
    same(kept, {key: value for key, value in net.state_dict().items() if not key.startswith(head)})


@needs_timm
def test_a_net_of_timms_is_fine_tuned(tmp_path: Path) -> None:
    import timm

    name = "timm:mobilenetv3_small_050"
    net = timm.create_model(name.removeprefix("timm:"), num_classes=7, in_chans=1)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    words = small("--init", tmp_path / "net.safetensors", "--image_size", "keep", "--epochs", 1)
    ended = toughen(*words, "--model", name, "--out", tmp_path / "run")
    assert ended.status == 0 and "the last layer, classifier, is new, for 10 classes" in ended.err, ended.err

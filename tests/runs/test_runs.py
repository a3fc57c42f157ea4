"""Files of a run: whole or not there, readable without toughen, and loaded without running anything."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yaml
from commands import digits, small, toughen
from safetensors.torch import load_file

import toughen as package
from toughen import models, runs
from toughen.runs import files

RECORD = runs.Record(
    model=models.describe("fbf-mnist-cnn", 3, (1, 28, 28), [0.1], [0.3], {}),
    classes=["a", "b", "c"], shape=[1, 28, 28], norm="linf", eps=0.1, method="FBF", data="some", weights="live",
    epoch=4, validation={"clean": 0.5},
)  # fmt: skip


def net() -> torch.nn.Module:
    return models.create("fbf-mnist-cnn", 3, (1, 28, 28), [0.1], [0.3])


def test_weights_come_back(tmp_path: Path) -> None:
    model = net()
    runs.write_model(tmp_path, RECORD, model)
    assert runs.read_record(tmp_path) == RECORD
    x = torch.rand(2, 1, 28, 28)
    loaded = package.load(tmp_path)
    assert torch.equal(loaded(x), model(x)) and not loaded.training
    assert torch.equal(runs.load(str(tmp_path), net())(x), model(x))
    assert load_file(tmp_path / "model.safetensors").keys() == model.state_dict().keys()
    assert json.loads((tmp_path / "model.json").read_text()) == asdict(RECORD)


@pytest.mark.parametrize("name", [runs.WEIGHTS, runs.RECORD])
def test_halves_of_two_epochs_are_noticed(name: str, tmp_path: Path) -> None:
    runs.write_model(tmp_path, RECORD, net())
    old = (tmp_path / name).read_bytes()
    runs.write_model(tmp_path, replace(RECORD, epoch=5), net())
    (tmp_path / name).write_bytes(old)
    with pytest.raises(ValueError, match="do not belong together"):
        runs.load(tmp_path)


def test_a_record_without_the_newer_fields_is_read(tmp_path: Path) -> None:
    runs.write_model(tmp_path, RECORD, net())
    fields = {name: value for name, value in asdict(RECORD).items() if name not in ("image_size", "subset")}
    (tmp_path / runs.RECORD).write_text(json.dumps(fields))
    assert runs.read_record(tmp_path) == RECORD and runs.load(tmp_path)


def test_a_run_directory_tells_all(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert toughen(*small("--method", "NuAT", "--eps", "8/255", "--out", run)).status == 0
    names = {path.name for path in run.iterdir()}
    assert names == {
        "config.yaml", "metrics.jsonl", "checkpoint.safetensors", "checkpoint.previous.safetensors", "provenance.json",
        "healthy.safetensors",
        "model.safetensors", "model.json", "training-images.safetensors", "tensorboard",
    }  # fmt: skip
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["eps"] == config["method"]["init_args"]["eps"] == "8/255" and config["data"] == str(digits())
    provenance = json.loads((run / "provenance.json").read_text())
    assert {"torch", "toughen", "processor", "precision"} <= provenance.keys()
    assert not any(b"\x80\x04" == path.read_bytes()[:2] for path in run.rglob("*") if path.is_file())  # no pickle
    readable = stat.S_IMODE((run / "metrics.jsonl").stat().st_mode)
    assert {stat.S_IMODE((run / name).stat().st_mode) for name in names if "." in name} == {readable}


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_text(path, "old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space"):
        files.replace_file(path, fail)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"file": "old"}


def test_leftovers_of_a_kill_are_cleared_and_nothing_else(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    foreign = {
        ".gitignore",
        "notes.1",
        ".hidden",
        ".notes.2024",
        f".metrics.json.{os.getppid()}",
    }  # the last, of one alive
    ours = {f".checkpoint.safetensors.{ended.pid}", f".config.yaml.{os.getpid()}", f".losses.txt.{ended.pid}"}
    for name in ours | foreign:
        (tmp_path / name).write_text("")
    files.clear_temporaries(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == foreign


def test_tensors_and_what_belongs_to_them(tmp_path: Path) -> None:
    tensors = {"a": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last), "b": torch.tensor(3)}
    files.write_tensors(tmp_path / "t", {**tensors, "same": tensors["a"]}, {"step": 3, "text": "\u00e4"})
    found, about = files.read_tensors(tmp_path / "t")
    assert about == {"step": 3, "text": "\u00e4"} and torch.equal(found["same"], tensors["a"])
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_seen_images(tmp_path: Path) -> None:
    def same(*hashes: int) -> bool:
        return runs.same_images(tmp_path, {"hashes": torch.tensor(hashes)})

    assert runs.count_seen(tmp_path, torch.tensor([1, 2])) == 0 and same(1) and runs.streamed(tmp_path) is None
    runs.write_seen(tmp_path, {"hashes": torch.tensor([1, 2, 3])})
    assert runs.count_seen(tmp_path, torch.tensor([3, 4, 5, 6])) == 1 and runs.streamed(tmp_path) is False
    assert same(1, 2, 3) and not same(1, 2, 4) and not same(1)


def test_of_streamed_images_only_their_identity_is_known(tmp_path: Path) -> None:
    identity = {"identity": torch.tensor([1, 2], dtype=torch.uint8)}
    runs.write_seen(tmp_path, identity)
    assert runs.streamed(tmp_path) and runs.same_images(tmp_path, identity)
    assert runs.count_seen(tmp_path, torch.tensor([1, 2])) == 0
    assert not runs.same_images(tmp_path, {"identity": torch.tensor([1, 3], dtype=torch.uint8)})
    assert not runs.same_images(tmp_path, {"hashes": torch.tensor([1, 2])})

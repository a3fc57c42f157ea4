"""Files of tensors that somebody or something has changed: refused by name, and never run."""

from __future__ import annotations

import json
import os
import pickle
import random
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import digits, files, refused, small, toughen
from safetensors.torch import load_file, save, save_file

from toughen import runs
from toughen.runs.files import read_tensors, write_tensors
from toughen.training import checkpoint

FLIPS = 1000


class Trap:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert toughen(*small("--method", "FBF", "--eps", 0.2, "--checkpoint_seconds", 0, "--out", folder)).status == 0
    return folder


def outcome(path: Path) -> str:
    """What a file is said to be: "" where it is read."""
    try:
        read_tensors(path)
    except ValueError as error:
        assert str(path) in str(error) and len(str(error)) < 500
        return str(error)
    return ""


def test_a_file_without_a_digest_is_read(tmp_path: Path) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / "t", {"about": '{"step": 3}'})
    tensors, about = read_tensors(tmp_path / "t")
    assert about == {"step": 3} and torch.equal(tensors["a"], torch.ones(3))
    write_tensors(tmp_path / "t", tensors, {"text": "0" * 32, "digest of": 1})
    assert read_tensors(tmp_path / "t")[1] == {"text": "0" * 32, "digest of": 1}
    assert torch.equal(load_file(tmp_path / "t")["a"], torch.ones(3))  # as anyone else reads it


@pytest.mark.parametrize("name", [checkpoint.NAME, runs.WEIGHTS, runs.SEEN])
def test_one_bit_flipped_anywhere(name: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, path = (trained / name).read_bytes(), tmp_path / name
    draw = random.Random(0)
    head = 8 + int.from_bytes(content[:8], "little")
    places = [draw.randrange(head * 8) for _ in range(FLIPS // 2)]
    places += [draw.randrange(head * 8, len(content) * 8) for _ in range(FLIPS // 2)]
    passed, whole = 0, read_tensors(trained / name)[0]
    for place in places:
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        if not outcome(path):  # the name of the digest itself was hit: it says nothing, and the tensors are right
            found = read_tensors(path)[0]
            assert found.keys() == whole.keys() and all(torch.equal(found[each], whole[each]) for each in whole)
            passed += 1
    with capsys.disabled():
        print(f"\n{name}: {len(places) - passed} of {len(places)} flipped bits found, {passed} changed no tensor")
    assert passed < FLIPS // 10


def test_cut_anywhere(trained: Path, tmp_path: Path) -> None:
    content, path = (trained / checkpoint.NAME).read_bytes(), tmp_path / "checkpoint.safetensors"
    draw = random.Random(1)
    for length in [0, 1, 7, 8, 9, len(content) - 1, *(draw.randrange(len(content)) for _ in range(200))]:
        path.write_bytes(content[:length])
        assert outcome(path), length
    path.write_bytes(content + b"\0")
    assert outcome(path)


def heads(trap: Path) -> dict[str, bytes]:
    """Files that are no checkpoint of ours, by what is wrong."""
    huge = {"a": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 2**64 - 1]}}
    wide = {"a": {"dtype": "F32", "shape": [2**31, 2**31, 2**31], "data_offsets": [0, 4]}}

    def file(about: object, data: bytes = b"\0" * 4) -> bytes:
        text = json.dumps(about).encode()
        return len(text).to_bytes(8, "little") + text + data

    return {
        "a head of 10^12 bytes": (10**12).to_bytes(8, "little") + b"{}",
        "a head of 2^64 bytes": (2**64 - 1).to_bytes(8, "little") + b"{}",
        "a pickle": pickle.dumps(Trap(trap)),
        "a pickle of torch's": _torch_file(Trap(trap), trap.parent / "made.pt"),
        "a tensor of 2^62 numbers": file(huge),
        "a shape that overflows": file(wide),
        "overlapping tensors": file({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}),
        "an unknown type": file({"a": {"dtype": "F999", "shape": [1], "data_offsets": [0, 4]}}),
        "a negative shape": file({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}),
        "nested a million times": len(b"[" * 10**6).to_bytes(8, "little") + b"[" * 10**6,
        "nested in what it says of itself": save({"a": torch.ones(1)}, {"about": "[" * 10**6}),
    }


def _torch_file(value: object, path: Path) -> bytes:
    torch.save(value, path)
    return path.read_bytes()


def test_files_that_are_no_checkpoint(trained: Path, tmp_path: Path) -> None:
    """As a run's weights, as its list of images and as its checkpoint; the memory that is taken stays small."""
    trap = tmp_path / "sprung"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for wrong, content in heads(trap).items():
        for name in (runs.WEIGHTS, runs.SEEN, checkpoint.NAME):
            run = tmp_path / "run"
            shutil.copytree(trained, run)
            (run / name).write_bytes(content)
            (run / checkpoint.PREVIOUS).unlink()
            kept = files(tmp_path)
            if name == checkpoint.NAME:
                words = small("--method", "FBF", "--eps", 0.2, "--checkpoint_seconds", 0, "--out", run, "--resume")
            else:
                words = ["evaluate", run, "--attacks", "fgsm", "--verdict", "false", "--details", "false"]
            ended = toughen(*words)
            refused(ended, f"{run / name} is damaged")
            assert files(tmp_path) == kept, wrong
            shutil.rmtree(run)
    assert not trap.exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # kilobytes


WRONG = {
    "another shape": lambda tensors: tensors.update({"net.0.weight": torch.zeros(1, 1, 1, 1)}),
    "NaN": lambda tensors: tensors.update({"net.0.bias": torch.full_like(tensors["net.0.bias"], torch.nan)}),
    "infinity": lambda tensors: tensors.update({"net.0.bias": torch.full_like(tensors["net.0.bias"], torch.inf)}),
    "a tensor too many": lambda tensors: tensors.update({"net.99.weight": torch.zeros(1)}),
    "a tensor too few": lambda tensors: tensors.pop("net.0.bias"),
    "whole numbers": lambda tensors: tensors.update({"net.0.bias": tensors["net.0.bias"].long()}),
    "complex numbers": lambda tensors: tensors.update({"net.0.bias": tensors["net.0.bias"].to(torch.complex64)}),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_weights_of_another_kind(wrong: str, trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    tensors, about = read_tensors(run / runs.WEIGHTS)
    WRONG[wrong](tensors)
    write_tensors(run / runs.WEIGHTS, tensors, about)
    refused(toughen("evaluate", run, "--attacks", "fgsm", "--verdict", "false"), str(run / runs.WEIGHTS))


@pytest.mark.parametrize(
    "names",
    [
        ["trap:net", "timm:../../trap"],
        pytest.param(["os:system", "timm:hf-hub:a/b", "../trap", "small-cnn\n", ""], marks=pytest.mark.slow),
    ],
)
def test_code_in_a_run_is_not_run(names: list[str], trained: Path, tmp_path: Path) -> None:
    """A run directory with settings that name code, in a process that lies in it, as a user might."""
    run, trap = Path(shutil.copytree(trained, tmp_path / "run")), tmp_path / "sprung"
    for module in ("yaml", "safetensors", "sitecustomize", "trap"):
        (run / f"{module}.py").write_text(f"open({str(trap)!r}, 'w').close()\n")
    record = json.loads((run / runs.RECORD).read_text())
    command = [sys.executable, "-P", "-m", "toughen", "evaluate", ".", "--attacks", "fgsm", "--verdict", "false"]
    environment = {**os.environ, "PYTHONPATH": str(Path(runs.__file__).parents[2])}
    for name in names:
        (run / runs.RECORD).write_text(json.dumps({**record, "model": {**record["model"], "name": name}}))
        done = subprocess.run(command, cwd=run, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        assert not trap.exists(), name
    assert str(digits()) in (run / "config.yaml").read_text()

"""The command line called in this process, on a few real images."""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from toughen import data
from toughen.cli.main import main
from toughen.runs.files import read_tensors
from toughen.training import checkpoint
from toughen.training.divergence import Diverged
from toughen.training.trainer import Trainer

TIMES = ("seconds", "seconds_per_step", "images_per_second", "watch_seconds", "validation_seconds")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: object
    out: str
    err: str


def toughen(*words: object) -> Ended:
    """Run `toughen WORDS`; a command that raises anything but SystemExit fails the test."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main([str(word) for word in words])
    except SystemExit as end:
        return Ended(end.code, out.getvalue(), err.getvalue())


def processor_seconds(*command: object) -> tuple[float, str]:
    """What a program of ours takes of the processor, however busy it is, with bytecode kept, and what it says."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started = os.times()
    words = [sys.executable, *map(str, command)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    ended = os.times()
    assert done.returncode == 0, done.stderr
    return ended.children_user + ended.children_system - started.children_user - started.children_system, done.stdout


def diverges(monkeypatch: pytest.MonkeyPatch, which: Callable[[Trainer], bool]) -> None:
    """Let the trainings that this chooses diverge in their first epoch."""
    whole = Trainer.run_epoch

    def run_epoch(self: Trainer, *more: Any) -> None:
        if which(self):
            raise Diverged("the loss became nan")
        whole(self, *more)

    monkeypatch.setattr(Trainer, "run_epoch", run_epoch)


def refused(ended: Ended, *said: str, status: int = 2, lines: int = 4) -> None:
    """One short message that says these things, and no more."""
    assert ended.status == status, ended
    found = ended.err.strip().splitlines()
    assert 1 <= len(found) <= lines and found[0].startswith("toughen: ") and len(ended.err) < 500, ended.err
    for noise in ("Traceback", "<class", "Parser key", "Union", "typing", "class_path", "toughen: toughen"):
        assert noise not in ended.err, ended.err
    assert [text for text in said if text not in ended.err] == [], ended.err


@cache
def digits() -> Path:
    """A folder of class folders with 80 embedded training images and 40 test images."""
    root = Path(tempfile.mkdtemp(prefix="toughen-digits-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    mnist = data.load("mnist-5k")
    for name, split, each in (("train", mnist.train, 8), ("test", mnist.test, 4)):
        for label in range(10):
            folder = root / name / str(label)
            folder.mkdir(parents=True)
            for row in (split.labels == label).nonzero()[:each, 0].tolist():
                Image.fromarray(split.images[row, 0].numpy()).save(folder / f"{row}.png")
    return root


def small(*more: object) -> list[object]:
    """Words of a run of a second: 70 images in five batches, 10 to validate with, two epochs, Standard by default."""
    words = f"train --data {digits()} --model fbf-mnist-cnn --validation 10 --validation_steps 2 --batch_size 16"
    method = [] if "--method" in more else ["--method", "Standard"]
    epochs = [] if "--time-budget" in more else ["--epochs", 2]
    return [*words.split(), *epochs, "--precision", "fp32", "--averaging", "null", *method, *more]


DYING = """import os, signal, sys
from toughen.cli.main import main
from toughen.training.trainer import Trainer
step = Trainer.step
def dying(self, *arguments):
    if self.state.step == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *arguments)
Trainer.step = dying
main(sys.argv[2:])
"""


def process(*words: object) -> subprocess.CompletedProcess[str]:
    """Python with these words, in a process of its own with as many threads as this one."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True)


def killed_at(step: int, *words: object) -> subprocess.CompletedProcess[str]:
    """`toughen` with these words in a process that is killed with -9 before this step."""
    return process("-c", DYING, step, *words)


def state_of(run: Path) -> dict[str, Tensor]:
    """All tensors of the last checkpoint: model, average, method, optimizer."""
    return read_tensors(run / checkpoint.NAME)[0]


def timeless(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what a clock said."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def files(folder: Path) -> dict[str, bytes]:
    """A folder's files by relative name, with their content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def reproduce(out: Path, name: str, *more: object) -> Ended:
    """Run `toughen reproduce NAME` at the smallest scale, on a few digits."""
    return toughen("reproduce", name, "--scale", "smoke", "--data", digits(), "--out", out, *more)

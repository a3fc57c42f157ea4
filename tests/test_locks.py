"""Two processes never write into one run, nor train the same model twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from commands import digits, process, refused, small, timeless, toughen
from test_reproduction import reproduce

SLOW = """import sys, time
from toughen.cli import main
from toughen.training.trainer import Trainer
step = Trainer.step
def slow(*arguments):
    time.sleep(float(sys.argv[1]))
    return step(*arguments)
Trainer.step = slow
main(sys.argv[2:])
"""


@contextmanager
def slowly(seconds: float, *words: object, until: Path) -> Iterator[subprocess.Popen[str]]:
    """`toughen` with these words in a process of its own whose steps take so long, once it has made a file."""
    command = [sys.executable, "-c", SLOW, str(seconds), *map(str, words)]
    made = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
    try:
        deadline = time.monotonic() + 120
        while not until.exists() and made.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert until.exists() and made.poll() is None
        yield made
    finally:
        made.kill()
        made.wait()


def test_a_run_that_is_being_trained_is_left_alone(tmp_path: Path) -> None:
    words = small("--method", "FBF", "--eps", 0.1, "--checkpoint_seconds", 0, "--out", tmp_path / "run")
    with slowly(1.0, *words, until=tmp_path / "run/checkpoint.safetensors") as first:
        refused(toughen(*words, "--resume"), "another process is at work", "run", "--out")
        assert first.poll() is None
    assert toughen(*words, "--resume").status == 0  # it was killed, so nobody is at work any more
    words[-1] = tmp_path / "alone"
    assert toughen(*words).status == 0
    assert timeless(tmp_path / "run") == timeless(tmp_path / "alone")


def test_a_model_that_is_being_trained_is_waited_for(tmp_path: Path) -> None:
    """Two rows of two tables that are the same model: the second process takes what the first one has trained."""
    words = ("--scale", "smoke", "--data", digits(), "--out", tmp_path, "--rows", "FGSM-AT")
    with slowly(3.0, "reproduce", "pap-table3", *words, until=tmp_path / "smoke") as first:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("smoke/*/run/config.yaml")) and time.monotonic() < deadline:
            time.sleep(0.05)
        ended = process("-m", "toughen", "reproduce", "pap-table7", *words)
        assert ended.returncode == 0, ended.stderr
        assert "waiting for another process at fgsm-mnist-" in ended.stdout + ended.stderr
        assert first.wait(120) == 0
    (folder,) = tmp_path.glob("smoke/fgsm-mnist-*")
    record = json.loads((folder / "trained.json").read_text())
    assert "sessions" not in record["provenance"] and len(list((folder / "cells").iterdir())) == 7


def test_it_is_waited_for_no_longer_than_it_lives(tmp_path: Path) -> None:
    words = ("--scale", "smoke", "--data", digits(), "--out", tmp_path, "--rows", "FGSM-AT")
    with slowly(30.0, "reproduce", "pap-table7", *words, until=tmp_path / "smoke") as first:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("smoke/*/run/config.yaml")) and time.monotonic() < deadline:
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
        first.wait()
        ended = reproduce(tmp_path, "pap-table7", "--rows", "FGSM-AT")
    assert ended.status == 0, ended.err

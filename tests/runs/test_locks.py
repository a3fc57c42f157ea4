"""Two processes never write into one folder, nor train the same model twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import digits, files, refused, reproduce, small, timeless, toughen

SLOW = """import sys, time
from toughen.cli.main import main
from toughen.evaluation.state import State
from toughen.training.trainer import Trainer
def slow(do):
    def slowly(*arguments):
        done = do(*arguments)
        time.sleep(float(sys.argv[1]))
        return done
    return slowly
Trainer.step, State.save = slow(Trainer.step), slow(State.save)
main(sys.argv[2:])
"""


@contextmanager
def stopped(seconds: float, *words: object, at: str, within: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`toughen` in a process of its own, slow at each step and chunk of images, stopped once it has made a file."""
    command = [sys.executable, "-c", SLOW, str(seconds), *map(str, words)]
    made = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: bool(list(within.glob(at))) or made.poll() is not None)
        made.send_signal(signal.SIGSTOP)
        assert list(within.glob(at)) and made.poll() is None
        yield made
    finally:
        made.kill()
        made.wait()


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_that_is_being_trained_is_left_alone(tmp_path: Path) -> None:
    words = small("--method", "FBF", "--eps", 0.1, "--checkpoint_seconds", 0, "--out", tmp_path / "run")
    with stopped(0.5, *words, at="run/checkpoint.safetensors", within=tmp_path):
        refused(toughen(*words, "--resume"), "another process uses", "run", "--out")
    assert toughen(*words, "--resume").status == 0  # it was killed, so nobody is at work any more
    words[-1] = tmp_path / "alone"
    assert toughen(*words).status == 0
    assert timeless(tmp_path / "run") == timeless(tmp_path / "alone")


def test_a_run_that_is_being_evaluated_is_left_alone(tmp_path: Path) -> None:
    """It can be evaluated elsewhere, and there once the other process has been killed."""
    run = tmp_path / "run"
    assert toughen(*small("--method", "FBF", "--eps", 0.1, "--out", run)).status == 0
    words = ["evaluate", run, "--attacks", "fgsm", "pgd-2", "--limit", 20, "--verdict", "false", "--details", "false"]
    with stopped(5, *words, at="run/evaluation-*.safetensors", within=tmp_path):
        kept = files(run)
        refused(toughen(*words), "another process uses", "run", "--out")
        assert files(run) == kept
        assert toughen(*words, "--out", tmp_path / "beside").status == 0
    assert toughen(*words).status == 0
    assert files(run)["examples.parquet"] == files(tmp_path / "beside")["examples.parquet"]


FGSM = ("--scale", "smoke", "--data", digits(), "--rows", "FGSM-AT", "--out")


@pytest.mark.slow
def test_a_model_that_is_being_trained_is_waited_for(tmp_path: Path) -> None:
    """Two rows of two tables that are the same model: the second process takes what the first one has trained."""
    out, said = tmp_path / "out", tmp_path / "said"
    with stopped(0.5, "reproduce", "pap-table3", *FGSM, out, at="smoke/*/run/config.yaml", within=out) as first:
        command = [sys.executable, "-m", "toughen", "reproduce", "pap-table7", *map(str, FGSM), str(out)]
        with said.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as second:
            wait_until(lambda: b"waiting for another process at fgsm-mnist-" in said.read_bytes())
            assert second.poll() is None
            first.send_signal(signal.SIGCONT)
            assert first.wait(120) == 0 and second.wait(120) == 0
    (folder,) = out.glob("smoke/fgsm-mnist-*")
    record = json.loads((folder / "trained.json").read_text())
    assert "sessions" not in record["provenance"] and len(list((folder / "cells").iterdir())) == 7


@pytest.mark.slow
def test_it_is_waited_for_no_longer_than_it_lives(tmp_path: Path) -> None:
    with stopped(0.5, "reproduce", "pap-table7", *FGSM, tmp_path, at="smoke/*/run/config.yaml", within=tmp_path):
        pass
    ended = reproduce(tmp_path, "pap-table7", "--rows", "FGSM-AT")
    assert ended.status == 0, ended.err

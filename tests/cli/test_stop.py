"""A signal in the middle of any command: one line that is true, the signal's status, no traceback, nothing lost."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import digits, process, small, toughen
from paths import NETS

SIGNALLED = """import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # where a shell has had what is in the background ignore it
from importlib import import_module
from toughen.cli.main import main
number, (module, owner, name), calls = int(sys.argv[1]), sys.argv[2].split(":"), int(sys.argv[3])
owner = getattr(import_module(module), owner)
whole = getattr(owner, name)
def signalled(*arguments, **more):
    global calls
    calls -= 1
    found = whole(*arguments, **more)
    if calls == 0:
        os.kill(os.getpid(), number)
    return found
setattr(owner, name, signalled)
sys.argv = ["toughen", *sys.argv[4:]]
main()
"""
STEP = "toughen.training.trainer:Trainer:step"
CHUNK = "toughen.evaluation.state:State:save"
CHECK = "toughen.evaluation.examination_state:ExaminationState:save"
PGD = "toughen.attacks.pgd:PGD:__call__"
LOADED = "toughen.training.build:Trainer:__init__"
BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
GOES_ON = "toughen: stopped; the finished work is kept, and the same command continues it"


def signalled(number: signal.Signals, place: str, calls: int, *words: object) -> subprocess.CompletedProcess[str]:
    """`toughen` in a process that gets a signal after so many calls of a function."""
    return process("-c", SIGNALLED, number.value, place, calls, *words)


def stopped(done: subprocess.CompletedProcess[str], number: signal.Signals, said: str) -> None:
    """The program ended by the signal, and its last line says this."""
    assert done.returncode == 128 + number, done.stderr
    assert done.stderr.strip().splitlines()[-1] == said and "Traceback" not in done.stderr


@pytest.mark.slow
@BOTH
def test_the_demo_in_training(number: signal.Signals, tmp_path: Path) -> None:
    stopped(signalled(number, STEP, 3, "demo", "--out", tmp_path), number, GOES_ON)
    assert (tmp_path / "standard" / "checkpoint.safetensors").is_file()


@BOTH
def test_an_evaluation_goes_on_to_the_same_end(number: signal.Signals, tmp_path: Path) -> None:
    words = ["--attacks", "fgsm", "pgd-3", "--verdict", "false", "--details", "false"]
    assert toughen(*small("--method", "FBF", "--eps", 0.2, "--out", tmp_path / "run")).status == 0
    assert toughen("evaluate", tmp_path / "run", *words, "--out", tmp_path / "whole").status == 0
    cut = ["evaluate", tmp_path / "run", *words, "--out", tmp_path / "cut"]
    stopped(signalled(number, CHUNK, 2, *cut), number, GOES_ON)
    assert not (tmp_path / "cut" / "evaluation.json").exists()
    ended = toughen(*cut)
    assert ended.status == 0 and re.match(r"continues where it stopped, \d+\.\d % of the work done\n", ended.err)
    results = [json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("whole", "cut")]
    for result in results:
        for timed in (result["provenance"], result, *result["attacks"].values()):
            timed.pop("seconds", None)
    assert results[0] == results[1]


@pytest.mark.slow
@BOTH
def test_the_checks_end_with_what_is_known_and_go_on(number: signal.Signals, tmp_path: Path) -> None:
    assert toughen(*small("--method", "FBF", "--eps", 0.2, "--out", tmp_path)).status == 0
    words = ["evaluate", tmp_path, "--limit", 20, "--details", "false"]
    done = signalled(number, CHECK, 8, *words)
    stopped(done, number, GOES_ON)
    assert "all attacks" in done.stdout and "stopped before: " in done.stdout and "sound" not in done.stdout
    known = json.loads((tmp_path / "evaluation.json").read_text())
    assert known["verdict"] in ("unfinished", "doubtful", "masked")
    assert any(check["passed"] for check in known["checks"])
    ended = toughen(*words)
    assert ended.status == 0 and "continues where it stopped, 100.0 % of the work done" in ended.err
    whole = json.loads((tmp_path / "evaluation.json").read_text())
    assert whole["attacks"] == known["attacks"] and "unfinished" not in whole
    assert not any("stopped before" in check["sentence"] for check in whole["checks"])
    assert not (tmp_path / "evaluation.1.json").exists() and not list(tmp_path.glob("evaluation-*"))


@pytest.mark.slow
def test_an_evaluation_while_its_source_is_trained(tmp_path: Path) -> None:
    assert toughen(*small("--method", "FBF", "--eps", 0.2, "--out", tmp_path)).status == 0
    words = ["evaluate", tmp_path, "--attacks", "fgsm", "--surrogate", "train"]
    stopped(signalled(signal.SIGTERM, STEP, 2, *words), signal.SIGTERM, GOES_ON)


def test_training_that_has_saved_nothing_yet_promises_nothing(tmp_path: Path) -> None:
    done = signalled(signal.SIGTERM, LOADED, 1, *small("--out", tmp_path / "run"))
    stopped(done, signal.SIGTERM, "toughen: stopped")


def test_a_command_that_keeps_nothing(tmp_path: Path) -> None:
    assert toughen(*small("--method", "FBF", "--eps", 0.2, "--out", tmp_path / "run")).status == 0
    words = ["attack", tmp_path / "run", "--attack", "pgd-3", "--data", digits(), "--out", tmp_path / "images.parquet"]
    stopped(signalled(signal.SIGTERM, PGD, 1, *words), signal.SIGTERM, "toughen: stopped")
    assert not (tmp_path / "images.parquet").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="children are counted in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("seconds", [0.0, 8.0])  # as they start; in the attack
def test_worker_processes_end_with_the_main_process(number: signal.Signals, seconds: float, tmp_path: Path) -> None:
    """A terminal or a service sends the signal to the workers, too; SIGKILL reaches the main process alone."""
    words = "--data mnist-5k --attacks square --limit 500 --processes 2 --verdict false"
    running = subprocess.Popen(
        [sys.executable, "-m", "toughen", "evaluate", NETS / "pgd-at", *words.split(), "--out", tmp_path / "out"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    while len(_children(running.pid)) < 3:  # one of them tracks resources
        assert running.poll() is None
        time.sleep(0.05)
    time.sleep(seconds)
    (os.kill if number == signal.SIGKILL else os.killpg)(running.pid, number)
    printed, _ = running.communicate(timeout=60)  # a worker that is left holds the pipe open, and runs into this
    if number == signal.SIGKILL:
        assert running.returncode == -9
    else:
        assert running.returncode == 128 + number and "Traceback" not in printed
        assert printed.strip().splitlines()[-1].startswith("toughen: stopped")


def _children(process: int) -> list[str]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [child for each in tasks for child in each.read_text().split()]

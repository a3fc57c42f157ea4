"""SIGTERM to a whole process group, and workers that get lost: training ends with one message and can go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import digits, small, state_of, toughen

GROUP_SIGNALLED = """import os, signal, sys, threading
from multiprocessing.forkserver import ForkServer
import toughen.data, toughen.training.run  # so that the signal finds the run at its workers
from toughen.cli.main import main
if sys.argv[2] == "stream":  # what else needs more images than memory holds
    whole = toughen.data.load_training
    toughen.data.load_training = lambda *given, **more: whole(*given, **{**more, "stream": True})
ensure_running, number = ForkServer.ensure_running, int(sys.argv[1])
def running(self):
    ensure_running(self)
    if threading.current_thread() is threading.main_thread() and not getattr(self, "signalled", False):
        self.signalled = True
        threading.Timer(0.3, os.killpg, [0, number]).start()  # while workers are made of a server that imports torch
ForkServer.ensure_running = running
sys.argv = ["toughen", *sys.argv[3:]]
main()
"""


def group_signalled(number: signal.Signals, kind: str, *words: object) -> subprocess.CompletedProcess[str]:
    """`toughen` in a process group that gets a signal while workers are started."""
    command = [sys.executable, "-c", GROUP_SIGNALLED, str(number.value), kind, *map(str, words)]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums differ with the number of threads
    environment = {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        command, capture_output=True, text=True, start_new_session=True, env=environment, timeout=200, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_group_while_train_starts_workers(number: signal.Signals, tmp_path: Path) -> None:
    words = small(
        "--method", "FBF", "--eps", 0.2, "--crop", "resized", "--image_size", 28, "--num_workers", 2, "--device", "cpu"
    )
    assert toughen(*words, "--out", tmp_path / "whole").status == 0
    done = group_signalled(number, "", *words, "--out", tmp_path / "cut")
    assert done.returncode == 128 + number and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.strip().splitlines()[-1].endswith("--resume")
    assert toughen(*words, "--out", tmp_path / "cut", "--resume").status == 0
    one, other = state_of(tmp_path / "whole"), state_of(tmp_path / "cut")
    assert all(bool((one[name] == other[name]).all()) for name in one | other)


@pytest.mark.slow
def test_a_signal_to_the_group_while_reproduce_starts_workers(tmp_path: Path) -> None:
    words = ["reproduce", "pap-table7", "--scale", "smoke", "--data", digits(), "--rows", "FGSM-AT", "--out", tmp_path]
    done = group_signalled(signal.SIGTERM, "stream", *words)
    assert done.returncode == 128 + signal.SIGTERM and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.strip().splitlines()[-1] == (
        "toughen: stopped; the finished work is kept, and the same command continues it"
    )
    assert list(tmp_path.glob("smoke/*/run/checkpoint.safetensors"))

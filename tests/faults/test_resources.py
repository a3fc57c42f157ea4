"""What the system refuses (room, permission, memory) and what gets lost: one message, and the last state whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import process, small, toughen

from toughen.data.feed import Unreadable
from toughen.runs.files import read_tensors
from toughen.training import checkpoint

SETTINGS = ("--method", "FBF", "--eps", 0.2, "--checkpoint_seconds", 0, "--device", "cpu")
WORDS = small(*SETTINGS)


@pytest.fixture
def few_megabytes(tmp_path: Path) -> Iterator[Path]:
    """A real file system that holds 16 megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_that_fills_up(few_megabytes: Path) -> None:
    """By a checkpoint, since something else takes the room; with room again it goes on."""
    run, ballast = few_megabytes / "run", few_megabytes / "ballast"
    begun = toughen(*WORDS, "--stop_epoch", 1, "--out", few_megabytes / "first")
    assert begun.status == 0, begun.err
    taken = sum(path.stat().st_size for path in (few_megabytes / "first").rglob("*") if path.is_file())
    free = os.statvfs(few_megabytes).f_bavail * os.statvfs(few_megabytes).f_frsize
    assert free > taken
    ballast.write_bytes(b"\0" * (free - taken // 2))
    ended = toughen(*WORDS, "--out", run)
    assert ended.status in (1, 2) and "No space left on device" in ended.err and "Traceback" not in ended.err, ended.err
    assert (few_megabytes / "first" / checkpoint.NAME).exists()
    if (run / checkpoint.NAME).exists():
        read_tensors(run / checkpoint.NAME)
    ballast.unlink()
    assert toughen(*WORDS, "--out", run, "--resume").status == 0


def test_memory_with_a_real_limit(tmp_path: Path) -> None:
    """Of the address space, set in the child after everything is imported and before training begins."""
    program = (
        "import resource, sys; import toughen.training.run\n"
        "from toughen.training.trainer import Trainer\n"
        "run_epoch = Trainer.run_epoch\n"
        "def limited(self, *given):\n"
        "    taken = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (taken + 2**20, taken + 2**20))\n"
        "    return run_epoch(self, *given)\n"
        "Trainer.run_epoch = limited\n"
        "from toughen.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    words = small("--method", "FBF", "--eps", 0.2, "--device", "cpu", "--model", "small-cnn", "--batch_size", 70)
    done = process("-c", program, *words, "--out", tmp_path / "run")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "memory" in done.stderr.strip().splitlines()[-1], done.stderr
    assert toughen(*words, "--out", tmp_path / "run", "--resume").status == 0


TWICE = """import os, signal, sys
from toughen.cli.main import main
from toughen.training.trainer import Trainer
step = Trainer.step
def twice(self, *given):
    if self.state.step == 3:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    return step(self, *given)
Trainer.step = twice
sys.argv = ["toughen", *sys.argv[1:]]
main()
"""


def test_a_clock_that_is_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an hour at each look: nothing that is timed goes by it."""
    begun = time.time()
    now = [begun]

    def back() -> float:
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", back)
    trained = toughen(*small(*SETTINGS, "--time-budget", "3s"), "--out", tmp_path / "run")
    assert trained.status == 0, trained.err
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < line["seconds"] < 60 for line in lines) and now[0] < begun - 3600
    words = ["--attacks", "fgsm", "--time-budget", "60s", "--verdict", "false", "--details", "false", "--device", "cpu"]
    evaluated = toughen("evaluate", tmp_path / "run", *words)
    assert evaluated.status == 0, evaluated.err
    assert 0 <= json.loads((tmp_path / "run" / "evaluation.json").read_text())["attacks"]["fgsm"]["seconds"] < 60


def test_sigterm_twice(tmp_path: Path) -> None:
    """The second one ends at once; what was saved before is whole."""
    done = process("-c", TWICE, *WORDS, "--out", tmp_path / "run")
    assert done.returncode in (128 + signal.SIGTERM, 128 + signal.SIGINT) and "Traceback" not in done.stderr, (
        done.stderr
    )
    assert read_tensors(tmp_path / "run" / checkpoint.NAME)[1]["step"] == 3
    assert toughen(*WORDS, "--out", tmp_path / "run", "--resume").status == 0


LOST = """import os, signal, sys, time
from pathlib import Path
from toughen.cli.main import main
from toughen.training.trainer import Trainer
step = Trainer.step
def losing(self, *given):
    if self.state.step == 1:
        for each in Path("/proc").glob("[0-9]*"):
            try:
                words, name = (each / "stat").read_text().rsplit(")", 1)[1].split(), (each / "cmdline").read_text()
            except OSError:
                continue
            mine = int(words[2]) == os.getpgrp() and os.getpid() not in (int(each.name), int(words[1]))
            if "forkserver" in name and mine:
                os.kill(int(each.name), signal.SIGKILL)  # a worker, whose parent is the server
    return step(self, *given)
Trainer.step = losing
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_lost_worker(tmp_path: Path) -> None:
    words = [*WORDS, "--crop", "resized", "--image_size", 28, "--num_workers", 1, "--batch_size", 4]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", LOST, *map(str, words), "--out", str(tmp_path / "run")]
    done = subprocess.run(
        command, capture_output=True, text=True, start_new_session=True, env=environment, timeout=250, check=False
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "a process that decodes images ended" in done.stderr.strip().splitlines()[-1]
    assert toughen(*words, "--out", tmp_path / "run", "--resume").status == 0


def test_a_lost_worker_is_no_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may word its end as it words that of a process under torchrun."""

    def ended(words: list[str]) -> None:
        raise Unreadable("a process that decodes images ended (Connection reset by peer): use --num_workers 0")

    monkeypatch.setattr("toughen.cli.train.run", ended)
    done = toughen("train")
    assert done.status == 1 and done.err.startswith("toughen: a process that decodes images ended"), done.err


@pytest.mark.skipif(not hasattr(os, "setresuid") or os.geteuid() != 0, reason="only root can take on another user")
@pytest.mark.parametrize("taken", ["before", "in training"])
def test_permission_taken(taken: str, tmp_path: Path) -> None:
    """Real permissions, as a user who is not root meets them."""
    program = (
        "import os, sys; import toughen.training.run as run\n"
        "from toughen.cli.main import main\n"
        "from toughen.training import checkpoint\n"
        "def denied(real, step=0):\n"
        "    def call(first, *given, **more):\n"
        "        if step and first.step != step: return real(first, *given, **more)\n"
        "        os.setresuid(65534, 65534, 0)\n"
        "        try: return real(first, *given, **more)\n"
        "        finally: os.setresuid(0, 0, 0)\n"
        "    return call\n"
        "if sys.argv[1] == 'before': run.check_folder = denied(run.check_folder)\n"
        "else: checkpoint.save = denied(checkpoint.save, 3)\n"
        "main(sys.argv[2:])\n"
    )
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(parent.stat().st_mode | 0o055)
    run = tmp_path / "open" / "run"
    run.parent.mkdir()
    done = process("-c", program, taken, *WORDS, "--out", run)
    said = done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr and said.startswith("toughen: ") and "Permission denied" in said, done.stderr
    assert done.returncode == (1 if taken == "in training" else 2)
    if taken == "before":
        assert not run.exists()
        return
    assert read_tensors(run / checkpoint.NAME)[1]["step"] == 2
    assert toughen(*WORDS, "--out", run, "--resume").status == 0

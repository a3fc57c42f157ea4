"""Commands with a time limit that are resumed by a later call."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from toughen.report.ending import read_recipe
from toughen.report.read import read_run

INTERRUPTED = 128 + signal.SIGINT
LEAST = 10  # with fewer seconds left no command is started
GRACE = 60  # seconds that a command may take to save its state
KERNELS: dict[str, dict[str, str]] = {  # variables that limit a processor to an older instruction set
    "native": {},
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
}


class OutOfTime(Exception):
    """The time limit is reached; unfinished work is saved."""


class TimeLimit:
    """The time limit of one call.

    Args:
        minutes: the limit, counted from now; None means no limit.
    """

    def __init__(self, minutes: float | None) -> None:
        self.end = None if minutes is None else time.monotonic() + 60 * minutes

    @property
    def left(self) -> float | None:
        """Seconds until the end."""
        return None if self.end is None else self.end - time.monotonic()

    def check(self, needed: float = 0.0) -> None:
        """Check that at least ``needed`` seconds are left.

        Raises:
            OutOfTime: they aren't.
        """
        if self.left is not None and self.left <= needed:
            raise OutOfTime

    def toughen(self, *words: str) -> None:
        """Run a toughen command that can be resumed; at the time limit it is asked to save and stop.

        Raises:
            OutOfTime: it was stopped.
            CalledProcessError: it failed.
        """
        self.python("-m", "toughen", *words)

    def script(self, name: str, *words: str) -> None:
        """Run a script of this folder; raises as ``toughen`` does."""
        self.python(str(Path(__file__).with_name(f"{name}.py")), *words)

    def python(self, *words: str) -> None:
        """Run Python; raises as ``toughen`` does."""
        self.check(LEAST)
        command = [sys.executable, *words]
        process = subprocess.Popen(command, preexec_fn=_interruptible)
        try:
            status = _ended(process, self.left)
        except BaseException:  # Ctrl-C: the child has it too
            _ended(process, GRACE)
            raise
        if status == INTERRUPTED or status == -signal.SIGINT:
            raise OutOfTime
        if status:
            raise subprocess.CalledProcessError(status, command)


def _interruptible() -> None:
    """Let SIGINT stop a child process even if the parent, such as nohup, ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _ended(process: subprocess.Popen[bytes], seconds: float | None) -> int:
    """The exit status of a process; it is asked to stop after ``seconds`` and killed ``GRACE`` seconds later."""
    for wait, ask in ((seconds, process.send_signal), (GRACE, None)):
        try:
            return process.wait(wait)
        except subprocess.TimeoutExpired:
            if ask is not None:
                ask(signal.SIGINT)
    process.kill()
    process.wait()
    return INTERRUPTED


@contextmanager
def environment(more: Mapping[str, str]) -> Iterator[None]:
    """Set these environment variables within the block."""
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def finished(folder: Path) -> bool:
    """Whether a run is complete; its weights exist from the first epoch on."""
    if not (folder / "model.json").exists():
        return False
    run = read_run(folder, folder.name)
    read_recipe(run)
    return not run.unfinished


def chosen_rows(about: str | None, rows: Sequence[str], name: str) -> argparse.Namespace:
    """Parse the command line of a script that makes a table of MNIST runs: data, rows, out, write, minutes.

    Args:
        about: the script's docstring.
        rows: all rows that it knows.
        name: of its folder of runs and of its file of results.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="MNIST: a folder of parquet shards, or a name of the hub")
    told = f"some of {', '.join(rows)} (default: all)"
    parser.add_argument("--rows", nargs="+", metavar="NAME", choices=list(rows), default=list(rows), help=told)
    parser.add_argument("--out", type=Path, default=Path("runs", name), help="where the runs go")
    default = Path("benchmarks", "results", f"{name}.json")
    parser.add_argument("--write", type=Path, default=default, metavar="FILE", help=f"the results (default: {default})")
    parser.add_argument("--minutes", type=float, help="stop within this time; a later call resumes")
    known = parser.parse_args()
    known.out.mkdir(parents=True, exist_ok=True)
    return known


@contextmanager
def until_out_of_time() -> Iterator[None]:
    """Catch ``OutOfTime`` in the block and print how to resume."""
    try:
        yield
    except OutOfTime:
        print("stopped at the time limit; repeat the same command to resume", file=sys.stderr)


def flags(given: dict[str, object]) -> Sequence[str]:
    """Settings as command-line options."""
    return [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]

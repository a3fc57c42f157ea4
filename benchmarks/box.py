"""Commands that end within a time, and are gone on with later."""

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
LEAST = 10  # seconds that are worth starting a command in
GRACE = 60  # seconds that a command may take to save its state
KERNELS: dict[str, dict[str, str]] = {  # what limits a processor to an older one's instructions
    "native": {},
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
}


class Over(Exception):
    """The time is up; what was under way is saved."""


class Box:
    """The time of one call.

    Args:
        minutes: how long it may take from now on; None sets no end.
    """

    def __init__(self, minutes: float | None) -> None:
        self.end = None if minutes is None else time.monotonic() + 60 * minutes

    @property
    def left(self) -> float | None:
        """Seconds until the end."""
        return None if self.end is None else self.end - time.monotonic()

    def check(self, needed: float = 0.0) -> None:
        """See that so many seconds are left.

        Raises:
            Over: they aren't.
        """
        if self.left is not None and self.left <= needed:
            raise Over

    def toughen(self, *words: str) -> None:
        """Run a toughen command that can be gone on with; at the end of the time it is asked to save and stop.

        Raises:
            Over: it was stopped.
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
            raise Over
        if status:
            raise subprocess.CalledProcessError(status, command)


def _interruptible() -> None:
    """Have a child be stopped by SIGINT even where what started this script, such as nohup, has it ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _ended(process: subprocess.Popen[bytes], seconds: float | None) -> int:
    """The status of a process, which is asked to stop after so many seconds and made to some time later."""
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
    """Within the block commands have these environment variables, too."""
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def finished(folder: Path) -> bool:
    """Whether a run has come to its end; its weights are there from the first epoch on."""
    if not (folder / "model.json").exists():
        return False
    run = read_run(folder, folder.name)
    read_recipe(run)
    return not run.unfinished


def chosen_rows(about: str | None, rows: Sequence[str], name: str) -> argparse.Namespace:
    """What the command line of a table of MNIST runs says: data, rows, out, write, minutes.

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
    parser.add_argument("--minutes", type=float, help="end within this time; what is under way is gone on with")
    known = parser.parse_args()
    known.out.mkdir(parents=True, exist_ok=True)
    return known


@contextmanager
def until_over() -> Iterator[None]:
    """The block may be left by ``Over``, which is said."""
    try:
        yield
    except Over:
        print("stopped; the same command goes on", file=sys.stderr)


def flags(given: dict[str, object]) -> Sequence[str]:
    """Settings as words of a command line."""
    return [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]

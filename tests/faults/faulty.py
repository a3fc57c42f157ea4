"""Commands in child processes in which one operation on a file goes wrong, and the same commands gone on with.

As a program it reads a plan from its first argument, runs every command in a fork of one process that has imported
torch, and prints a line of JSON for each. Toughen itself knows nothing of this.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

KINDS = ("kill", "full")  # killed at the operation; or it and all that need room after it fail with ENOSPC
NEEDS_ROOM = ("open", "write", "fsync", "mkdir", "link")


@dataclass(frozen=True)
class Fault:
    """What goes wrong.

    Attributes:
        folder: operations on files below it are counted; those of TensorBoard, which has a thread of its own, are not.
        number: of the operation, from 1; 0 only counts.
        kind: one of ``KINDS``.
    """

    folder: str
    number: int = 0
    kind: str = "kill"


@dataclass(frozen=True)
class Command:
    """A command, and what goes wrong in it.

    Attributes:
        words: after `toughen`.
        fault: None lets it be.
        after: seconds after which it is killed; 0 lets it be.
    """

    words: list[str]
    fault: Fault | None = None
    after: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What became of a command.

    Attributes:
        status: its exit status; minus the number of a signal that ended it.
        err: what it said on standard error.
        operations: how many were counted.
        last: the last of them.
    """

    status: int
    err: str
    operations: int = 0
    last: str = ""


@dataclass
class Injector:
    """Counts operations of the main thread, and lets one go wrong."""

    fault: Fault
    counted: Path
    count: int = 0
    full: bool = False
    log: list[str] = field(default_factory=list)

    def concerns(self, path: object) -> bool:
        """Whether a path lies in the folder that is watched."""
        if isinstance(path, int) or threading.current_thread() is not threading.main_thread():
            return False
        name = os.path.abspath(os.fsdecode(path))  # type: ignore[arg-type]
        return name.startswith(self.fault.folder) and "/tensorboard" not in name

    def met(self, operation: str, path: object) -> bool:
        """Count an operation; True where it is to go wrong."""
        self.count += 1
        self.log.append(f"{operation} {os.path.relpath(os.fsdecode(path), self.fault.folder)}")  # type: ignore[arg-type]
        self.full |= self.count == self.fault.number
        return self.count == self.fault.number or (self.full and operation in NEEDS_ROOM)

    def fail(self, path: object) -> None:
        """Die, or raise what a full disk raises."""
        if self.fault.kind == "kill":
            self.report()
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fsdecode(path))  # type: ignore[arg-type]

    def report(self) -> None:
        """Leave word of how many operations there were, and which was to go wrong."""
        last = self.log[self.fault.number - 1] if 0 < self.fault.number <= self.count else ""
        self.counted.write_text(json.dumps([self.count, last]))

    def install(self) -> None:
        """Put this between Python and the system."""
        real_open, real_fsync, names = io.open, os.fsync, dict[int, object]()

        def opened(file: Any, mode: str = "r", *more: Any, **settings: Any) -> Any:
            if not set(mode) & set("wax+") or not self.concerns(file):
                return real_open(file, mode, *more, **settings)
            if self.met("open", file):
                self.fail(file)
            return Watched(real_open(file, mode, *more, **settings), self, file)

        def read_again(file: Any, mode: str = "r", *more: Any, **settings: Any) -> Any:
            found = opened(file, mode, *more, **settings)
            if self.concerns(file) and not isinstance(found, Watched):
                names[found.fileno()] = file
            return found

        def synced(descriptor: int) -> None:
            if descriptor in names and self.met("fsync", names[descriptor]):
                self.fail(names[descriptor])
            real_fsync(descriptor)

        builtins.open = io.open = read_again
        os.fsync = synced  # type: ignore[assignment]
        for name in ("replace", "rename", "link", "unlink", "mkdir"):
            setattr(os, name, self._counting(name, getattr(os, name)))

    def _counting(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(path: Any, *more: Any, **settings: Any) -> Any:
            idle = name in ("unlink", "mkdir") and os.path.exists(path) is not (name == "unlink")
            if not idle and self.concerns(path) and self.met(name, path):
                self.fail(path)
            return real(path, *more, **settings)

        return counted


class Watched:
    """A file open for writing: a write that goes wrong leaves half of what it was given."""

    def __init__(self, file: Any, injector: Injector, path: object) -> None:
        self._file, self._injector, self._path = file, injector, path

    def write(self, content: Any) -> Any:
        if self._injector.met("write", self._path):
            self._file.write(content[: len(content) // 2])
            self._file.flush()
            self._injector.fail(self._path)
        return self._file.write(content)

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _in_fork(command: Command, folder: Path) -> Outcome:
    """Run a command in a fork of this process, and wait for it."""
    said, counted = folder / "stderr", folder / "counted"
    counted.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        _become(command, said, counted)
    killer = None
    if command.after:
        killer = threading.Timer(command.after, os.kill, [child, signal.SIGKILL])
        killer.start()
    _, status = os.waitpid(child, 0)
    if killer is not None:
        killer.cancel()
    operations, last = json.loads(counted.read_text()) if counted.exists() else (0, "")
    return Outcome(os.waitstatus_to_exitcode(status), said.read_text(errors="replace"), operations, last)


def _become(command: Command, said: Path, counted: Path) -> None:
    """Be the command; never returns."""
    from toughen.cli.main import main
    from toughen.utils import signals

    status, injector = 1, None
    try:
        descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        signals.end_on_sigterm()
        sys.argv = ["toughen", *command.words]
        if command.fault is not None:
            injector = Injector(command.fault, counted)
            injector.install()
        main(command.words)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if injector is not None:
            injector.report()
        os._exit(status)


@dataclass(frozen=True, kw_only=True)
class Walk:
    """One command, disturbed in many ways, and gone on with each time.

    Attributes:
        words: of the command; "{out}" stands for its folder.
        again: what it is gone on with.
        folder: where everything goes: the undisturbed run's to "whole", the others' to "0", "1" and so on.
        start: a folder of which each begins with a copy; "" for none.
        kind: of ``KINDS``, at every ``stride``-th operation from ``first`` on; or "moment", a kill at random moments.
        tries: how many moments.
        seed: of these, and of the order of operations.
        seconds: after which nothing more is tried, so that a slow machine tries fewer.
    """

    words: list[str]
    again: list[str]
    folder: str
    start: str = ""
    kind: str = "kill"
    first: int = 1
    stride: int = 1
    tries: int = 0
    seed: int = 0
    seconds: float | int = 10**6


@dataclass(frozen=True)
class Try:
    """A disturbed command, and how it went on.

    Attributes:
        out: its folder.
        first, again: what became of it and of what it was gone on with.
    """

    out: str
    first: Outcome
    again: Outcome


def walk(plan: Walk, timeout: float = 290) -> list[Try]:
    """Do all that a plan says; the first try is the undisturbed one."""
    folder = Path(plan.folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(asdict(plan)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with (folder / "tries.jsonl").open("w") as tries, (folder / "said").open("w") as said:
        command = [sys.executable, __file__, str(folder / "plan.json")]
        done = subprocess.run(command, env=environment, stdout=tries, stderr=said, timeout=timeout, check=False)
    assert done.returncode == 0, (folder / "said").read_text()
    return tries_of(folder)


def tries_of(folder: Path) -> list[Try]:
    """What a walk has tried so far."""
    found = [json.loads(line) for line in (folder / "tries.jsonl").read_text().splitlines()]
    return [Try(each["out"], Outcome(**each["first"]), Outcome(**each["again"])) for each in found]


def _do(plan: Walk) -> None:
    """The same, in a process of its own."""
    folder = Path(plan.folder)

    def attempt(name: str, number: int, after: float) -> Try:
        out = folder / name
        if plan.start:
            shutil.copytree(plan.start, out)
        kind = plan.kind if plan.kind in KINDS else "kill"
        first, again = ([word.replace("{out}", str(out)) for word in words] for words in (plan.words, plan.again))
        done = _in_fork(Command(first, Fault(str(out), number, kind), after), folder)
        made = Try(str(out), done, _in_fork(Command(again), folder) if number or after else done)
        print(json.dumps(asdict(made)), flush=True)
        return made

    started = time.monotonic()
    whole = attempt("whole", 0, 0.0)
    seconds, random = time.monotonic() - started, Random(plan.seed)
    if plan.kind in KINDS:
        numbers = list(range(plan.first, whole.first.operations + 1, plan.stride))
        random.shuffle(numbers)
        for number in numbers:
            if time.monotonic() - started < plan.seconds:
                attempt(str(number), number, 0.0)
    for number in range(plan.tries):
        if time.monotonic() - started < plan.seconds:
            attempt(str(number), 0, random.uniform(0.0, seconds))


def _main(path: Path) -> None:
    import torch
    from torch.utils import tensorboard  # noqa: F401

    import toughen.cli.evaluate
    import toughen.cli.reproduce
    import toughen.cli.train
    import toughen.evaluation
    import toughen.training.run  # noqa: F401 - all that is slow to import

    torch.set_num_threads(1)
    _do(Walk(**json.loads(path.read_text())))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))

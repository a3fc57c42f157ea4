"""One process at a time in a folder, without a file that stays behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover - on Windows, where folders cannot be locked
    fcntl = None  # type: ignore[assignment]

_held: dict[str, tuple[int, int]] = {}  # of this process: the folder's descriptor, and how often it is held


class Lock:
    """A folder that other processes are kept out of until it is released, or this process ends, however it does.

    The same process may hold it more than once. Where a file system knows no locks nobody is kept out.

    Args:
        folder: it exists.
        waiting: called once where another process is in there, before it is waited for; None refuses instead.

    Raises:
        ValueError: another process is in there.
    """

    def __init__(self, folder: Path, waiting: Callable[[], object] | None = None) -> None:
        self.name, self.released = os.path.realpath(folder), False
        descriptor, count = _held.get(self.name, (-1, 0))
        _held[self.name] = (_locked(folder, waiting) if descriptor < 0 else descriptor, count + 1)

    def release(self) -> None:
        """Let others in, where this was the last hold; a second call does nothing."""
        if self.released:
            return
        self.released = True
        descriptor, count = _held.pop(self.name)
        if count > 1:
            _held[self.name] = (descriptor, count - 1)
        else:
            os.close(descriptor)  # which unlocks it


@contextmanager
def held(folder: Path, waiting: Callable[[], object]) -> Iterator[None]:
    """Hold a folder, made where it is missing, waiting for another process that does."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = Lock(folder, waiting)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder, made where it is missing, unless another process does.

    Raises:
        ValueError: another process is in there, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(folder)
    except OSError as error:
        raise ValueError(f"cannot write to {folder} ({error.strerror}): choose another --out") from None
    try:
        yield
    finally:
        lock.release()


def _locked(folder: Path, waiting: Callable[[], object] | None) -> int:
    """A descriptor of the folder, locked."""
    if fcntl is None:
        return os.open(os.devnull, os.O_RDONLY)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # no locks here, but for the one error that says that another process has it
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting is None:
                    raise ValueError(f"another process uses {folder}: wait for it, or choose another --out") from None
                waiting()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor

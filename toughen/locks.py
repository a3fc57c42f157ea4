"""One process at a time in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

NAME = ".lock"  # stays behind, empty: removing it while another process waits for it would let two in


def hold(folder: Path, waiting: Callable[[], object] | None = None) -> BaseFileLock:
    """Keep other processes out of a folder until the lock is released, or this process ends, however it does.

    Args:
        folder: it exists.
        waiting: called once where another process is in there, before it is waited for; None refuses instead.

    Raises:
        ValueError: another process is in there.
    """
    lock = FileLock(folder / NAME, is_singleton=True, thread_local=False)  # which this process may hold twice
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if waiting is None:
            raise ValueError(f"another process is at work in {folder}: wait for it, or choose another --out") from None
        waiting()
        lock.acquire()
    return lock


@contextmanager
def held(folder: Path, waiting: Callable[[], object]) -> Iterator[None]:
    """Hold a folder, made where it is missing, waiting for another process that does."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = hold(folder, waiting)
    try:
        yield
    finally:
        lock.release()

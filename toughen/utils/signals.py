"""Ctrl-C and SIGTERM: training finishes the step and saves; elsewhere both end the program."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM outside of a ``GracefulShutdown`` block."""

    number = signal.SIGTERM


class Stopped(KeyboardInterrupt):
    """Training stopped on a signal; its state is saved.

    Attributes:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class GracefulShutdown:
    """Within its block, SIGINT and SIGTERM only set ``requested``; a second signal stops at once, without saving.

    Attributes:
        requested: the signal's number; 0 before a signal.
    """

    requested: int = 0

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = number

    def __enter__(self) -> GracefulShutdown:
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


@contextmanager
def stop_at_once() -> Iterator[None]:
    """Within its block, SIGINT and SIGTERM raise ``Stopped``: for a wait in which no state changes."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_on_sigterm() -> None:
    """Let SIGTERM raise ``Terminated``, so that the program cleans up and prints a message."""
    signal.signal(signal.SIGTERM, _terminate)


def ignore_sigterm() -> None:
    """Ignore SIGTERM, so that a process that ends with an error can still print it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def restore_sigterm() -> None:
    """Let SIGTERM end the process at once, the default."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def blocked_signals() -> Iterator[None]:
    """Processes that are started within its block never get SIGINT and SIGTERM; this thread gets them afterwards.

    Both are sent to all processes of a terminal or a service, but only the main process may react.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # needed by worker processes; starting it unblocks both signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_worker() -> None:
    """In a worker process, ignore signals, and end when the main process ends, even if that is killed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=[multiprocessing.parent_process()], daemon=True).start()


def _end_with(process: Any) -> None:
    process.join()
    os._exit(1)  # at once, whatever other threads wait for


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def exit_status(stopped: KeyboardInterrupt) -> int:
    """The exit status of a stopped program, as shells define it: 128 plus the signal's number."""
    return 128 + int(getattr(stopped, "number", signal.SIGINT))

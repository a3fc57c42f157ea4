"""Ctrl-C and SIGTERM: finish the step, save, and say how to go on; where there is no step, end as Ctrl-C does."""

from __future__ import annotations

import signal
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM came where no ``GracefulShutdown`` waited for it."""

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
    """While its ``with`` block lasts, SIGINT and SIGTERM only ask; a second one stops at once, without saving.

    Attributes:
        requested: the signal's number, 0 until one came.
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


def end_on_sigterm() -> None:
    """Have SIGTERM raise ``Terminated`` from here on, so that a program tidies up and says its word."""
    signal.signal(signal.SIGTERM, _terminate)


def ignore_sigterm() -> None:
    """Let a process that is about to end say why, although it is told to end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def restore_sigterm() -> None:
    """Have SIGTERM end the process at once and silently, as it does by itself."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def exit_status(stopped: KeyboardInterrupt) -> int:
    """What a program that was stopped leaves with, as shells have it: 128 and the signal's number."""
    return 128 + int(getattr(stopped, "number", signal.SIGINT))

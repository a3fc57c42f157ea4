"""How far long work has come, and the time that is left."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from toughen.utils.console import say

EVERY = 10.0
"""Seconds between two lines where the console is no terminal."""


def progress_bar(console: Console) -> Progress:
    """A progress display that keeps quiet where the console is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


class ProgressLines:
    """Lines on what is done, at most one in ``EVERY`` seconds, for a console that is no terminal.

    Args:
        console: where they go; on a terminal, which shows a bar, nothing is printed.
        title, unit: what is worked on, and what is counted, in the plural.
        total: how many there are.
    """

    def __init__(self, console: Console, title: str, unit: str, total: int) -> None:
        self.console, self.title, self.unit, self.total = console, title, unit, total
        self.done = 0
        self.started = self.printed = time.perf_counter()

    def advance(self, count: int) -> None:
        """``count`` more are done."""
        self.done += count
        now = time.perf_counter()
        if self.console.is_terminal or self.done == self.total or now - self.printed < EVERY:
            return
        self.printed = now
        left = (now - self.started) / self.done * (self.total - self.done)
        say(self.console, f"{self.title}: {self.done:,} of {self.total:,} {self.unit}, about {left:.0f} s left")

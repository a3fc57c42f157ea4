"""How far an evaluation has come: the time that is left, and how robust the model can still be."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from toughen.evaluation.attacked import share
from toughen.evaluation.plan import Piece
from toughen.evaluation.result import Evaluation
from toughen.shares import percent


class Display(AbstractContextManager["Display"]):
    """One line on a terminal that is drawn again and again; elsewhere a line for each part of an attack that is over.

    Args:
        found: what is known so far.
        plans: each attack's pieces.
        console: where to show it; None shows nothing.
    """

    def __init__(self, found: Evaluation, plans: Mapping[str, list[Piece]], console: Console | None) -> None:
        self.found, self.plans, self.console = found, plans, console or Console(quiet=True)
        self.begun, self.before = time.perf_counter(), self._spent()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("robust <= {task.fields[bound]}"),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self.task = self.bar.add_task("", total=self._spent() + self._left(), bound="")

    def __enter__(self) -> Display:
        if self.before:
            done = self.before / (self.before + self._left())
            self.console.print(f"goes on where it stopped, {percent(done)} of the work done", highlight=False)
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def update(self, name: str, piece: Piece) -> None:
        """A chunk of images is done."""
        title = name if piece.part == name else f"{name} {piece.part}"
        spent, left = self._spent(), self._left()
        self.bar.update(
            self.task, description=title, completed=spent, total=spent + left, bound=f"{100 * self._bound():.1f} %"
        )

    def finished(self, name: str, part: str) -> None:
        """A part of an attack is over."""
        if self.console.is_terminal:
            return
        title = name if part == name else f"{name} {part}"
        rate = (time.perf_counter() - self.begun) / max(1, self._spent() - self.before)
        self.console.print(
            f"{title}: {100 * self.found.accuracy(name):.1f} % stand, robust at most {100 * self._bound():.1f} %, "
            f"{self.found.state.of(name).seconds.get(part, 0.0):.0f} s, about {rate * self._left():.0f} s left",
            highlight=False,
            soft_wrap=True,
        )

    def _bound(self) -> float:
        return share(self.found.standing)

    def _spent(self) -> int:
        """Forward equivalents so far, as the pieces estimate them."""
        right = self.found.right.cpu()
        total = 0
        for name, plan in self.plans.items():
            progress = self.found.state.of(name)
            total += int(sum(plan[done].cost for done in range(progress.piece))) * int(right.sum())
            if progress.piece < len(plan):
                total += plan[progress.piece].cost * int(progress.done.sum())
        return total

    def _left(self) -> int:
        """Forward equivalents still to come, if no further image falls."""
        right = self.found.right.cpu()
        total = 0
        for name, plan in self.plans.items():
            progress = self.found.state.of(name)
            standing = int((right & ~progress.fell).sum())
            for number, piece in enumerate(plan[progress.piece :]):
                done = int((right & ~progress.fell & progress.done).sum()) if number == 0 else 0
                total += piece.cost * (standing - done)
        return total

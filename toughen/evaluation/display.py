"""Progress displays of the attacks and of the checks, with estimates of the time left."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from toughen.evaluation.examination import Examination
from toughen.evaluation.plan import AttackRound
from toughen.evaluation.result import Evaluation, share
from toughen.utils.statistics import percent

EVERY = 10.0  # seconds between the lines about the checks where there is no terminal


class AttackProgress(AbstractContextManager["AttackProgress"]):
    """Progress of the attacks: a bar on a terminal, elsewhere a line after each part of an attack.

    Args:
        evaluation: the results so far.
        plans: each attack's rounds.
        console: where to show it; None shows nothing.
    """

    def __init__(self, evaluation: Evaluation, plans: Mapping[str, list[AttackRound]], console: Console | None) -> None:
        self.evaluation, self.plans, self.console = evaluation, plans, console or Console(quiet=True)
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

    def __enter__(self) -> AttackProgress:
        if self.before:
            done = self.before / (self.before + self._left())
            self.console.print(f"continues where it stopped, {percent(done)} of the work done", highlight=False)
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def update(self, name: str, attack_round: AttackRound) -> None:
        """Show that a round has attacked another chunk of images."""
        title = name if attack_round.part == name else f"{name} {attack_round.part}"
        spent, left = self._spent(), self._left()
        self.bar.update(
            self.task, description=title, completed=spent, total=spent + left, bound=f"{100 * self._bound():.1f} %"
        )

    def finished(self, name: str, part: str) -> None:
        """Print the result of a part of an attack that has ended."""
        if self.console.is_terminal:
            return
        title = name if part == name else f"{name} {part}"
        rate = (time.perf_counter() - self.begun) / max(1, self._spent() - self.before)
        self.console.print(
            f"{title}: accuracy {percent(self.evaluation.accuracy(name))}, "
            f"robust accuracy at most {percent(self._bound())}, "
            f"{self.evaluation.state.of(name).seconds.get(part, 0.0):.0f} s, about {rate * self._left():.0f} s left",
            highlight=False,
            soft_wrap=True,
        )

    def _bound(self) -> float:
        """The highest robust accuracy that is still possible."""
        return share(self.evaluation.robust)

    def _spent(self) -> int:
        """Forward passes so far, as the rounds estimate them."""
        correct = self.evaluation.correct.cpu()
        total = 0
        for name, plan in self.plans.items():
            progress = self.evaluation.state.of(name)
            total += int(sum(plan[done].cost for done in range(progress.round))) * int(correct.sum())
            if progress.round < len(plan):
                total += plan[progress.round].cost * int(progress.done.sum())
        return total

    def _left(self) -> int:
        """Forward passes that are left if no further image is broken."""
        correct = self.evaluation.correct.cpu()
        total = 0
        for name, plan in self.plans.items():
            progress = self.evaluation.state.of(name)
            robust = int((correct & ~progress.broken).sum())
            for number, attack_round in enumerate(plan[progress.round :]):
                done = int((correct & ~progress.broken & progress.done).sum()) if number == 0 else 0
                total += attack_round.cost * (robust - done)
        return total


class CheckProgress(AbstractContextManager["CheckProgress"]):
    """Progress of the checks: a bar on a terminal, elsewhere a line every ten seconds at most.

    Args:
        examination: makes the checks.
        console: where to show it; None shows nothing.
    """

    def __init__(self, examination: Examination, console: Console | None) -> None:
        self.examination, self.console = examination, console or Console(quiet=True)
        budget, most = examination.state.budget, examination.total_cost()
        self.total = most if budget is None else min(most, budget)
        self.begun = self.printed = time.perf_counter()
        self.before = examination.spent
        self.bar = _ExaminationBar(
            examination,
            TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            BarColumn(bar_width=10),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            expand=True,  # or the columns are cut instead of the description
            disable=not self.console.is_terminal,
            transient=True,
        )
        self.task = self.bar.add_task("", total=self.total)

    def __enter__(self) -> CheckProgress:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def show(self, check: str, what: str) -> None:
        """Show that a check begins, and which images it uses."""
        self.bar.update(self.task, description=f"{check}: {what}")
        now, spent = time.perf_counter(), self.examination.spent
        if self.console.is_terminal or now - self.printed < EVERY:
            return
        self.printed = now
        left = (now - self.begun) / max(1.0, spent - self.before) * max(0.0, self.total - spent)
        self.console.print(f"{check}: {what}; at most about {left:.0f} s left", highlight=False, soft_wrap=True)


class _ExaminationBar(Progress):
    """A bar that reads the passes so far whenever it is drawn, because a single check may take long."""

    def __init__(self, examination: Examination, *columns: ProgressColumn, **settings: Any) -> None:
        self.examination = examination
        super().__init__(*columns, **settings)

    def get_renderables(self) -> Iterable[RenderableType]:
        for task in self.tasks:
            self.update(task.id, completed=min(self.examination.spent, task.total or 0.0))
        return super().get_renderables()

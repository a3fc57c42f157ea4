"""The progress display of a table or figure: one line for all its rows, with the remaining time."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from toughen.evaluation.display import AttackProgress
from toughen.evaluation.plan import AttackRound
from toughen.evaluation.result import Evaluation
from toughen.training.display import Silent
from toughen.utils.console import say
from toughen.utils.statistics import percent
from toughen.utils.units import format_duration

SIGNALS = "logit-distances.jsonl"
FIRST, EVERY = 10.0, 300.0  # without a terminal: seconds until a part's first progress line, and between later lines


class ProgressBoard(AbstractContextManager["ProgressBoard"]):
    """Shows one line on a terminal; elsewhere it prints a line for each finished part, and every few minutes otherwise.

    The remaining time is estimated from the speed since the first part's work started. Loading of data and the work of
    earlier calls do not count.

    Args:
        console: where to show it.
        work: an estimate of the operations of each part, by its title.
    """

    def __init__(self, console: Console, work: Mapping[str, float]) -> None:
        self.console, self.work = console, dict(work)
        self.total, self.done, self.part = sum(work.values()) or 1.0, 0.0, ""
        self.shares: dict[str, float] = {}  # the finished fraction of each running part
        self.before = 0.0  # operations of running parts that were done by earlier calls
        self.begun = time.perf_counter()
        self.due = self.begun + FIRST
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=None), TaskProgressColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"), console=console, disable=not console.is_terminal, transient=True,
        )  # fmt: skip
        self.task = self.bar.add_task("", total=1.0, left="")

    def __enter__(self) -> ProgressBoard:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def begin(self, part: str) -> None:
        """A part starts, or continues after others."""
        self.part = part
        self.shares.setdefault(part, 0.0)
        self.bar.update(self.task, description=part)

    def resume(self, share: float) -> None:
        """The running part's work starts; an earlier call has done the fraction ``share`` of it, 0..1."""
        if self._completed() <= self.before:
            self.begun = time.perf_counter()
            self.due = self.begun + FIRST
        if share > 0:
            self.shares[self.part] = share
            self.before += share * self.work.get(self.part, 0.0)
            self._say(f"continues from {percent(share)}")
        self._show()

    def at(self, share: float) -> None:
        """The finished fraction of the running part is now ``share``, 0..1."""
        self.shares[self.part] = min(1.0, max(self.shares.get(self.part, 0.0), share))
        if time.perf_counter() >= self.due:
            self._say(f"{percent(self.shares[self.part])} done")
            self.due = time.perf_counter() + EVERY
        self._show()

    def wait(self, folder: Path) -> None:
        """Show that another process is working on a model that is needed here."""
        self.part = f"waiting for another process at {folder.name}"
        if not self.console.is_terminal:
            say(self.console, self.part)
        self.bar.update(self.task, description=self.part)

    def end(self, outcome: str = "done") -> None:
        """The running part is done."""
        self.done += self.work.get(self.part, 0.0)
        self.shares.pop(self.part, None)
        self._say(outcome)
        self.due = time.perf_counter() + FIRST
        self._show()

    def _say(self, text: str) -> None:
        """Print a line about the running part, if there is no terminal."""
        if not self.console.is_terminal:
            say(self.console, ", ".join(filter(None, (f"{self.part}: {text}", self._left()))))

    def _show(self) -> None:
        self.bar.update(self.task, completed=self._completed() / self.total, left=self._left())

    def _completed(self) -> float:
        return self.done + sum(share * self.work.get(part, 0.0) for part, share in self.shares.items())

    @property
    def fresh(self) -> float:
        """Operations that were done by this call."""
        return self._completed() - self.before

    def _left(self) -> str:
        left = self.total - self._completed()
        if self.fresh <= 0 or left <= 0:
            return ""
        return f"about {format_duration((time.perf_counter() - self.begun) * left / self.fresh)} left"


class Training(Silent):
    """The display of a training run: updates a board, and writes the logit distances within epochs to a file.

    Args:
        board: the progress display.
        folder: the run directory.
        steps: the number of steps of the whole run.
        done: steps that an earlier call did.
    """

    def __init__(self, board: ProgressBoard, folder: Path, steps: int, done: int = 0) -> None:
        self.progress, self.folder, self.steps = board, folder, steps
        board.resume(done / max(1, steps))

    def length(self, epochs: int, steps: int) -> None:
        self.steps = steps

    def step(self, done: int, epoch: int) -> None:
        self.progress.at(done / max(1, self.steps))

    def signal(self, done: int, distance: float) -> None:
        with (self.folder / SIGNALS).open("a", encoding="utf-8") as file:
            file.write(
                "\n" + json.dumps({"step": done, "distance": distance})
            )  # starts with a newline, so a line cut by a kill stays separate


def logit_distances(run: Path) -> dict[int, float]:
    """The distance between FGSM's and R-FGSM's logits, by step; if a step was repeated, its last distance.

    A line that was cut by a kill is ignored, since its step was repeated.
    """
    lines = (run / SIGNALS).read_bytes().splitlines() if (run / SIGNALS).is_file() else []
    distances: dict[int, float] = {}
    for line in lines:
        with suppress(ValueError, TypeError, KeyError):
            each = json.loads(line)
            distances[int(each["step"])] = float(each["distance"])
    return distances


class Evaluating(AttackProgress):
    """The display of an attack: updates a board.

    Args:
        board: the progress display.
        evaluation, plans: as in ``AttackProgress``.
    """

    def __init__(self, board: ProgressBoard, evaluation: Evaluation, plans: Mapping[str, list[AttackRound]]) -> None:
        super().__init__(evaluation, plans, Console(quiet=True))
        self.board = board
        board.resume(self.before / max(1, self.before + self._left()))

    def update(self, name: str, attack_round: AttackRound) -> None:
        spent = self._spent()
        self.board.at(spent / max(1, spent + self._left()))

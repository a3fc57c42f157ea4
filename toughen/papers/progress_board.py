"""How far a table or figure has come: one line for all its rows, with the time that is left."""

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
from toughen.utils.duration import spell
from toughen.utils.statistics import percent

SIGNALS = "logit-distances.jsonl"
FIRST, EVERY = 10.0, 300.0  # seconds until a part is first spoken of where there is no terminal, and from then on


class ProgressBoard(AbstractContextManager["ProgressBoard"]):
    """One line on a terminal; elsewhere a line for each part that is done, and some minutes apart for one that lasts.

    The time left goes by what was done since the first part's work began, its data read, whatever earlier calls had
    done before.

    Args:
        console: where to show it.
        work: the cost of each part by its title, in operations, roughly: what the estimate of the time left goes by.
    """

    def __init__(self, console: Console, work: Mapping[str, float]) -> None:
        self.console, self.work = console, dict(work)
        self.total, self.done, self.part = sum(work.values()) or 1.0, 0.0, ""
        self.shares: dict[str, float] = {}  # of the parts that have begun, how much is done
        self.before = 0.0  # operations of running parts that earlier calls did
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
        """A part has begun, or goes on after others."""
        self.part = part
        self.shares.setdefault(part, 0.0)
        self.bar.update(self.task, description=part)

    def resume(self, share: float) -> None:
        """The running part's work begins; so much of it was done by an earlier call, 0..1."""
        if self._completed() <= self.before:
            self.begun = time.perf_counter()
            self.due = self.begun + FIRST
        if share > 0:
            self.shares[self.part] = share
            self.before += share * self.work.get(self.part, 0.0)
            self._say(f"goes on from {percent(share)}")
        self._show()

    def at(self, share: float) -> None:
        """So much of the running part is done, 0..1."""
        self.shares[self.part] = min(1.0, max(self.shares.get(self.part, 0.0), share))
        if time.perf_counter() >= self.due:
            self._say(f"{percent(self.shares[self.part])} done")
            self.due = time.perf_counter() + EVERY
        self._show()

    def wait(self, folder: Path) -> None:
        """Another process is at a model that is needed here."""
        self.part = f"waiting for another process at {folder.name}"
        if not self.console.is_terminal:
            say(self.console, self.part)
        self.bar.update(self.task, description=self.part)

    def end(self, outcome: str = "done") -> None:
        """The running part is done, or was there already."""
        self.done += self.work.get(self.part, 0.0)
        self.shares.pop(self.part, None)
        self._say(outcome)
        self.due = time.perf_counter() + FIRST
        self._show()

    def _say(self, text: str) -> None:
        """A line about the running part, where there is no terminal."""
        if not self.console.is_terminal:
            say(self.console, ", ".join(filter(None, (f"{self.part}: {text}", self._left()))))

    def _show(self) -> None:
        self.bar.update(self.task, completed=self._completed() / self.total, left=self._left())

    def _completed(self) -> float:
        return self.done + sum(share * self.work.get(part, 0.0) for part, share in self.shares.items())

    @property
    def fresh(self) -> float:
        """Operations that were done since it was begun."""
        return self._completed() - self.before

    def _left(self) -> str:
        left = self.total - self._completed()
        if self.fresh <= 0 or left <= 0:
            return ""
        return f"about {spell((time.perf_counter() - self.begun) * left / self.fresh)} left"


class Training(Silent):
    """Tells a board how far a run is, and keeps what the watch sees within epochs, a line each.

    Args:
        board: is told.
        folder: the run's.
        steps: of the whole run.
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
            file.write("\n" + json.dumps({"step": done, "distance": distance}))  # a line that a kill tore stays alone


def logit_distances(run: Path) -> dict[int, float]:
    """How far apart FGSM's and R-FGSM's logits lay, by step; of a step that was taken twice, what was seen last.

    A line that a kill has torn is passed over: its step was taken again.
    """
    lines = (run / SIGNALS).read_bytes().splitlines() if (run / SIGNALS).is_file() else []
    distances: dict[int, float] = {}
    for line in lines:
        with suppress(ValueError, TypeError, KeyError):
            each = json.loads(line)
            distances[int(each["step"])] = float(each["distance"])
    return distances


class Evaluating(AttackProgress):
    """Tells a board how far an attack is.

    Args:
        board: is told.
        evaluation, plans: as in an evaluation's own display.
    """

    def __init__(self, board: ProgressBoard, evaluation: Evaluation, plans: Mapping[str, list[AttackRound]]) -> None:
        super().__init__(evaluation, plans, Console(quiet=True))
        self.board = board
        board.resume(self.before / max(1, self.before + self._left()))

    def update(self, name: str, attack_round: AttackRound) -> None:
        spent = self._spent()
        self.board.at(spent / max(1, spent + self._left()))

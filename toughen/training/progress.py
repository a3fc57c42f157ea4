"""The length of a run and its current position."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

from toughen.core.distributed import world
from toughen.training.recipe import Recipe
from toughen.training.state import EpochTotals, State


@dataclass(kw_only=True)
class RunProgress(State):
    """The position of a run: batches, epochs, steps, seconds, and the share of the schedule that is done.

    Attributes:
        recipe: the settings.
        images: how many are trained on.
        replays: how often the method wants each batch.
        begun, spent_before: when this session began, and the seconds of earlier sessions.
        started: the time up to which the current epoch's seconds are counted.
    """

    recipe: Recipe
    images: int
    replays: int
    begun: float = field(default_factory=lambda: time.perf_counter())
    spent_before: float = 0.0
    started: float = 0.0

    @property
    def batches(self) -> int:
        """Batches per epoch, the last one possibly short.

        A last batch of a single image is left out, a different image in each epoch: batch norm needs two values for a
        variance, and some methods split a batch.
        """
        whole, left = divmod(self.images, self.recipe.batch_size)
        return whole + (left > 1 or not whole)

    @property
    def steps_per_epoch(self) -> int:
        return self.batches * self.replays

    @property
    def epoch(self) -> int:
        return self.step // self.steps_per_epoch

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.planned or self.recipe.epochs * self.steps_per_epoch

    @property
    def epochs(self) -> int:
        """Epochs of the whole run; with a time budget the last one may be incomplete."""
        return math.ceil(self.steps / self.steps_per_epoch)

    @property
    def total_spent(self) -> float:
        """Seconds since the run was begun, in all its sessions."""
        return self.spent_before + time.perf_counter() - self.begun

    @property
    def last_step(self) -> int:
        """The step at which the run ends: the end of the schedule, or ``stop_epoch``."""
        return self.steps if self.recipe.stop_epoch is None else self.recipe.stop_epoch * self.steps_per_epoch

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.step >= self.last_step or self.stop_reason is not None

    def validates_after(self, epoch: int) -> bool:
        """Whether validation follows this epoch, whose last step is done."""
        return epoch % self.recipe.validation_every == 0 or self.finished

    def size_of(self, step: int) -> int:
        """Images of a step's batch, in all processes."""
        begin = (step // self.replays % self.batches) * self.recipe.batch_size
        return min(self.recipe.batch_size, self.images - begin)

    def own_of(self, step: int) -> int:
        """Images of a step's batch in this process."""
        part = world().shard(self.size_of(step))
        return int(part.stop - part.start)

    def progress(self, step: int) -> float:
        """The share of the schedule that is done before this step, 0..1."""
        done = (step - self.planned_at) / max(1, self.steps - self.planned_at)
        return self.planned_progress + (1 - self.planned_progress) * done

    def end_of(self, epoch: int) -> int:
        """The step after an epoch's last one."""
        return min((epoch + 1) * self.steps_per_epoch, self.last_step)

    def start_clock(self) -> None:
        """Start to count seconds of the current epoch."""
        self.started = time.perf_counter()

    def count_seconds(self) -> None:
        """Add the time since the last call to the seconds of the current epoch."""
        now = time.perf_counter()
        self.seconds, self.started = self.seconds + now - self.started, now

    def close_epoch(self, metrics: dict[str, Any]) -> None:
        """Add an epoch's line to the history, and reset the epoch's sums."""
        self.history.append(metrics)
        self.totals, self.events, self.seconds, self.watched = EpochTotals(), [], 0.0, 0.0

    def note(self, event: str, text: str, **more: Any) -> None:
        """Add an event to the epoch's line of metrics; the text is printed."""
        ended = self.history and self.history[-1]["step"] == self.step
        (self.history[-1]["events"] if ended else self.events).append(
            {"event": event, "step": self.step, **more, "text": text}
        )

    def stop(self, reason: str) -> None:
        """End the run after this epoch."""
        self.stop_reason = reason
        self.note("stop", f"training ends: {reason}")

"""How long a run is, and where it stands."""

from __future__ import annotations

import math
import time

from toughen.core import distributed
from toughen.data import EncodedSplit, Split
from toughen.methods.base import Method
from toughen.training.recipe import Recipe
from toughen.training.state import State


class Course:
    """The way of a run: batches, epochs, steps, and the share of the schedule that is done.

    Attributes:
        recipe: the settings.
        train: the images that are trained on.
        method: says how often it wants each batch.
        state: where the run stands.
        begun, spent_before: when this session began, and the seconds of those before.
    """

    recipe: Recipe
    train: Split | EncodedSplit
    method: Method
    state: State
    begun: float
    spent_before: float

    @property
    def batches(self) -> int:
        """Batches per epoch, the last one possibly short.

        A single image that would be left over is left out of the epoch, another one in each: one value has no variance
        for a batch norm, and methods that part a batch cannot part it.
        """
        whole, left = divmod(len(self.train), self.recipe.batch_size)
        return whole + (left > 1 or not whole)

    @property
    def steps_per_epoch(self) -> int:
        return self.batches * self.method.replays

    @property
    def epoch(self) -> int:
        return self.state.step // self.steps_per_epoch

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.state.planned or self.recipe.epochs * self.steps_per_epoch

    @property
    def epochs(self) -> int:
        """Epochs of the whole run; where a time decides, the last one may be a part of one."""
        return math.ceil(self.steps / self.steps_per_epoch)

    @property
    def spent(self) -> float:
        """Seconds since the run was begun, in all its sessions."""
        return self.spent_before + time.perf_counter() - self.begun

    @property
    def last_step(self) -> int:
        """Where the run ends: with the schedule, or earlier as told."""
        return self.steps if self.recipe.stop_epoch is None else self.recipe.stop_epoch * self.steps_per_epoch

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.state.step >= self.last_step or self.state.stop_reason is not None

    def looks(self, epoch: int) -> bool:
        """Whether validation follows this epoch, whose last step is done."""
        return epoch % self.recipe.validation_every == 0 or self.finished

    def size_of(self, step: int) -> int:
        """Images of a step's batch, in all processes."""
        begin = (step // self.method.replays % self.batches) * self.recipe.batch_size
        return min(self.recipe.batch_size, len(self.train) - begin)

    def own_of(self, step: int) -> int:
        """How many of them are this process's."""
        part = distributed.shard_slice(self.size_of(step))
        return int(part.stop - part.start)

    def progress(self, step: int) -> float:
        """The share of the schedule that is done before this step, 0..1."""
        state = self.state
        done = (step - state.laid_at) / max(1, self.steps - state.laid_at)
        return state.laid_progress + (1 - state.laid_progress) * done

    def end_of(self, epoch: int) -> int:
        """The step after an epoch's last one."""
        return min((epoch + 1) * self.steps_per_epoch, self.last_step)

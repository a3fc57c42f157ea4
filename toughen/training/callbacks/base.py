"""The base of all callbacks."""

from __future__ import annotations

from typing import Any

from toughen.core.types import Step
from toughen.training.training_state import TrainingState


class Callback:
    """Is called while a run goes on; each hook does nothing unless a subclass says otherwise.

    Where several processes train, all hooks are called in each of them: what one of them is to do, such as writing a
    file, goes through ``toughen.core.distributed.world().on_main``.
    What a callback must remember when a stopped run goes on is its ``state_dict``.
    """

    def on_fit_start(self, state: TrainingState) -> None:
        """Called before the first step of each session, of one that goes on, too, after its state was loaded."""

    def on_epoch_start(self, state: TrainingState) -> None:
        """Called before the first step that is done of an epoch in this session."""

    def on_step_end(self, state: TrainingState, step: Step) -> None:
        """Called after each optimizer step; to look at a number of ``step`` is to wait for the device.

        On a GPU the next step may write its gradients into the same tensors: clone what is to be kept of them.
        """

    def due(self, state: TrainingState) -> bool:
        """Asked after each step but an epoch's last; where one process says yes, ``on_due`` is called in all.

        So what a clock decides is decided alike in all processes.
        """
        return False

    def on_due(self, state: TrainingState) -> None:
        """Called after a step where ``due`` asked for it."""

    def on_epoch_end(self, state: TrainingState, metrics: dict[str, Any]) -> None:
        """Called after an epoch's last step.

        Args:
            state: the run; ``state.stop`` with a sentence ends it here.
            metrics: the epoch's line of metrics.jsonl, which may be added to.
        """

    def on_exception(self, state: TrainingState, error: BaseException) -> None:
        """Called where an error or a signal ends the session; the error is raised again."""

    def on_fit_end(self, state: TrainingState) -> None:
        """Called last in each session, however it ends: close files here."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: numbers, texts, lists, and mappings with texts as keys."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave.

        Raises:
            ValueError: it did not give that: the checkpoint is damaged.
        """

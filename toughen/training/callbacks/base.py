"""The base of all callbacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toughen.core.types import Step
from toughen.training.training_state import TrainingState
from toughen.utils.plugins import describe_error
from toughen.utils.type_hints import is_json


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


def end_epoch(callbacks: Sequence[Callback], state: TrainingState, metrics: dict[str, Any]) -> None:
    """Call ``on_epoch_end`` of all callbacks; NumPy's numbers and tensors of one number become Python's.

    Raises:
        ValueError: a callback added something to the metrics that their file cannot hold.
    """
    for callback in callbacks:
        callback.on_epoch_end(state, metrics)
        check_metrics(metrics, callback)


def check_metrics(metrics: dict[str, Any], author: object) -> None:
    """Turn NumPy's numbers and tensors of one number into Python's.

    Args:
        metrics: an epoch's line of metrics.jsonl.
        author: who added to it last.

    Raises:
        ValueError: something in it is nothing that the file can hold.
    """
    for name, value in metrics.items():
        if not is_json(value) and hasattr(value, "item") and getattr(value, "ndim", None) == 0:
            value = metrics[name] = value.item()
        if not is_json(value):
            raise ValueError(
                f"{type(author).__name__} added {name!r} to the metrics, of type {type(value).__name__}: "
                "add numbers, texts, lists, and mappings with texts as keys"
            )


def end_session(callbacks: Sequence[Callback], hook: str, *given: Any, ended: BaseException | None) -> None:
    """Call a hook of all callbacks at the end of a session, whether or not one of them fails.

    Args:
        callbacks: in their order.
        hook: the name, ``on_exception`` or ``on_fit_end``.
        given: what it is given.
        ended: the error or signal that ended the session; where a user's callback fails, it gets a note of that.

    Raises:
        Exception: that of the first callback that failed, if it is one of toughen's or the session ended by itself.
    """
    failed: Exception | None = None
    for callback in callbacks:
        try:
            getattr(callback, hook)(*given)
        except Exception as error:  # the user's own code may raise anything
            if ended is None or type(callback).__module__.startswith("toughen."):
                failed = failed or error
            else:
                ended.add_note(f"{type(callback).__name__}.{hook} failed, too, {describe_error(error)}")
    if failed is not None:
        raise failed

"""What happens where an epoch ends: validation, the weights to keep, the watch, the epoch's line, a checkpoint."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from toughen import runs
from toughen.core import distributed
from toughen.training import checkpoint, rescue, saving
from toughen.training.budget import last_look, revise
from toughen.training.figures import epoch_figures
from toughen.training.validation import score

if TYPE_CHECKING:
    from toughen.training.trainer import Trainer


def finish_epoch(trainer: Trainer, epoch: int) -> dict[str, Any]:
    """Bring an epoch to its end.

    Args:
        trainer: the run, its last step of this epoch done.
        epoch: which, from 0.

    Returns:
        The epoch's line of metrics.jsonl.

    Raises:
        Diverged: the loss or the weights are no longer finite.
    """
    saving.check_finite(trainer)
    state, method = trainer.state, trainer.method_at(trainer.state.step - 1)
    metrics: dict[str, Any] = distributed.broadcast(epoch_figures(trainer, epoch))  # methods decide by them
    started, looked = time.perf_counter(), trainer.looks(epoch)
    metrics["validation"], metrics["kept"] = {}, trainer.recipe.weights == "last"
    if looked:
        _validate(trainer, metrics)
    metrics["validation_seconds"] = round(time.perf_counter() - started, 3)
    if metrics["kept"]:
        _write_model(trainer, epoch, metrics["validation"])
    if (moment := f"epoch {epoch}") in trainer.recipe.keep_at and distributed.is_main_process():
        checkpoint.keep_weights(trainer.folder, moment, trainer.model)
    metrics["events"] = state.events
    method.after_epoch(metrics)
    state.stop_reason = trainer.method.stop_reason
    if state.stop_reason:
        state.events.append({"event": "stop", "step": state.step, "text": f"training ends: {state.stop_reason}"})
    healthy = looked and trainer.watch.on and _watched(trainer, epoch, metrics["validation"])
    state.history.append(metrics)
    state.new_epoch()
    if state.planned:
        step_seconds = metrics["seconds_per_step"] * (1 + metrics["watch_seconds"] / metrics["seconds"])
        revise(trainer, step_seconds, time.perf_counter() - started if looked else last_look(state.history))
    saving.save(trainer, healthy=healthy and trainer.rescuer is not None)
    if distributed.is_main_process():
        runs.write_history(trainer.folder, state.history)
    return metrics


def _validate(trainer: Trainer, metrics: dict[str, Any]) -> None:
    """Measure the weights, and see whether they are the best so far."""
    found = trainer.validation(trainer.kept_model)
    metrics["validation"] = found
    metrics["kept"] |= score(found) > trainer.state.best or not found
    if metrics["kept"]:
        trainer.state.best = score(found)


def _watched(trainer: Trainer, epoch: int, found: dict[str, float]) -> bool:
    """Have the watch judge the live model, and rescue a collapsed one; whether this state is one to go back to."""
    live = found if trainer.average is None else trainer.validation(trainer.model)
    collapsed = rescue.answer(trainer, live)
    if collapsed and trainer.rescuer is not None and trainer.recipe.weights == "last":
        _write_model(trainer, epoch, trainer.validation(trainer.kept_model))  # over those that the rescue gave up
    return not collapsed and trainer.watch.judge.sound(trainer.state, live)


def _write_model(trainer: Trainer, epoch: int, found: dict[str, float]) -> None:
    """Write the weights to keep, with what validation found of them."""
    if distributed.is_main_process():
        record = replace(trainer.record, epoch=epoch, validation=found)
        runs.write_model(trainer.folder, record, trainer.kept_model)

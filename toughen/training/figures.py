"""An epoch's line in metrics.jsonl: what was learnt and what it cost."""

from __future__ import annotations

from typing import Any

from toughen.core.distributed import world
from toughen.training.state import summed
from toughen.training.training_state import TrainingState


def epoch_figures(state: TrainingState, epoch: int, forward_flops: int) -> dict[str, Any]:
    """The running epoch's figures: means over its images, for a term over those whose method has it, and its cost.

    What validation and the callbacks find is filled in by them.
    """
    totals = summed(world().all_gather(state.totals.plain()))
    means = {name: total / totals["counts"][name] for name, total in totals["sums"].items()}
    return {
        "epoch": epoch,
        "step": state.step,
        "method": type(state.method).__name__,
        "lr": state.optimizer.param_groups[0]["lr"],
        "loss": means.pop("loss"),
        "accuracy": means.pop("right"),  # on the images that the loss was taken on
        "terms": means,
        "passes": totals["passes"] / totals["images"],  # forward equivalents for each training image
        "gamma": totals["crafted"] * state.replays / totals["images"],  # PAP, Definition 1
        "flops": totals["passes"] * forward_flops,
        "seconds": round(state.seconds, 3),
        "watch_seconds": round(state.watched, 3),  # of its looks within the epoch
        "seconds_per_step": state.seconds / (state.step - epoch * state.steps_per_epoch),
        "images_per_second": round(totals["images"] / state.seconds, 1),
        "validation": {},
        "kept": False,
        "validation_seconds": 0.0,
        "events": state.events,
    }

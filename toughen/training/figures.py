"""An epoch's line in metrics.jsonl: what was learnt and what it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toughen.core import distributed
from toughen.training.state import summed

if TYPE_CHECKING:
    from toughen.training.trainer import Trainer


def epoch_figures(trainer: Trainer, epoch: int) -> dict[str, Any]:
    """The running epoch's figures: means over its images, for a term over those whose method has it, and its cost."""
    state, tally = trainer.state, summed(distributed.gather(trainer.state.tally.plain()))
    means = {name: total / tally["counts"][name] for name, total in tally["totals"].items()}
    return {
        "epoch": epoch,
        "step": state.step,
        "method": type(trainer.method_at(state.step - 1)).__name__,
        "lr": trainer.optimizer.param_groups[0]["lr"],
        "loss": means.pop("loss"),
        "accuracy": means.pop("right"),  # on the images that the loss was taken on
        "terms": means,
        "passes": tally["passes"] / tally["images"],  # forward equivalents for each training image
        "gamma": tally["crafted"] * trainer.method.replays / tally["images"],  # PAP, Definition 1
        "flops": tally["passes"] * trainer.forward_flops,
        "seconds": round(state.seconds, 3),
        "watch_seconds": round(state.watched, 3),  # of its looks within the epoch
        "seconds_per_step": state.seconds / (state.step - epoch * trainer.steps_per_epoch),
        "images_per_second": round(tally["images"] / state.seconds, 1),
    }

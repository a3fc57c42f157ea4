"""What a run says of itself before its first step."""

from __future__ import annotations

from typing import NamedTuple

from toughen.core import distributed
from toughen.training.trainer import Trainer


class Images(NamedTuple):
    """What was done to the images before: ``split_off`` as in ``Data``, and why their size was chosen, "" if given."""

    split_off: int
    why: str


def length(trainer: Trainer) -> str:
    """How long the run is, in epochs and steps."""
    epochs = f"{trainer.epochs} epoch{'s' * (trainer.epochs > 1)} of {trainer.steps_per_epoch} steps"
    if trainer.recipe.time_budget is None:
        return epochs
    return f"{trainer.steps} steps ({epochs}) in {trainer.recipe.time_budget}"


def headline(trainer: Trainer, resumed: bool, images: Images) -> str:
    """What is about to be trained, in a line or two."""
    recipe, done, size, off = trainer.recipe, trainer.state.step, trainer.recipe.image_size, images.split_off
    threat = trainer.method.threat
    against = f", {threat.norm} eps {threat.eps}" if threat else ""
    anew = ""
    if trainer.started_anew:
        anew = f"; the number of processes has changed, {', '.join(trainer.started_anew)} begins anew"
    parameters = sum(p.numel() for p in trainer.model.parameters())
    return (
        f"images are brought to {size}x{size} (--image_size): {images.why}\n"
        * bool(size and images.why)
        + f"{type(trainer.method).__name__} on {recipe.data}{against}: {recipe.model} ({parameters:,} parameters), "
        f"{len(trainer.train):,} images + {len(trainer.validation.split):,} to choose the weights"
        + f" + {off:,} kept apart as test images, which {recipe.data} has none of" * (off > 0)
        + f", {length(trainer)}, {trainer.precision} on {trainer.device}"
        + f", {distributed.count()} processes" * (distributed.count() > 1)
        + (f"; going on after step {done} of {trainer.steps}" if resumed else "")
        + anew
    )

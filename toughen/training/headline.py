"""What a run says of itself before its first step."""

from __future__ import annotations

from typing import NamedTuple

from toughen.core import distributed
from toughen.training.training_state import TrainingState


class Images(NamedTuple):
    """What was done to the images before: ``split_off`` as in ``Data``, and why their size was chosen, "" if given."""

    split_off: int
    why: str


def length(state: TrainingState) -> str:
    """How long the run is, in epochs and steps."""
    epochs = f"{state.epochs} epoch{'s' * (state.epochs > 1)} of {state.steps_per_epoch} steps"
    if state.recipe.time_budget is None:
        return epochs
    return f"{state.steps} steps ({epochs}) in {state.recipe.time_budget}"


def headline(state: TrainingState, resumed: bool, images: Images) -> str:
    """What is about to be trained, in a line or two."""
    recipe, done, size, off = state.recipe, state.step, state.recipe.image_size, images.split_off
    threat = state.main.threat
    against = f", {threat.norm} eps {threat.eps}" if threat else ""
    anew = ""
    if state.restarted:
        anew = f"; the number of processes has changed, {', '.join(state.restarted)} begins anew"
    parameters = sum(p.numel() for p in state.model.parameters())
    return (
        f"images are brought to {size}x{size} (--image_size): {images.why}\n"
        * bool(size and images.why)
        + f"{type(state.main).__name__} on {recipe.data}{against}: {recipe.model} ({parameters:,} parameters), "
        f"{state.images:,} images + {len(state.validation.split):,} to choose the weights"
        + f" + {off:,} kept apart as test images, which {recipe.data} has none of" * (off > 0)
        + f", {length(state)}, {state.precision} on {state.device}"
        + f", {distributed.count()} processes" * (distributed.count() > 1)
        + (f"; going on after step {done} of {state.steps}" if resumed else "")
        + anew
    )

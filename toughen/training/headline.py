"""The messages of a run before its first step and after its last."""

from __future__ import annotations

import textwrap
from typing import NamedTuple

from toughen.data.size_warnings import FEWEST, size_warnings
from toughen.training.checkpoint import kept_file
from toughen.training.collapse import CollapseCriterion
from toughen.training.fine_tuning import describe
from toughen.training.training_state import TrainingState
from toughen.utils.plural import count
from toughen.utils.statistics import percent


class Images(NamedTuple):
    """What the headline says of images and initial weights.

    Attributes:
        split_off: training images used as test images, as in ``Data``.
        why: the reason for the chosen image size; "" if the user gave it.
        classes: their names.
        trained, tested: training and test images of each.
        init: a message on the initial weights; "" for random ones.
        streamed: the images stay in their files and are decoded batch by batch.
        shared: test images that are training images, too.
    """

    split_off: int
    why: str
    classes: tuple[str, ...]
    trained: tuple[int, ...]
    tested: tuple[int, ...]
    init: str = ""
    streamed: bool = False
    shared: int = 0

    def warnings(self) -> list[str]:
        """What makes results on these images unreliable."""
        return size_warnings(self.classes, self.trained, self.tested, self.shared)


def length(state: TrainingState) -> str:
    """How long the run is, in epochs and steps."""
    epochs = f"{count(state.epochs, 'epoch')} of {count(state.steps_per_epoch, 'step')}"
    if state.recipe.time_budget is None:
        return epochs
    return f"{count(state.steps, 'step')} ({epochs}) in {state.recipe.time_budget}"


def headline(state: TrainingState, resumed: bool, images: Images, width: int) -> str:
    """What will be trained, in lines of at most ``width`` columns, with warnings on the data."""
    recipe, size, off, threat = state.recipe, state.recipe.image_size, images.split_off, state.recipe.threat
    parameters = sum(p.numel() for p in state.model.parameters())
    lines = [
        f"images are resized to {size}x{size} (--image-size): {images.why}" * bool(size and images.why),
        f"{type(state.main).__name__} on {recipe.data}"
        + (f", {threat.norm} eps {threat.eps}" if threat else "")
        + f" (times {recipe.eps_factor:g} in training)" * (recipe.eps_factor != 1),
        f"{recipe.model} ({parameters:,} parameters), {numbers(state)}"
        + f" + {off:,} for the test, because {recipe.data} has no test images" * (off > 0),
        "training images are streamed: they stay in their files and are decoded batch by batch" * images.streamed,
        images.init,
        describe(state.model, state.optimizer.param_groups, recipe.optimizer.lr),
        f"{length(state)}, {state.precision} on {state.device}"
        + f", {state.processes} processes" * (state.processes > 1),
        f"continues after step {state.step} of {state.steps}" * resumed,
        f"the number of processes has changed, {', '.join(state.restarted)} starts again" * bool(state.restarted),
        f"batch_size {recipe.batch_size:,} exceeds the number of images: each step uses all {state.images:,}"
        * (recipe.batch_size > state.images),
        *(f"warning: {each}" for each in images.warnings()),
    ]
    wrap = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False, subsequent_indent="  ")
    return "\n".join(wrap.fill(line) for line in lines if line)


def numbers(state: TrainingState) -> str:
    """How many images are trained on, and how many are held out."""
    held_out = len(state.validation.split)
    kept = f" + {held_out:,} to choose the weights" if held_out else ", no validation images: the last weights are kept"
    return count(state.images, "image") + kept


def ending(state: TrainingState) -> str:
    """A message if the kept weights are no better than chance on validation images; "" otherwise."""
    criterion = CollapseCriterion.of(state.validation.split.labels)
    kept: dict[str, float] = next((line["validation"] for line in reversed(state.history) if line["kept"]), {})
    if criterion.images < FEWEST or "clean" not in kept:
        return ""
    if kept["clean"] > criterion.chance + criterion.deviation:
        return ""
    method, lr = state.main, state.recipe.optimizer.lr
    tries = [f"a lower learning rate (--optimizer.lr, now {lr:g})"]
    if (threat := state.recipe.threat) is not None:
        tries += [
            f"a smaller --eps (now {threat.eps})",
            f"an eps that grows over more of the run (--eps-warmup, now {state.recipe.eps_warmup:g})",
        ]
    for name, what in (("lam", "a smaller weight"), ("ramp", "a longer ramp of it")):
        if hasattr(method, name):
            tries.append(f"{what} (--method.{name}, now {getattr(method, name):g})")
    return (
        f"The kept weights classify {percent(kept['clean'])} of the {criterion.images:,} validation images correctly. "
        f"Always predicting the most frequent class gives {percent(criterion.chance)}: "
        "the net has learnt almost nothing. "
        f"Train again with another --out and {'; or '.join(tries)}; or with more epochs."
    )


def not_kept(state: TrainingState) -> str:
    """A message if the run ended before moments of ``keep_at``; "" otherwise."""
    missed = [str(each) for each in state.recipe.keep_at if not kept_file(state.folder, each).is_file()]
    end = f"the run ended after {count(state.step, 'step')} ({count(len(state.history), 'epoch')})"
    return f"--keep-at {', '.join(missed)}: no weights are kept, as {end}" if missed else ""

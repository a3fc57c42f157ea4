"""The surrogate for black-box attacks: a standard net of a run's architecture, trained once and kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from toughen import runs
from toughen.data.embedded import NAME as EMBEDDED
from toughen.methods.standard import Standard
from toughen.training.folder import CONFIG
from toughen.training.optimizers import SGD
from toughen.training.recipe import Recipe
from toughen.training.recipe_yaml import settings_in
from toughen.training.run import train

FOLDER = "source"  # inside the run directory


def train_source(run: Path, device: str, console: Console, data: str | None) -> Path:
    """The run directory of a normally trained twin of a run's net; trained on first use, gone on with where it stopped.

    Args:
        run: a run of one of toughen's nets.
        device: where to train, unless it was begun already.
        console: told that it is trained.
        data: what to train on, unless it was begun already; None means the run's own data set.

    Raises:
        ValueError: the folder is no run, or its net or classes can't be made again from what it says of them.
    """
    record = runs.read_record(run)
    if ":" in record.model["name"] or record.subset:
        what = "a net of your own" if ":" in record.model["name"] else "some of the classes only"
        raise ValueError(f"{run} has {what}, so no standard model can be trained for it: give --surrogate RUN")
    recipe = Recipe(
        data=data or record.data,
        image_size=record.image_size,
        crop=None if record.resize is None else "resized",
        model=record.model["name"],
        model_settings=record.model["settings"],
        normalize=record.model["mean"] is not None,
        method=Standard(),
        epochs=20 if record.data == EMBEDDED else 10,
        optimizer=SGD(lr=0.05),
        flip=False,
        seed=1,  # other weights than the run's, which began from seed 0 unless told otherwise
        watch="off",
        device=device,
    )
    if (run / FOLDER / CONFIG).is_file():  # an earlier call trained it, or began to
        begun = settings_in(run / FOLDER / CONFIG)
        recipe = replace(recipe, data=begun.get("data", recipe.data), device=begun.get("device", recipe.device))
    if not (run / FOLDER).exists():
        console.print(
            f"training a standard {recipe.model} for black-box attacks, saved in {run / FOLDER}", highlight=False
        )
    return train(recipe, run / FOLDER, resume=True, console=console)

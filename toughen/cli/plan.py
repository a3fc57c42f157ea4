"""`toughen plan`: shows what a training run would do and how long it would take, without training."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from toughen import runs
from toughen.cli.shared import PROGRAM, Help
from toughen.config.parsing import Parser
from toughen.config.screens import help_requested
from toughen.config.train import GROUPS, MORE, note_on_lengths, parse_train, train_parser
from toughen.engine.device import processor
from toughen.engine.memory import peak
from toughen.runs import follow_up
from toughen.training import budget
from toughen.training.build import build
from toughen.training.headline import Images
from toughen.training.recipe import Recipe
from toughen.training.sources import missing_sources
from toughen.training.trainer import Trainer
from toughen.utils import units
from toughen.utils.console import plain, say, two_columns
from toughen.utils.plural import count
from toughen.utils.units import format_duration

HELP = Help(
    usage=f"{PROGRAM} plan [RECIPE_OR_YAML] [the settings of {PROGRAM} train]",
    about=f"Show what `{PROGRAM} train` with the same arguments would train, on which images, and for how long; some "
    "steps are timed for a few seconds, and nothing is kept or written.",
    examples=(
        f"{PROGRAM} plan --data photos --eps 8/255",
        f"{PROGRAM} plan --data photos --eps 8/255 --time-budget 30m",
        f"{PROGRAM} plan demo --batch-size 128",
    ),
    shown={title: names for title, names in GROUPS.items() if title != "Output"},
    more=MORE | {"Output": f"{GROUPS['Output']} {MORE['Output'].removeprefix('quiet json ')}"},
    defaults=False,
)
TRYING = 5.0  # seconds that steps are timed for
COUNTED = 12  # with at most this many classes, the number of images is listed for each class


def run(arguments: Sequence[str]) -> int:
    if help_requested(arguments):
        plan_parser().read(arguments)
    if any(word.partition("=")[0] == "--json" for word in arguments):
        raise ValueError(f"`{PROGRAM} plan` prints no JSON: leave --json out")
    if "--quiet" in arguments:
        raise ValueError(f"`{PROGRAM} plan` does nothing but print: leave --quiet out")
    words = [word for word in arguments if word != "--resume"]
    recipe, out, _ = parse_train(words)
    with tempfile.TemporaryDirectory() as folder:
        for place, source in missing_sources(recipe, Path(folder)).items():
            untrained, _, _ = build(source, place)  # a step takes as long with untrained sources
            place.mkdir(parents=True)
            runs.write_model(place, untrained.state.record, untrained.model)
        trainer, _, data = build(recipe, Path(folder))
    if recipe.time_budget is not None:
        budget.plan_steps(trainer)
    trainer.method.check(trainer.state.trained_epochs)
    tried = budget.measure(trainer, TRYING)
    console = Console()
    rows = {**images(trainer, data), **settings(trainer), **price(trainer, tried)}
    if "--resume" in arguments:
        rows["time"] += "; this is the whole run's, of which --resume leaves out what is trained already"
    show(console, rows)
    if note := note_on_lengths(arguments):
        say(console, note)
    say(console, f"train it: {follow_up.train(arguments, out)}")
    return 0


def plan_parser() -> Parser:
    """The parser of `toughen train`, with the help of `toughen plan`."""
    return train_parser(HELP)


def images(trainer: Trainer, data: Images) -> dict[str, str]:
    """The rows about the images: numbers, size and classes, and warnings about too few images."""
    channels, height, width = trainer.image.shape[1:]
    held_out = len(trainer.state.validation.split)
    colour = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
    held_out_test = f", {data.split_off:,} held out for testing" * (data.split_off > 0)
    kept = f"{held_out:,} to choose the weights" if held_out else "no validation images: the last weights are kept"
    off = " (the held-out ones)" * (data.split_off > 0)
    rows = {
        "images": f"{len(trainer.train):,} to train on, {kept}{held_out_test}",
        "size": f"{height} x {width}, {colour}" + (f": {data.why}" if data.why else ""),
        "classes": by_class(data.classes, data.trained),
        "test images": f"{sum(data.tested):,}{off}, of {by_class(data.classes, data.tested)}",
    }
    return rows | ({"warning": "\n".join(data.warnings())} if data.warnings() else {})


def by_class(names: Sequence[str], counts: Sequence[int]) -> str:
    """The number of classes, and the images of each; with many classes, only of the smallest and the largest."""
    if len(names) <= COUNTED:
        return f"{len(names)}: " + ", ".join(f"{name} {number:,}" for name, number in zip(names, counts, strict=True))
    (least, rare), (most, common) = (which(zip(counts, names, strict=True)) for which in (min, max))
    return f"{len(names)}: from {rare} with {least:,} to {common} with {most:,}"


def settings(trainer: Trainer) -> dict[str, str]:
    """The rows about the net, the method and the number of steps."""
    recipe: Recipe = trainer.recipe
    state = trainer.state
    threat = recipe.threat
    parameters = sum(each.numel() for each in trainer.model.parameters())
    more = "".join(f", {name} {value}" for name, value in recipe.model_settings.items())
    batch = min(recipe.batch_size, state.images)
    epochs = f"{count(state.trained_epochs, 'epoch')} of {state.steps_per_epoch:,}, {count(batch, 'image')} each"
    if state.trained_epochs < state.epochs:
        epochs += f"; the schedule is that of {state.epochs} epochs"
    return {
        "net": f"{recipe.model}{more}: {parameters:,} parameters",
        "method": type(trainer.method).__name__
        + (f" against {threat.norm} eps {threat.eps}" if threat else "")
        + f" (times {recipe.eps_factor:g} in training)" * (recipe.eps_factor != 1),
        "steps": f"{state.last_step:,}: {epochs}",
    }


def price(trainer: Trainer, tried: budget.StepCost) -> dict[str, str]:
    """The rows about the cost, estimated from the timed steps."""
    seen = min(len(trainer.train), trainer.state.batches * trainer.recipe.batch_size)  # in an epoch
    whole = trainer.state.last_step / trainer.state.batches * seen * tried.passes  # with all replays
    last, every = trainer.state.trained_epochs - 1, trainer.recipe.validation_every
    validations = last // every + 1 + (last % every > 0)  # the last epoch is validated in any case
    seconds = trainer.state.last_step * tried.step + validations * tried.validation
    validating = f", {tried.validation:.1f} s for each of {count(validations, 'validation')}" * bool(
        len(trainer.state.validation.split)
    )
    return {
        "passes": f"{tried.passes:.1f} forward passes per image and step, {whole:,.0f} in total",
        "memory": f"{units.format_size(peak(trainer.device))} at most during the timed steps",
        "time": f"{format_duration(seconds)}: {1000 * tried.step:.0f} ms per step{validating}",
        "device": f"{processor(trainer.device)}, {trainer.precision}",
    }


def show(console: Console, rows: dict[str, str]) -> None:
    """Print names and values in two columns."""
    table = two_columns()
    for name, value in rows.items():
        table.add_row(name, Text("\n").join(plain(line) for line in value.splitlines()))
    console.print(table, highlight=False)

"""A run from its recipe to its directory: opens or continues it, trains, and says how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from toughen import data as data_sets
from toughen import models, runs
from toughen.attacks.adaptive import Adaptive
from toughen.core.distributed import world
from toughen.core.rng import derive_seed
from toughen.data import Data, Streamed
from toughen.data.feed import Unreadable
from toughen.engine.device import pick_device
from toughen.engine.memory import is_out_of_memory
from toughen.training import budget, checkpoint
from toughen.training import initial as initial_weights
from toughen.training.callbacks.base import Callback
from toughen.training.callbacks.selection import named_callbacks
from toughen.training.display import Show, ShowProgress
from toughen.training.divergence import Diverged
from toughen.training.folder import begin, check_folder, complete, withdraw, write_divergence
from toughen.training.headline import Images, ending, headline, not_kept
from toughen.training.loader import memory_limit
from toughen.training.recipe import Recipe, data_image_size
from toughen.training.sources import missing_sources
from toughen.training.trainer import Trainer
from toughen.training.training_state import TrainingState
from toughen.utils.paths import expanded
from toughen.utils.signals import GracefulShutdown
from toughen.utils.type_hints import is_json


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    console: Console | None = None,
    show: Show | None = None,
    callbacks: Sequence[Callback] = (),
) -> Path:
    """Train a model as a recipe says and leave everything about it in a directory.

    Args:
        recipe: the settings, kept as config.yaml; a resumed run must have the same.
        out: the run directory; made here, and refused where it holds a run already, unless ``resume``.
        resume: go on with the run in ``out``; where it holds none, begin.
        console: where to say what is trained and how far it is; None means standard error.
        show: shows how far it is, in place of a progress line and a line an epoch.
        callbacks: your own, beside those that the recipe names; what they keep in checkpoints comes back on
            ``resume`` where they are given again.

    Returns:
        The run directory.

    Raises:
        ValueError: a setting, the data or the directory does not allow this run.
        Diverged: the loss or the weights became NaN or infinite.
        Stopped: SIGINT or SIGTERM; the state is saved, ``resume`` goes on.
        RuntimeError: the run's files can no longer be written; the last checkpoint is whole.
    """
    console = console or world().console()
    trainer = open_run(recipe, out, resume=resume, console=console, callbacks=callbacks)
    with GracefulShutdown() as shutdown:
        for _ in by_epoch(trainer, shutdown, console, show):
            pass
    for said in filter(None, (ending(trainer.state), not_kept(trainer.state))):
        console.print(said, highlight=False, markup=False, style="bold red")
    return trainer.folder


def open_run(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool,
    console: Console,
    callbacks: Sequence[Callback] = (),
) -> Trainer:
    """Begin a run, or stand where it stopped; ``by_epoch`` goes on from there.

    Args:
        recipe, out, resume, console, callbacks: as for ``train``.

    Raises:
        ValueError: a setting, the data or the directory does not allow this run.
    """
    folder = expanded(Path(out))
    check_folder(folder, recipe, resume, later="image_size" if recipe.image_size is None else "")
    for place, source in missing_sources(recipe, folder).items():
        console.print(f"first the source model {source.model} is trained without attacks", highlight=False)
        train(source, place, resume=True, console=console)
    trainer, seen, images = build(recipe, folder, callbacks)
    check_folder(folder, trainer.recipe, resume)
    world().barrier()  # all have seen the folder as it was
    resumed = resume and checkpoint.resume(trainer.state)
    if resumed and not runs.same_images(folder, seen):
        raise ValueError(
            f"the images or the classes of {recipe.data} have changed since {folder} was started: choose another --out"
        )
    if trainer.state.finished:
        world().on_main(complete, folder, trainer.state)
        console.print(
            f"{folder} is finished already: there is nothing to do", highlight=False, markup=False, soft_wrap=True
        )
        return trainer
    if recipe.time_budget is not None and not trainer.state.planned:
        budget.plan_steps(trainer)
    trainer.method.check(trainer.state.trained_epochs)
    world().on_main(begin, folder, trainer.recipe, trainer.state, seen)
    said = headline(trainer.state, resumed, images, console.width)
    console.print(said, highlight=False, markup=False, soft_wrap=True)
    return trainer


def by_epoch(
    trainer: Trainer, shutdown: GracefulShutdown, console: Console, show: Show | None = None
) -> Iterator[float]:
    """Train to the end, pausing after each epoch, so that several runs of a process can take turns.

    They become what they are alone, bit for bit, if ``deterministic`` is the same in all.

    Args:
        trainer: as ``open_run`` gives it.
        shutdown: asks to stop.
        console, show: as for ``train``.

    Yields:
        The share of the run that is done, 0..1.

    Raises:
        Diverged, Stopped, RuntimeError: as ``train``.
    """
    if trainer.state.finished:
        return
    folder = trainer.folder
    try:
        trainer.callbacks.append(ShowProgress(console, show))  # called last
        yield from trainer.by_epoch(shutdown)
    except Unreadable as error:
        raise RuntimeError(f"training failed: {error}. Fix that and continue with --resume: nothing is lost") from None
    except OSError as error:
        kept = (folder / checkpoint.NAME).exists()
        raise RuntimeError(
            f"training failed: cannot write to {folder} ({error.strerror or error}). Free space or fix it, and "
            f"{'continue with --resume: the last checkpoint is complete' if kept else 'begin again with --resume'}"
        ) from None
    except Diverged as error:
        world().on_main(write_divergence, folder, trainer.state, error)
        raise
    except Exception as error:
        if not trainer.state.step:
            world().on_main(withdraw, folder)
        if is_out_of_memory(error):
            raise RuntimeError(
                f"training failed: out of memory in a step on {trainer.recipe.batch_size} images: use a smaller "
                "--batch-size or a smaller --model"
            ) from None
        raise
    finally:
        if trainer.state.lock is not None:
            trainer.state.lock.release()


def build(
    recipe: Recipe, folder: Path, callbacks: Sequence[Callback] = ()
) -> tuple[Trainer, dict[str, Tensor], Images]:
    """Load the data, make the net, check both, and put the trainer together.

    Returns:
        The trainer, whose recipe has the size of images that was chosen; what tells its images from others; what was
        done to them.

    Raises:
        ValueError: something of it does not fit together.
    """
    named = [*named_callbacks(recipe.callbacks), *callbacks]
    initial = None if recipe.init is None else initial_weights.read_initial(recipe.init)
    before = _trained_on(recipe, initial)
    device = pick_device(recipe.device)
    if recipe.image_size is None:
        recipe = replace(recipe, image_size=before.size)
    data = data_sets.load_training(
        recipe.data,
        classes=recipe.classes,
        image_size=data_image_size(recipe.image_size),
        resize=recipe.resize,
        memory=memory_limit(recipe, device),
        stream=True if recipe.crop == "resized" else runs.streamed(folder),
    )
    recipe, threat = replace(recipe, image_size=data.image_size or recipe.image_size), recipe.threat
    if threat is not None:
        threat.check(torch.empty(1, *data.shape))
    mean, std = _statistics(recipe, data, initial, before)
    torch.manual_seed(derive_seed("weights", recipe.seed))
    net = (recipe.model, len(data.classes), data.shape, mean, std)
    model = models.create(*net, **recipe.model_settings)
    if not any(True for _ in model.parameters()):
        raise ValueError(f"model {recipe.model} has no parameters to learn: train another net")
    init = initial_weights.load_into(initial, model, recipe.model, data.classes) if initial is not None else ""
    models.check(model, len(data.classes), data.shape)
    _check_adaptive(recipe)
    record = runs.Record(
        model=models.describe(*net, recipe.model_settings),
        classes=list(data.classes),
        shape=list(data.shape),
        norm=threat.norm if threat else recipe.norm,
        eps=float(threat.eps) if threat else None,
        method=type(recipe.method).__name__,
        data=recipe.data,
        weights="live" if recipe.averaging is None else "averaged",
        epoch=-1,
        validation={},
        image_size=data.image_size,
        resize=recipe.resize,
        subset=recipe.classes is not None,
        from_hub="/" in recipe.data and not expanded(Path(recipe.data)).exists(),
        adaptive=recipe.method.adaptive,
    )
    trainer = Trainer(recipe, data, model, folder, record, named)
    if recipe.time_budget is None:
        _check_moments(trainer.state)
    seen = data.seen()
    if "hashes" in seen and initial is not None and initial.seen is not None:
        seen["inherited"] = initial.seen
    told = (data.split_off, data.why, data.classes, data.trained, data.tested)
    return trainer, seen, Images(*told, init, isinstance(data, Streamed), data.shared(seen))


def _trained_on(recipe: Recipe, initial: initial_weights.Initial | None) -> initial_weights.TrainedOn:
    """What is known of the images of the initial weights, where the run needs it."""
    if initial is None or not (recipe.image_size is None or recipe.normalize):
        return initial_weights.TrainedOn()
    return initial_weights.trained_on(initial, recipe.model, recipe.model_settings)


def _statistics(
    recipe: Recipe, data: Data | Streamed, initial: initial_weights.Initial | None, before: initial_weights.TrainedOn
) -> initial_weights.Statistics:
    """What the net's first layer normalises by: what its first weights expect, or else the training images' own."""
    if not recipe.normalize:
        return None, None
    known = None if initial is None else initial_weights.statistics(initial, before, data.shape[0])
    return known or data.statistics()


def _check_adaptive(recipe: Recipe) -> None:
    """See that evaluations will be able to attack the method's own objective.

    Raises:
        ValueError: they won't.
    """
    threat, adaptive = recipe.threat, recipe.method.adaptive
    if threat is None or adaptive is None:
        return
    try:
        if not is_json(adaptive):
            raise ValueError("it must be plain data, as JSON has it")
        Adaptive(eps=threat.eps, norm=threat.norm, **adaptive)
    except (TypeError, ValueError) as error:
        name = type(recipe.method).__name__
        raise ValueError(f"{name}.adaptive is not what toughen.attacks.Adaptive takes: {error}") from None


def _check_moments(state: TrainingState) -> None:
    """See that a run gets to all moments whose weights are to be kept.

    Raises:
        ValueError: it does not.
    """
    steps, steps_per_epoch = state.last_step, state.steps_per_epoch
    for moment in state.recipe.keep_at:
        step = moment if isinstance(moment, int) else (int(moment.removeprefix("epoch ")) + 1) * steps_per_epoch
        if not 0 < step <= steps:
            epochs = steps / steps_per_epoch
            raise ValueError(
                f"keep_at holds {moment}, and the run ends after {steps} steps, {epochs:g} epochs that count from 0"
            )

"""A run from its recipe to its directory: opens or continues it, trains, and says how it ended."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from toughen import runs
from toughen.core.distributed import world
from toughen.data.feed import Unreadable
from toughen.engine.memory import is_out_of_memory
from toughen.training import budget, checkpoint
from toughen.training.build import build
from toughen.training.callbacks.base import Callback
from toughen.training.display import Show, ShowProgress
from toughen.training.divergence import Diverged
from toughen.training.folder import begin, check_folder, complete, withdraw, write_divergence
from toughen.training.headline import ending, headline, not_kept
from toughen.training.recipe import Recipe
from toughen.training.sources import missing_sources
from toughen.training.trainer import Trainer
from toughen.utils.paths import expanded
from toughen.utils.plugins import own_place
from toughen.utils.signals import GracefulShutdown

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}  # whoever wrote, it is the disk


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    console: Console | None = None,
    warnings: Console | None = None,
    show: Show | None = None,
    callbacks: Sequence[Callback] = (),
) -> Path:
    """Train a model as a recipe says and leave everything about it in a directory.

    Args:
        recipe: the settings, kept as config.yaml; a resumed run must have the same.
        out: the run directory; made here, and refused where it holds a run already, unless ``resume``.
        resume: go on with the run in ``out``; where it holds none, begin.
        console: where to say what is trained and how far it is; None means standard error.
        warnings: where to say at the end what is wrong with the result; None means ``console``.
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
        (warnings or console).print(said, highlight=False, markup=False, style="bold red")
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
        console.print(f"source model {source.model}, trained first and without attacks:", highlight=False)
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
        place = own_place(error)
        if error.errno not in DISK and (place or isinstance(error, ConnectionError | TimeoutError)):  # of a callback
            said = f"{type(error).__name__}: {error}{place}"
            raise RuntimeError(f"training failed: {said}. Fix that and continue with --resume") from error
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

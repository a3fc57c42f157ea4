"""`toughen train`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from toughen.cli.shared import PROGRAM, fail, progress_console, several
from toughen.config.train import note_on_lengths, parse_train
from toughen.config.train import train_parser as train_parser
from toughen.core.distributed import world
from toughen.runs import follow_up
from toughen.utils.console import say
from toughen.utils.signals import Stopped, exit_status


def run(arguments: Sequence[str]) -> int:
    from toughen.training import checkpoint
    from toughen.training.divergence import Diverged
    from toughen.training.run import train  # TensorBoard and the like take a while to import

    quiet, as_json = "--quiet" in arguments, "--json" in arguments
    console = progress_console(quiet)
    recipe, out, resume = parse_train(arguments)
    if resume and _is_new(Path(out)):
        say(console, f"{out} has no checkpoint to resume from: a new run starts")
    if note := note_on_lengths(arguments):
        say(console, note)
    try:
        folder = train(recipe, out, resume=resume, console=console, warnings=progress_console(quiet=False))
    except Stopped as stopped:
        program = ["torchrun", "...", "-m", PROGRAM] if several() else [PROGRAM]
        command = shlex.join([*program, "train", *arguments]) + ("" if resume else " --resume")
        notes = "".join(f"\n{note}" for note in getattr(stopped, "__notes__", ()))
        text = f"\nstopped on {stopped}; the state is saved{notes}. Continue with:\n  {command}"
        world().on_main(print, text, file=sys.stderr)
        return exit_status(stopped)
    except Diverged as error:
        kept = f"; {out} keeps the last healthy checkpoint" if (Path(out) / checkpoint.NAME).exists() else ""
        fail(
            f"training failed: {error}. Lower --optimizer.lr (now {recipe.optimizer.lr:g}) or use --precision fp32, "
            f"with another --out{kept}",
            status=1,
        )
    world().on_main(_tell, folder, as_json)
    return 0


def _is_new(folder: Path) -> bool:
    """Whether a run can start in the folder: it is empty or does not exist, and no parent of it is a file."""
    if folder.exists():
        return folder.is_dir() and not any(folder.iterdir())
    return not any(each.is_file() for each in folder.parents)


def _tell(folder: Path, as_json: bool) -> None:
    """Print where the weights are, and the command that evaluates them."""
    from toughen import runs

    record = runs.read_record(folder)
    command = follow_up.evaluate(folder, record.model, record.eps, record.norm)
    if as_json:
        weights = str(folder / runs.WEIGHTS)
        about = {"run": str(folder), "weights": weights, "validation": record.validation, "evaluate": command}
        print(json.dumps(about, indent=2))
        return
    print(f"weights: {folder / runs.WEIGHTS}\nevaluate them: {command}")

"""The run directory during training: checks it, begins and completes it, and removes a failed run."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from toughen import runs
from toughen.data.layout import require_outside
from toughen.engine.device import provenance
from toughen.runs.files import check_takes_tensors, clear_temporaries, read_fields, write_json, write_text
from toughen.runs.locks import Lock
from toughen.training import checkpoint
from toughen.training.display import BOARD
from toughen.training.recipe import Recipe
from toughen.training.recipe_yaml import changes, recipe_yaml, settings_in
from toughen.training.training_state import TrainingState
from toughen.utils.paths import expanded
from toughen.utils.type_hints import matches

SOURCES = "sources"  # holds runs of nets that the run's method needs
CONFIG, PROVENANCE, DIVERGED = "config.yaml", "provenance.json", "diverged.json"
# settings that may change when a run goes on: no result depends on them
FREE = ("memory_limit", "num_workers", "checkpoint_seconds", "cuda_graphs")


def check_folder(folder: Path, recipe: Recipe, resume: bool, later: str = "") -> None:
    """Check that a run may be written to this directory.

    Args:
        folder: the run directory.
        recipe: the run's.
        resume: whether to go on with a run that is there.
        later: a setting that is not chosen yet, and is not compared.

    Raises:
        ValueError: it holds something already, or a run with other settings, or lies among the data's class folders.
    """
    check_takes_tensors(folder)
    require_outside(folder, expanded(Path(recipe.data)))
    if not folder.exists() or all(path.name.startswith(".") or path.name == SOURCES for path in folder.iterdir()):
        return  # left by a run that was killed before its first file
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} holds files that are not a run's: choose another --out")
    if not resume:
        raise ValueError(f"{folder} holds a run already: choose another --out, or continue it with --resume")
    changed = changes(settings_in(folder / CONFIG), recipe)
    if "data" in changed and Path(changed["data"][0]) == Path(recipe.data):  # with or without a slash at the end
        del changed["data"]
    name = next((name for name in changed if name not in (*FREE, later)), None)
    if name is not None:
        was, given = changed[name]
        name = name.replace(".init_args", "").replace(".class_path", "")
        raise ValueError(
            f"{folder} was started with other settings ({name}: {was}, now {given}): "
            "use the same settings, or choose another --out"
        )


def begin(folder: Path, recipe: Recipe, state: TrainingState, seen: dict[str, Tensor]) -> None:
    """Create and lock the run directory, and write the files that precede the first step.

    Raises:
        ValueError: nothing can be written there, or another process trains there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        state.lock = Lock(folder)
        clear_leftovers(folder)
        (folder / DIVERGED).unlink(missing_ok=True)
        write_text(folder / CONFIG, recipe_yaml(recipe))
        runs.write_seen(folder, seen)
        write_json(folder / PROVENANCE, sessions(folder, state))
    except OSError as error:
        raise ValueError(f"cannot write to {folder} ({error.strerror}): choose another --out") from None


def clear_leftovers(folder: Path) -> None:
    """Remove what a process that was killed while it wrote has left in a run directory."""
    for place in (folder, folder / checkpoint.KEPT):
        clear_temporaries(place)


def withdraw(folder: Path) -> None:
    """Remove the files of a run that failed in its first step, so that the command can be repeated."""
    for name in (CONFIG, PROVENANCE, runs.SEEN, checkpoint.HEALTHY):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / BOARD, ignore_errors=True)


def write_divergence(folder: Path, state: TrainingState, error: Exception) -> None:
    """Write for a report where and why training failed; the failure itself matters more than that it is written."""
    with suppress(OSError):
        write_json(folder / DIVERGED, {"step": state.step, "reason": str(error)})


def sessions(folder: Path, state: TrainingState) -> dict[str, Any]:
    """The provenance of this session, and of earlier ones with the step at which each began."""
    now: dict[str, Any] = {**provenance(state.device), "precision": state.precision}
    path = folder / PROVENANCE
    if not state.step or not path.is_file():
        return now
    before = read_fields(path)  # damaged: nothing is known of the sessions before
    earlier = before.pop("sessions", None) or [{"from_step": 0, **before}]
    if not matches(earlier, list[dict[str, Any]]):
        earlier = []
    if before != now:
        earlier.append({"from_step": state.step, **now})
    return {**now, "sessions": earlier} if len(earlier) > 1 else now


def complete(folder: Path, state: TrainingState) -> None:
    """Write metrics.jsonl if a kill right after the last checkpoint prevented it."""
    clear_leftovers(folder)
    if not runs.holds_history(folder, state.history):
        runs.write_history(folder, state.history)

"""The next command that a command suggests, complete as printed."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toughen.utils.net_names import TYPED, may_be_created

_USUAL = {"linf": "8/255", "l2": "0.5"}  # radii to evaluate at, where nothing was trained against


def train(words: Sequence[str], out: str) -> str:
    """The command that trains what was planned.

    Args:
        words: of the plan, after the command's name.
        out: the run directory that they lead to; where something is in it, another one is named, but not with --resume.
    """
    folder, number = Path(out), 2
    while folder.exists() and "--resume" not in words:
        folder, number = Path(f"{out}-{number}"), number + 1
    return shlex.join(["toughen", "train", *words, *(["--out", _typed(folder)] if str(folder) != out else [])])


def evaluate(folder: str | Path, model: Mapping[str, Any], eps: float | None, norm: str) -> str:
    """The command that evaluates a run.

    Args:
        folder: the run directory.
        model: the net's name and settings, as model.json has them.
        eps, norm: what it was trained against; None for nothing.
    """
    words = ["toughen", "evaluate", _typed(folder)]
    if needs_name(model):
        words += ["--model", str(model["name"])]
    if eps is None:
        words += ["--eps", _USUAL.get(norm, _USUAL["linf"])]
    return shlex.join(words)


def report(folder: str | Path) -> str:
    """The command that writes the report of a run, or of what was evaluated."""
    again = ["--overwrite"] if (Path(folder) / "report.html").exists() else []
    return shlex.join(["toughen", "report", _typed(folder), *again])


def compare(folders: Sequence[str | Path]) -> str:
    """The command that shows evaluated runs as a table."""
    return shlex.join(["toughen", "compare", *map(_typed, folders)])


def needs_name(model: Mapping[str, Any]) -> bool:
    """Whether a net is only made where the user names it, and has a name that could be."""
    name = model.get("name")
    if not isinstance(name, str) or may_be_created(name, model.get("settings")):
        return False
    return TYPED.fullmatch(name) is not None


def _typed(folder: str | Path) -> str:
    """A folder's name as a command line takes it, which has options where words begin with a hyphen."""
    return f"./{folder}" if str(folder).startswith("-") else str(folder)

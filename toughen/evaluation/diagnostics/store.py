"""diagnostics.json: what is known about a run or about several, each diagnostic under its name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toughen.runs.files import check_writable, read_json, write_text

RESULT = "diagnostics.json"


def read_diagnostics(folder: Path) -> dict[str, Any]:
    """What a folder's diagnostics.json holds; nothing where there is none.

    Raises:
        ValueError: it is damaged.
    """
    if not (folder / RESULT).is_file():
        return {}
    diagnostics = read_json(folder / RESULT)
    if not (isinstance(diagnostics, dict) and all(isinstance(each, dict) for each in diagnostics.values())):
        raise ValueError(f"{folder / RESULT} is damaged: move it elsewhere and diagnose again")
    return diagnostics


def check_usable(folder: Path) -> None:
    """See that diagnostics can be added to a folder, before time is spent on them.

    Raises:
        ValueError: they can't.
    """
    check_writable(folder)
    read_diagnostics(folder)


def set_aside(folder: Path) -> None:
    """Make room for what a new evaluation finds: what is not of the weights that are there, or was found by an earlier
    evaluation, is kept as diagnostics.1.json and so on; what `toughen diagnose` found of these weights stays.

    Raises:
        ValueError: nothing can be written there, or what is there is damaged.
    """
    weights, path = folder / "model.safetensors", folder / RESULT
    before = read_diagnostics(folder)
    if not before:
        return
    fresh = not weights.is_file() or path.stat().st_mtime_ns >= weights.stat().st_mtime_ns
    stays = {name: each for name, each in before.items() if fresh and not _of_evaluation(each)}
    if stays == before:
        return
    number = next(n for n in range(1, 10**6) if not (folder / f"diagnostics.{n}.json").exists())
    try:
        path.rename(folder / f"diagnostics.{number}.json")
    except OSError as error:
        raise ValueError(f"cannot write to {folder} ({error.strerror}): choose another --out") from None
    if stays:
        add_diagnostics(folder, stays)


def _of_evaluation(diagnostic: Mapping[str, Any]) -> bool:
    about = diagnostic.get("about")
    return isinstance(about, dict) and about.get("by") == "evaluate"


def add_closer_look(folder: Path, results: Mapping[str, Any]) -> None:
    """Write what an evaluation found besides; where `toughen diagnose` found the same, its own stays.

    Raises:
        ValueError: nothing can be written there, or what is there is damaged.
    """
    there = read_diagnostics(folder)
    if new := {name: each for name, each in results.items() if name not in there}:
        add_diagnostics(folder, new)


def add_diagnostics(folder: Path, results: Mapping[str, Any]) -> None:
    """Write diagnostics into a folder's file; those of other names stay there. A line each, because they are long.

    Raises:
        ValueError: nothing can be written there.
    """
    every = {**read_diagnostics(folder), **results}
    lines = [f"{json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in sorted(every.items())]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / RESULT, "{\n" + ",\n".join(lines) + "\n}\n")
    except OSError as error:
        raise ValueError(f"cannot write to {folder} ({error.strerror}): choose another --out") from None

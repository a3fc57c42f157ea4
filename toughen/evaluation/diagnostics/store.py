"""Reads and writes diagnostics.json, which has each diagnostic of a run, or of several, under its name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toughen.runs.files import check_writable, read_json, write_text

RESULT = "diagnostics.json"


def read_diagnostics(folder: Path) -> dict[str, Any]:
    """The contents of a folder's diagnostics.json; empty where there is none.

    Raises:
        ValueError: it is damaged.
    """
    if not (folder / RESULT).is_file():
        return {}
    try:
        diagnostics = read_json(folder / RESULT)
    except ValueError:  # whose message says to train again
        diagnostics = None
    if not (isinstance(diagnostics, dict) and all(isinstance(each, dict) for each in diagnostics.values())):
        raise ValueError(f"{folder / RESULT} is damaged: move it elsewhere and diagnose again")
    return diagnostics


def check_usable(folder: Path) -> None:
    """Check that diagnostics can be added to a folder, before time is spent on them.

    Raises:
        ValueError: the folder can't be written to, or its diagnostics.json is damaged.
    """
    check_writable(folder)
    read_diagnostics(folder)


def set_aside(folder: Path, weights: str, *, by_evaluation: bool = False) -> Path | None:
    """Rename diagnostics.json to diagnostics.1.json and so on if it has diagnostics that no longer hold.

    The others are written to a new diagnostics.json.

    Args:
        folder: where the run's diagnostics are written.
        weights: the hash of the run's weights; diagnostics of others don't hold.
        by_evaluation: whether those that an earlier evaluation made don't hold either.

    Returns:
        The renamed file; None if all diagnostics hold.

    Raises:
        ValueError: the folder can't be written to, or its diagnostics.json is damaged.
    """
    before = read_diagnostics(folder)
    kept = {
        name: each
        for name, each in before.items()
        if _is_of(each, weights) and not (by_evaluation and _about(each).get("by") == "evaluate")
    }
    if kept == before:
        return None
    renamed = _rename(folder)
    if kept:
        add_diagnostics(folder, kept)
    return renamed


def _is_of(diagnostic: Mapping[str, Any], weights: str) -> bool:
    """Whether a diagnostic is of the weights with this hash; True if its own are not known."""
    known = _about(diagnostic).get("weights")
    return not (isinstance(known, list) and known) or weights in known


def _rename(folder: Path) -> Path:
    number = next(n for n in range(1, 10**6) if not (folder / f"diagnostics.{n}.json").exists())
    try:
        return (folder / RESULT).rename(folder / f"diagnostics.{number}.json")
    except OSError as error:
        raise ValueError(f"cannot write to {folder} ({error.strerror}): choose another --out") from None


def _about(diagnostic: Mapping[str, Any]) -> Mapping[str, Any]:
    about = diagnostic.get("about")
    return about if isinstance(about, dict) else {}


def add_missing(folder: Path, results: Mapping[str, Any]) -> None:
    """Write the diagnostics whose names are not in the folder's file yet.

    Raises:
        ValueError: the folder can't be written to, or its diagnostics.json is damaged.
    """
    known = read_diagnostics(folder)
    if new := {name: each for name, each in results.items() if name not in known}:
        add_diagnostics(folder, new)


def add_diagnostics(folder: Path, results: Mapping[str, Any]) -> None:
    """Write diagnostics to a folder's file, a line for each; those with other names remain.

    Raises:
        ValueError: the folder can't be written to.
    """
    merged = {**read_diagnostics(folder), **results}
    lines = [f"{json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in sorted(merged.items())]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / RESULT, "{\n" + ",\n".join(lines) + "\n}\n")
    except OSError as error:
        raise ValueError(f"cannot write to {folder} ({error.strerror}): choose another --out") from None

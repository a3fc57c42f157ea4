"""Lists the weights of trained rows with their hashes in weights.json, so that changed weights are detected."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toughen.papers.run_spec import RunSpec
from toughen.papers.store import RUN, TRAINED
from toughen.runs import RECORD, WEIGHTS
from toughen.runs.files import read_fields, sha256, write_json
from toughen.runs.locks import held
from toughen.utils.type_hints import matches

MANIFEST = "weights.json"


def listed(root: Path) -> dict[str, dict[str, Any]]:
    """The content of weights.json, by SCALE/RUN; {} if there is no file.

    Raises:
        ValueError: the file is damaged.
    """
    path = root / MANIFEST
    runs = read_fields(path).get("runs") if path.is_file() else {}
    needed = {"weights": str, "sha256": str, "also": dict[str, str]}
    if not isinstance(runs, dict) or not all(
        isinstance(each, dict) and all(matches(each.get(name), kind) for name, kind in needed.items())
        for each in runs.values()
    ):
        raise ValueError(f"{path} is damaged: restore it from a copy, or remove it to accept all weights as they are")
    return runs


def note(root: Path, model: RunSpec, folder: Path, record: Mapping[str, Any], *, hashed: str) -> None:
    """Add a trained run to the list; an earlier entry of the same name is replaced.

    Args:
        root: the folder of results.
        model: the model.
        folder: the model's folder, which contains its run.
        record: the record of its training.
        hashed: "when trained", or "when found" for a run that was not on the list.
    """
    run = folder / RUN
    others = [run / RECORD, *sorted((run / "kept").glob("*.safetensors"))]
    entry = {
        "recipe": model.words,
        "recipe_hash": model.key.rpartition("-")[2],
        "scale": model.scale.name,
        "data": model.data,
        "seed": model.settings["seed"],
        "epochs": record.get("epochs"),
        "weights": (run / WEIGHTS).relative_to(root).as_posix(),
        "sha256": sha256(run / WEIGHTS),
        "also": {path.relative_to(root).as_posix(): sha256(path) for path in others},
        "hashed": hashed,
        "date": datetime.now(UTC).date().isoformat(),
        "provenance": record.get("provenance"),
    }
    with held(root, lambda: None):  # another process may add to it
        runs = listed(root) | {_name(root, folder): entry}
        write_json(root / MANIFEST, {"runs": dict(sorted(runs.items()))})


def check(root: Path, model: RunSpec, folder: Path) -> None:
    """Check that the weights of a trained run are unchanged; a run that is not on the list is added.

    Weights of single steps and epochs may have been removed; a figure that needs them reports that.

    Raises:
        ValueError: they have changed.
    """
    entry = listed(root).get(_name(root, folder))
    if entry is None:
        note(root, model, folder, read_fields(folder / TRAINED), hashed="when found")
        return
    for name, before in {entry["weights"]: entry["sha256"], **entry["also"]}.items():
        path = root / name
        if path.is_file() and (now := sha256(path)) != before:
            raise ValueError(
                f"{path} has changed (sha256 {now[:12]}, in {root / MANIFEST} {before[:12]}): restore it, or remove "
                f"{folder}, and the model is trained again"
            )


def _name(root: Path, folder: Path) -> str:
    return folder.relative_to(root).as_posix()

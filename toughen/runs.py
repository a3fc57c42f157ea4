"""The run directory: the files that say what a run was and what came out of it, readable without toughen."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toughen import models
from toughen.files import read_json, read_tensors, write_json, write_tensors, write_text

WEIGHTS, RECORD, SEEN = "model.safetensors", "model.json", "training-images.safetensors"


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a run's weights are and how to use them; `model.json`.

    Attributes:
        model: the net's name and plain settings, as ``toughen.models.describe`` gives them.
        classes: class names, in the order of the logits.
        shape: [c, h, w] of the images.
        norm, eps: the threat that was trained against; eps is None for training without one.
        method: the method's class name.
        data: what was trained on, as it was named.
        weights: "live" or "averaged".
        epoch: the epoch, from 0, whose weights these are.
        validation: accuracies on the validation images at that epoch, 0..1.
    """

    model: dict[str, Any]
    classes: list[str]
    shape: list[int]
    norm: str
    eps: float | None
    method: str
    data: str
    weights: str
    epoch: int
    validation: dict[str, float]


def write_model(folder: Path, record: Record, model: nn.Module) -> None:
    """Write the weights and what they are; the record is in both files, so that a kill between them is noticed."""
    write_tensors(folder / WEIGHTS, model.state_dict(), asdict(record))
    write_json(folder / RECORD, asdict(record))


def read_record(folder: Path) -> Record:
    """What a run's weights are.

    Raises:
        ValueError: the folder is no run directory, or its record is damaged.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no run directory {folder}: name one that `toughen train` wrote")
    for name in (RECORD, WEIGHTS):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}: it is no run directory, or its first epoch never ended")
    try:
        record = Record(**read_json(folder / RECORD))
        if not isinstance(record.model, dict) or len(record.shape) != 3:
            raise TypeError("its model or shape has another form")
    except TypeError as error:
        raise ValueError(f"{folder / RECORD} is damaged ({error}): restore it from a copy, or train again") from None
    return record


def load(run: str | Path, model: nn.Module | None = None) -> nn.Module:
    """A trained classifier: takes images in [0, 1], returns logits, in evaluation mode, normalisation inside.

    Args:
        run: a run directory.
        model: the net to put the weights into; needed only for a net of your own, which no file of a run may import.

    Raises:
        ValueError: the folder is no run directory, a file in it is damaged, or the weights belong to another net.
    """
    folder = Path(run)
    record = read_record(folder)
    net = models.from_description(record.model) if model is None else model
    tensors, _ = read_tensors(folder / WEIGHTS)
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{folder / WEIGHTS} does not fit the net: {_second_line(error)}") from None
    broken = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise ValueError(f"{folder / WEIGHTS} holds NaN or infinity in {broken[0]}: use another checkpoint")
    return net.eval()


def _second_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[min(1, len(lines) - 1)][:200]


def write_history(folder: Path, history: list[dict[str, Any]]) -> None:
    """metrics.jsonl: a line an epoch."""
    write_text(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in history))


def write_seen(folder: Path, hashes: Tensor) -> None:
    """Keep a hash of each training image, so that an evaluation on training images can be refused."""
    write_tensors(folder / SEEN, {"hashes": hashes})


def share_seen(folder: Path, hashes: Tensor) -> float | None:
    """The share of these images that the run was trained on; None where the run has no list of its images."""
    if not (folder / SEEN).is_file():
        return None
    seen = read_tensors(folder / SEEN)[0]["hashes"]
    return float(torch.isin(hashes, seen).float().mean()) if len(hashes) else 0.0

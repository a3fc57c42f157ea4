"""A classifier in one safetensors file: the net's own weights, and in the file's metadata all that else it takes.

The tensors have the names that they have in the net itself, so that whoever has the net loads them without toughen:
timm's nets by timm, a net of your own by its function. Normalisation is two lists in the metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import nn

from toughen import models
from toughen.models.normalize import Normalize, parts_of
from toughen.runs.directory import Record, check_kinds, checked_tensors, no_run, second_line, valid_record
from toughen.runs.files import read_tensors, write_tensors


def write_single(path: Path, record: Record, model: nn.Module, about: Mapping[str, str]) -> None:
    """Write the file.

    Args:
        path: the file; the caller has seen that it may be written.
        record: what the weights are; mean and std become those of the model's first layer.
        model: a classifier as ``load`` returns it.
        about: more texts for the metadata.
    """
    layer, net = parts_of(model)
    record = with_statistics(record, layer)
    metadata = {
        "format": "pt",
        **about,
        "model": json.dumps({key: record.model[key] for key in ("name", "settings")}),
        "mean": json.dumps(record.model["mean"]),
        "std": json.dumps(record.model["std"]),
    }
    write_tensors(path, net.state_dict(), asdict(record), metadata)


def with_statistics(record: Record, layer: Normalize | None) -> Record:
    """The record with what the model's first layer really subtracts and divides by."""
    mean, std = (None, None) if layer is None else (layer.mean.tolist(), layer.std.tolist())
    return replace(record, model={**record.model, "mean": mean, "std": std})


def load_single(path: Path, model: nn.Module | None = None) -> nn.Module:
    """The classifier of a file that ``write_single`` wrote, in evaluation mode.

    Args:
        path: the file.
        model: as for ``load``; its first layer normalises where the record says so, by the record's mean and std.

    Raises:
        ValueError: there is no such file, it is another kind of file, or the weights belong to another net.
    """
    tensors, record = _read(path)
    whole = models.from_description(record.model) if model is None else model
    layer, net = parts_of(whole)
    if (layer is None) != (record.model["mean"] is None):
        raise ValueError(f"{path} and the given net have different normalisation: give the net of the run")
    checked_tensors(path, tensors)
    try:
        if layer is not None:  # as a run's weights include them
            layer.load_state_dict(Normalize(record.model["mean"], record.model["std"]).state_dict())
        check_kinds(net, tensors)
        net.load_state_dict(tensors)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not fit the net: {second_line(error)}") from None
    return whole.eval()


def is_single(path: Path) -> bool:
    """Whether a file is one that ``write_single`` wrote, by its metadata; its tensors are not read."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).keys() >= {"model", "mean", "std", "about"}
    except (SafetensorError, OSError):
        return False


def read_record(path: Path) -> Record:
    """What the weights in a file are.

    Raises:
        ValueError: there is no such file, or it is another kind of file.
    """
    return _read(path)[1]


def _read(path: Path) -> tuple[dict[str, Any], Record]:
    if not path.is_file():
        raise ValueError(f"there is no file {path}: give one that `toughen export --format safetensors` wrote")
    try:
        tensors, about = read_tensors(path)
    except ValueError:
        if path.suffix == ".safetensors":
            raise
        raise ValueError(no_run(path)) from None  # such as a picture
    try:
        record = valid_record(about)
    except ValueError:
        raise ValueError(
            f"{path} does not name its net: give a file of `toughen export --format safetensors`, or create "
            "the net yourself and load the weights with `toughen evaluate package.module:function --weights`"
        ) from None
    if not {"mean", "std"} <= record.model.keys():
        raise ValueError(f"{path} is damaged (model): restore it from a copy, or export the run again")
    return tensors, record

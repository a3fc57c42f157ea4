"""The images that a run is judged by: of its own shape and classes, not the ones it was trained on, all or a sample."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from toughen import data as data_sets
from toughen import runs
from toughen.data import Data, Split

SEEN_LIMIT = 0.01  # the share of evaluated images that may have been trained on: real sets hold a few duplicates


def load_test(folder: Path, record: runs.Record, name: str | None) -> Data:
    """The data to evaluate on, of the shape and with the classes that the run knows.

    Raises:
        ValueError: it has others.
    """
    spec = name or record.data
    data = _with_classes(spec, record) if record.subset else _load(spec, record, None)
    if data.classes != tuple(record.classes) and sorted(data.classes) == sorted(record.classes):
        data = _with_classes(spec, record)  # the same classes, numbered otherwise
    if list(data.shape) != record.shape:
        raise ValueError(
            f"{data.name} has images of shape {list(data.shape)}, {folder} was trained on {record.shape}: "
            "give other --data"
        )
    if len(data.classes) != len(record.classes):
        raise ValueError(
            f"{data.name} has {len(data.classes)} classes, {folder} was trained on {len(record.classes)}: "
            "give other --data"
        )
    return data


def _with_classes(spec: str, record: runs.Record) -> Data:
    """The data set with the run's classes only, in its order."""
    return _load(spec, record, tuple(record.classes))


def _load(spec: str, record: runs.Record, classes: tuple[str, ...] | None) -> Data:
    return data_sets.load_test(spec, classes=classes, image_size=record.image_size, resize=record.resize)


def sample(test: Split, limit: int | None, seed: int) -> tuple[Split, Tensor]:
    """All test images, or a stratified sample of them, and their places in the test set.

    Raises:
        ValueError: the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}: it must be at least 1 image")
    if limit is None or limit >= len(test):
        return test, torch.arange(len(test))
    index = data_sets.stratified(test.labels, limit, seed)
    return test.take(index), index


def left_unchecked(folder: Path) -> dict[str, str]:
    """What a result must say of the images, since nothing could see whether the run was trained on them."""
    if not runs.streamed(folder):
        return {}
    return {"seen_images": "not checked, as the run streamed its training images and kept no list of them"}


def refuse_seen(folder: Path, data: Data, split: Split) -> None:
    """See that a run is not judged by the images it was trained on.

    Raises:
        ValueError: it would be.
    """
    seen = runs.share_seen(folder, data.hashes(split))
    if seen is not None and seen > SEEN_LIMIT:
        raise ValueError(
            f"{folder} was trained on {100 * seen:.0f} % of these images, so accuracy on them says nothing about new "
            "images: evaluate it on other data (--data)"
        )

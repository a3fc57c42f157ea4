"""The images of an evaluation: with the run's shape and classes, not trained on, all or a sample of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from toughen import data as data_sets
from toughen import runs
from toughen.data import Data, Split
from toughen.data.size_warnings import SEEN_LIMIT


def load_test(folder: str | Path, record: runs.Record, name: str | None) -> Data:
    """The data set to evaluate a run on, with the run's image shape and classes.

    Args:
        folder: the run directory or exported model, for messages.
        record: the run's model.json.
        name: the data set; None means the one that the run was trained on.

    Raises:
        ValueError: its images have another shape, or it has another number of classes.
    """
    own = tuple(record.classes)
    channels = record.shape[0] if name in (None, record.data) else None
    load = partial(
        data_sets.load_test, name or record.data, image_size=record.image_size, resize=record.resize, channels=channels
    )
    try:
        data = load(classes=own if record.subset else None)
    except FileNotFoundError:
        if name is not None:
            raise
        raise FileNotFoundError(
            f"{folder} was trained on {record.data}, which is not found from {Path.cwd()}: give --data"
        ) from None
    same = in_the_order_of(own, data.classes)
    if same is not None and same != data.classes:
        data = load(classes=same)
    if list(data.shape) != record.shape:
        raise ValueError(
            f"{data.name} has images of shape {list(data.shape)}, {folder} was trained on {record.shape}: "
            "give other --data"
        )
    if len(data.classes) != len(own):
        raise ValueError(
            f"{data.name} has {len(data.classes)} classes, {folder} was trained on {len(own)}: give other --data"
        )
    moved = next((name for name in own if name in data.classes and own.index(name) != data.classes.index(name)), None)
    if same is None and moved is not None:  # by position, an image of this class would count as one of another
        raise ValueError(
            f"{data.name} has other classes than {folder} was trained on, and {moved} is at another place among them: "
            f"name the classes of the data as those of the run ({', '.join(own[:10])}{', ...' * (len(own) > 10)})"
        )
    return data


def matched_by_order(own: tuple[str, ...], given: tuple[str, ...]) -> dict[str, str]:
    """The field of a result that says that classes of other names were taken in their order; empty where they agree.

    Args:
        own: the run's classes.
        given: those of the data.
    """
    if in_the_order_of(own, given) is not None:
        return {}
    edges = f"{given[0]} is {own[0]}, {given[-1]} is {own[-1]}"
    return {"classes_matched": f"by their order, as their names differ: {edges}"}


def in_the_order_of(own: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...] | None:
    """The names of the same classes in the order of ``own``, whatever their case; None if they are other classes."""
    if sorted(names) == sorted(own):
        return own
    by_name = {name.casefold(): name for name in names}
    if len(by_name) < len(names) or sorted(by_name) != sorted(name.casefold() for name in own):
        return None
    return tuple(by_name[name.casefold()] for name in own)


def sample(test: Split, limit: int | None, seed: int) -> tuple[Split, Tensor]:
    """All test images or a stratified sample of ``limit``, and their positions [n] in the test set.

    Raises:
        ValueError: the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}: it must be at least 1 image")
    if limit is None or limit >= len(test):
        return test, torch.arange(len(test))
    index = data_sets.stratified(test.labels, limit, seed)
    return test.take(index), index


def left_unchecked(folder: Path | None) -> dict[str, str]:
    """The field of a result that says that ``refuse_seen`` was not possible; empty where it was.

    Args:
        folder: the run directory; None for an exported model.
    """
    if folder is None:
        return {"seen_images": "not checked, as an exported model has no list of its training images"}
    if not runs.streamed(folder):
        return {}
    return {"seen_images": "not checked, as the run streamed its training images and kept no list of them"}


def refuse_seen(folder: Path, data: Data, split: Split) -> dict[str, str]:
    """Check that a run is not evaluated on its training images.

    Args:
        folder: the run directory.
        data: with all test images.
        split: those to evaluate on, all or a sample.

    Returns:
        The field of a result that says how many of the images the run was trained on; empty where none or not known.

    Raises:
        ValueError: more than ``SEEN_LIMIT`` of them, and of all test images.
    """
    shared = runs.count_seen(folder, data.hashes(split))
    if not shared:
        return {}
    if shared > SEEN_LIMIT * len(split):
        total = len(data.test)
        of_all = shared if total == len(split) else runs.count_seen(folder, data.hashes(data.test))
        if of_all > SEEN_LIMIT * total:
            raise ValueError(
                f"{folder} was trained on {100 * of_all / total:.0f} % of these images ({of_all:,} of {total:,}), and "
                "accuracy on such images says nothing about new ones: evaluate it on other data (--data)"
            )
    return {"seen_images": f"{shared:,} of {len(split):,}"}


def valid_split(images: Tensor, labels: Tensor) -> Split:
    """Check a user's images and labels.

    Args:
        images: [n, c, h, w], bytes or floats in [0, 1].
        labels: [n], class numbers from 0.

    Returns:
        The images as bytes or float32, and the labels as int64.

    Raises:
        ValueError: they are of another kind, or there are none.
    """
    for name, value in (("images", images), ("labels", labels)):
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} are {type(value).__name__}: give tensors, such as torch.as_tensor({name})")
    if images.ndim != 4 or not len(images):
        raise ValueError(f"images have shape {list(images.shape)}: give some, [n, channels, rows, columns]")
    if images.dtype != torch.uint8:
        low, high = float(images.min()), float(images.max())
        if not images.is_floating_point() or not (low >= 0 and high <= 1):
            raise ValueError(f"images are {images.dtype} from {low:g} to {high:g}: give bytes, or floats in [0, 1]")
    integers = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if not integers or labels.shape != images.shape[:1]:
        raise ValueError(
            f"labels are {labels.dtype} of shape {list(labels.shape)} for {len(images)} images: "
            "give one class number per image"
        )
    if len(labels) and int(labels.min()) < 0:
        raise ValueError(f"labels go down to {int(labels.min())}: number the classes from 0")
    return Split(images if images.dtype == torch.uint8 else images.float(), labels.long())

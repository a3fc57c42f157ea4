"""Loads data sets: from the user's folder, name or URL to decoded images."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import NamedTuple

import torch

from toughen.data.common_size import ImageSize
from toughen.data.decode import Form, Headers, check_memory, decode, form_of, read_headers, survey
from toughen.data.find import Classes, find
from toughen.data.sets import Data, Split, by_class
from toughen.data.sources import Source, Sources
from toughen.data.stream import Streamed, encoded_split
from toughen.utils.memory import available_memory

LOOKED = 20_000  # images of a split, of which all headers are read where a sample is enough
SHARE = 0.5  # the fraction of the available memory that decoded images may take if no limit is given


def load(spec: str, *, classes: Classes | None = None, image_size: ImageSize = None, resize: int | None = None) -> Data:
    """A data set, decoded to uint8.

    Args:
        spec: an existing folder (preferred over a name), "mnist-5k", or a name on the Hugging Face hub: a short name
            from ``names()``, OWNER/NAME or OWNER/NAME:CONFIGURATION; or the URL of a folder of parquet shards, such as
            hf://datasets/OWNER/NAME, read in place. A folder has parquet shards, train-*.parquet and
            test-*.parquet, also within train/, test/ or data/; or images, train/CLASS/* and test/CLASS/*, or CLASS/*.
            If there is no test split, the validation split is used; if there is neither, a stratified tenth of the
            training images, always the same (seed 0).
        classes: a file with one class name per line, or the names; only these classes are kept, numbered in that order.
            Or "imagenet100", the 100 ImageNet classes that GAT and NuAT were tested on (val-iisc/GAMA-GAT).
        image_size: rows and columns of every image: the shorter side is resized (bicubic, antialiased), then the centre
            is cropped. None: all images must have one size.
        resize: with ``image_size``, pixels that the shorter side is resized to first (bilinear), so that the crop
            removes a margin, as is usual for ImageNet. None: ``image_size``.

    Raises:
        FileNotFoundError: there is no such folder, name or file of classes.
        ValueError: the set cannot be used as it is; the message names the file and row.
    """
    return _decoded(find(spec, classes, image_size), image_size, resize)


class Outline(NamedTuple):
    """A summary of a data set.

    Attributes:
        shape: channels, rows and columns of its images once they are decoded.
        classes: the class names.
        train, test: the number of images of each split.
        counts, tested: the number of training and of test images of each class.
        split_off: as in ``Data``.
        sides: the smallest and the largest shorter side of an image, in pixels.
        looked: the number of images whose headers were read: all, or a sample of a large set.
        image_size: the pixels that images are resized to; None if they are left as they are.
        why: the reason for the size, if it was chosen automatically.
    """

    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    train: int
    test: int
    counts: tuple[int, ...] = ()
    tested: tuple[int, ...] = ()
    split_off: int = 0
    sides: tuple[int, int] = (0, 0)
    looked: int = 0
    image_size: int | None = None
    why: str = ""


def peek(
    spec: str, *, classes: Classes | None = None, image_size: ImageSize = "auto", resize: int | None = None
) -> Outline:
    """Summarise a set from image headers: of all images, or of a sample of 1,024 if a split has more than 20,000.

    Args:
        spec, classes, image_size, resize: as for ``load``.

    Raises:
        FileNotFoundError, ValueError: as for ``load_training``.
    """
    sources = find(spec, classes, image_size)
    train, test = sources.both()
    _require_all_classes(sources, train)
    headers = [_headers(split) for split in (train, test)]
    form = form_of(headers, image_size, resize)
    sides = [min(size) for each in headers for size in each.sizes]
    counts, tested = (by_class(split.labels, len(sources.classes)) for split in (train, test))
    return Outline(
        form.shape, sources.classes, len(train), len(test), counts, tested,
        len(test) if sources.test is None else 0, (min(sides), max(sides)),
        sum(each.sizes.total() for each in headers), form.image_size, form.why,
    )  # fmt: skip


def _require_all_classes(sources: Sources, train: Source) -> None:
    """Check that every class has training images."""
    lacking = torch.bincount(train.labels, minlength=len(sources.classes)).eq(0).nonzero()
    if len(lacking):
        raise ValueError(
            f"{sources.name}: class {sources.classes[int(lacking[0])]!r} has no training images: add some, "
            "number the classes from 0 without gaps, or name the classes for training with --classes"
        )


def load_training(
    spec: str,
    *,
    classes: Classes | None = None,
    image_size: ImageSize = None,
    resize: int | None = None,
    memory: int | None = None,
    stream: bool | None = None,
) -> Data | Streamed:
    """A data set for training: decoded, as from ``load``, or streamed, with training images that stay encoded.

    Args:
        spec, classes, image_size, resize: as for ``load``.
        memory: bytes that decoded images may take; a larger set is streamed. None means half of the available memory.
        stream: whether the set is streamed; None: if it exceeds ``memory``. mnist-5k is never streamed.

    Raises:
        FileNotFoundError, ValueError: as for ``load``; or a class has no training images, or they cannot be streamed.
    """
    sources = find(spec, classes, image_size)
    train, test = sources.both()
    _require_all_classes(sources, train)
    if stream is None:
        stream = _exceeds(train, test, image_size, memory)
    if not stream:
        return _decoded(sources, image_size, resize)
    form = _form_of_sample(train, image_size, resize)
    if sources.test is not None and test.store is not None:  # colour if the test images are, as for a decoded set
        form = _common(form, _form_of_sample(test, image_size, resize))
    split = encoded_split(train, form)
    tested = by_class(test.labels, len(sources.classes))
    return Streamed(sources.name, split, sources.classes, len(test) if sources.test is None else 0, tested)


def load_test(
    spec: str,
    *,
    classes: Classes | None = None,
    image_size: ImageSize = None,
    resize: int | None = None,
    channels: int | None = None,
) -> Data:
    """A data set for evaluation: its test images alone. Of the training images at most the headers are read.

    The set may have only test images; then all of them are used.

    Args:
        spec, classes, image_size, resize: as for ``load``.
        channels: the channels that its images are known to have, decoded; None: colour if any image is in colour,
            where the headers of the training images are read, or of 1,024 of them if there are more than 20,000.

    Raises:
        FileNotFoundError, ValueError: as for ``load``, of the test images.
    """
    sources = find(spec, classes, image_size)
    alone = sources.only_test()
    train, test = (None, alone) if alone is not None else sources.both()
    headers = [read_headers(test)]
    if train is not None and (channels is None or image_size == "auto"):
        headers.insert(0, _headers(train))
    form = form_of(headers, image_size, resize)
    if channels == 3:
        form = replace(form, mode="RGB")
    check_memory(len(test) * prod(form.shape))
    return _data(sources, _none(form), Split(decode(test, form), test.labels), form)


def _headers(split: Source) -> Headers:
    """The headers of all images, or of a sample of many."""
    return read_headers(_sample(split) if split.store and len(split) > LOOKED else split)


def _none(form: Form) -> Split:
    return Split(torch.empty(0, *form.shape, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))


def _decoded(sources: Sources, image_size: ImageSize, resize: int | None) -> Data:
    train, test = sources.both()
    form = survey((train, test), image_size, resize)
    check_memory((len(train) + len(test)) * prod(form.shape))
    decoded_train, decoded_test = (Split(decode(source, form), source.labels) for source in (train, test))
    return _data(sources, decoded_train, decoded_test, form)


def _data(sources: Sources, train: Split, test: Split, form: Form) -> Data:
    split_off = len(test) if sources.test is None else 0
    return Data(sources.name, train, test, sources.classes, split_off, form.image_size, form.why)


def _exceeds(train: Source, test: Source, image_size: ImageSize, memory: int | None) -> bool:
    """Whether both splits, decoded, need more than ``memory`` bytes; False if they cannot be read in any order."""
    if train.store is None or test.store is None:
        return False
    limit = int(SHARE * available_memory()) if memory is None else memory
    count = len(train) + len(test)
    if image_size != "auto":  # with "auto", the first image is not enough to know the size
        first = encoded_split(train, _UNKNOWN).take(torch.zeros(1, dtype=torch.int64)).source()
        if count * 3 * prod(survey((first,), image_size).size) <= limit:
            return False  # even if all are in colour
    return count * prod(_form_of_sample(train, image_size, None).shape) > limit


def _common(form: Form, other: Form) -> Form:
    """The first form, in colour if one of the two is."""
    return replace(form, mode="RGB" if "RGB" in (form.mode, other.mode) else "L")


_UNKNOWN = Form("RGB", (0, 0), None)


def _sample(split: Source) -> Source:
    return encoded_split(split, _UNKNOWN).sample().source()


def _form_of_sample(train: Source, image_size: ImageSize, resize: int | None) -> Form:
    """The common form of all images, estimated from a sample.

    Raises:
        ValueError: one of them cannot be opened, or the images cannot be read in any order.
    """
    return survey((_sample(train),), image_size, resize)

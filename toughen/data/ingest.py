"""The one way in: from what the user calls a data set to decoded images."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import NamedTuple

import torch

from toughen.data.common_size import ImageSize
from toughen.data.decode import Form, check_memory, decode, form_of, look, survey
from toughen.data.find import Classes, find
from toughen.data.sets import Data, Split, by_class
from toughen.data.sources import Source, Sources
from toughen.data.stream import Streamed, encoded_split
from toughen.utils import sizes

LOOKED = 20_000  # images of a split, at most, whose headers are all read by ``peek``
SHARE = 0.5  # of the memory that is available, which decoded images may take where no limit is given


def load(spec: str, *, classes: Classes | None = None, image_size: ImageSize = None, resize: int | None = None) -> Data:
    """A data set, decoded to uint8.

    Args:
        spec: an existing folder (it wins over a name), "mnist-5k", or a name on the Hugging Face hub: a short one from
            ``names()``, OWNER/NAME or OWNER/NAME:CONFIGURATION; or the address of a folder of parquet shards, such as
            hf://datasets/OWNER/NAME, read in place. A folder has parquet shards, train-*.parquet and
            test-*.parquet, also within train/, test/ or data/; or images, train/CLASS/* and test/CLASS/*, or CLASS/*.
            Where there is no test split, the validation split is it; where there is neither, a stratified tenth of the
            training images, always the same (seed 0).
        classes: a file with one class name per line, or the names; only these classes are kept, numbered in that order.
            Or "imagenet100", the 100 of ImageNet's that GAT and NuAT were tried on (val-iisc/GAMA-GAT).
        image_size: bring every image to so many rows and columns: the shorter side is resized (bicubic, antialiased),
            then the centre is cut out. None: all images must have one size.
        resize: with ``image_size``, bring the shorter side to so many pixels first (bilinear), so that a margin is cut
            off, as is usual for ImageNet. None: ``image_size``.

    Raises:
        FileNotFoundError: there is no such folder, name or file of classes.
        ValueError: the set cannot be used as it is; the message names the file and row.
    """
    return _decoded(find(spec, classes, image_size), image_size, resize)


class Outline(NamedTuple):
    """What a set is like.

    Attributes:
        shape: channels, rows and columns that its images are turned into.
        classes: their names.
        train, test: how many images there are of each split.
        counts, tested: the same of each class.
        split_off: as in ``Data``.
        sides: the smallest and the largest shorter side of an image, in pixels.
        looked: how many images' headers say so: all, or a sample of a large set.
        image_size: what images are brought to, in pixels; None where they stay as they are.
        why: where nobody gave the size, why it is this one.
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
    """Look at a set without decoding it: at the headers of all images, or, of more than 20,000 in a split, of 1,024.

    Args:
        spec, classes, image_size, resize: as for ``load``.

    Raises:
        FileNotFoundError, ValueError: as for ``load_training``.
    """
    sources = find(spec, classes, image_size)
    train, test = sources.both()
    _require_all_classes(sources, train)
    looks = [look(_sample(split) if split.store and len(split) > LOOKED else split) for split in (train, test)]
    form = form_of(looks, image_size, resize)
    sides = [min(size) for each in looks for size in each.sizes]
    counts, tested = (by_class(split.labels, len(sources.classes)) for split in (train, test))
    return Outline(
        form.shape, sources.classes, len(train), len(test), counts, tested,
        len(test) if sources.test is None else 0, (min(sides), max(sides)),
        sum(each.sizes.total() for each in looks), form.image_size, form.why,
    )  # fmt: skip


def _require_all_classes(sources: Sources, train: Source) -> None:
    """See that every class has training images."""
    lacking = torch.bincount(train.labels, minlength=len(sources.classes)).eq(0).nonzero()
    if len(lacking):
        raise ValueError(
            f"{sources.name}: class {sources.classes[int(lacking[0])]!r} has no training images: add some, "
            "number classes from 0 up without a gap, or name those to train on with --classes"
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
    """A data set to train on: as ``load`` gives it, or with training images that stay encoded.

    Args:
        spec, classes, image_size, resize: as for ``load``.
        memory: bytes that decoded images may take before they stay encoded; None means half of what is available.
        stream: whether they stay encoded; None: where they exceed ``memory``. What is embedded never does.

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
    if sources.test is not None and test.store is not None:  # in colour where the test images are, as in memory
        form = _common(form, _form_of_sample(test, image_size, resize))
    split = encoded_split(train, form)
    tested = by_class(test.labels, len(sources.classes))
    return Streamed(sources.name, split, sources.classes, len(test) if sources.test is None else 0, tested)


def load_test(
    spec: str, *, classes: Classes | None = None, image_size: ImageSize = None, resize: int | None = None
) -> Data:
    """A data set to evaluate on: as ``load`` gives it, but without training images where memory does not hold them.

    It may have test images alone, and then all of them are taken.

    Raises:
        FileNotFoundError, ValueError: as for ``load``.
    """
    sources = find(spec, classes, image_size)
    if (alone := sources.only_test()) is not None:
        form = survey((alone,), image_size, resize)
        check_memory(len(alone) * prod(form.shape))
        return _data(sources, _none(form), Split(decode(alone, form), alone.labels), form)
    train, test = sources.both()
    if not _exceeds(train, test, image_size, None):
        return _decoded(sources, image_size, resize)
    form = _form_of_sample(train, image_size, resize)
    form = _common(form, survey((test,), None))
    check_memory(len(test) * prod(form.shape))
    return _data(sources, _none(form), encoded_split(test, form).decoded(), form)


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
    """Whether both splits, decoded, take more than so many bytes; False where they cannot be read in any order."""
    if train.store is None or test.store is None:
        return False
    limit = int(SHARE * sizes.available()) if memory is None else memory
    count = len(train) + len(test)
    if image_size != "auto":  # then the first image does not tell the size of all
        first = encoded_split(train, _UNKNOWN).take(torch.zeros(1, dtype=torch.int64)).source()
        if count * 3 * prod(survey((first,), image_size).size) <= limit:
            return False  # whether or not they are grey
    return count * prod(_form_of_sample(train, image_size, None).shape) > limit


def _common(form: Form, other: Form) -> Form:
    """The form, in colour where either is."""
    return replace(form, mode="RGB" if "RGB" in (form.mode, other.mode) else "L")


_UNKNOWN = Form("RGB", (0, 0), None)


def _sample(split: Source) -> Source:
    return encoded_split(split, _UNKNOWN).sample().source()


def _form_of_sample(train: Source, image_size: ImageSize, resize: int | None) -> Form:
    """What all images are turned into, by what a sample of them is like.

    Raises:
        ValueError: one of them cannot be opened, or the images cannot be read in any order.
    """
    return survey((_sample(train),), image_size, resize)

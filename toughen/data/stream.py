"""A training set that stays encoded, for one that does not fit into memory decoded, or whose crops need the originals.

Only labels, names and what is held out for validation are kept; ``toughen.data.feed`` reads the rest while it is
trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toughen.core.types import ByteImages, Labels
from toughen.data.decode import Form, decode
from toughen.data.sets import Split, by_class, channel_statistics, hold_out, stratified
from toughen.data.sources import Encoded, Source, Store

SAMPLE = 1024  # images, balanced over classes, that statistics and the form of all are taken from
_CHUNK = 64  # of them decoded at a time


@dataclass(frozen=True)
class EncodedSplit:
    """Images in a store, with their labels, int64 [n], and what they are to be turned into.

    Attributes:
        labels: the classes.
        rows: the images' places in the store, int64 [n] and rising.
        store: where they lie.
        form: what each is turned into, where nothing is cropped at random.
    """

    labels: Labels
    rows: Tensor
    store: Store
    form: Form

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor) -> EncodedSplit:
        """The images at these places, int64 and rising."""
        return replace(self, labels=self.labels[index], rows=self.rows[index])

    def to(self, device: torch.device | str) -> EncodedSplit:
        """Itself: images go to a device batch by batch."""
        return self

    def sample(self) -> EncodedSplit:
        """``SAMPLE`` images, balanced over classes, always the same."""
        return self.take(stratified(self.labels, min(SAMPLE, len(self)), seed=0))

    def source(self) -> Source:
        """The images one after the other, each group of the store read once."""
        return Source(self.labels, lambda: read_all(self.store, self.rows))

    def chunks(self) -> Iterator[ByteImages]:
        """All images, decoded, some at a time."""
        for index in torch.arange(len(self)).split(_CHUNK):
            yield decode(self.take(index).source(), self.form)

    def decoded(self) -> Split:
        """All images in memory."""
        return Split(decode(self.source(), self.form), self.labels)


def encoded_split(source: Source, form: Form) -> EncodedSplit:
    """A split as it lies in its store.

    Raises:
        ValueError: it lies in none.
    """
    if source.store is None:
        raise ValueError("these images cannot be read in any order: give a folder or a hub set, or no --crop resized")
    rows = torch.arange(len(source)) if source.rows is None else source.rows
    return EncodedSplit(source.labels, rows, source.store, form)


def groups_of(store: Store, rows: Tensor) -> tuple[Tensor, Tensor]:
    """For each of these places in a store its group and its place there."""
    ends = store.sizes.cumsum(0)
    group = torch.searchsorted(ends, rows, right=True)
    return group, rows - (ends - store.sizes)[group]


def read_all(store: Store, rows: Tensor) -> Iterator[Encoded]:
    """The images at these places, rising, of a store."""
    groups, places = groups_of(store, rows)
    present, counts = torch.unique_consecutive(groups, return_counts=True)
    for group, within in zip(present.tolist(), places.split(counts.tolist()), strict=True):
        yield from store.read(group, within.tolist())


@dataclass(frozen=True)
class Streamed:
    """A data set for training alone: its training images stay encoded, its test images are not among it."""

    name: str
    train: EncodedSplit
    classes: tuple[str, ...]
    split_off: int = 0  # as in ``Data``
    tested: tuple[int, ...] = ()  # as in ``Data``

    @property
    def trained(self) -> tuple[int, ...]:
        """As in ``Data``."""
        return by_class(self.train.labels, len(self.classes))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of an image."""
        return self.train.form.shape

    @property
    def image_size(self) -> int | None:
        """As in ``Data``."""
        return self.train.form.image_size

    @property
    def why(self) -> str:
        """As in ``Data``."""
        return self.train.form.why

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Each channel's mean and standard deviation over ``SAMPLE`` training images, in the units of [0, 1]."""
        return channel_statistics(self.train.sample().chunks())

    def split(self, validation: int | None, seed: int) -> tuple[EncodedSplit, Split, Labels]:
        """As ``Data.split``: the validation images are decoded.

        Raises:
            ValueError: as there; or an image is damaged.
        """
        index, held_out = hold_out(self.train.labels, validation, seed)
        return self.train.take(index), self.train.take(held_out).decoded(), index

    def seen(self) -> dict[str, Tensor]:
        """What a run keeps to know its training images again: a digest of names, rows and labels, not of pixels."""
        digest = hashlib.blake2b(self.train.store.identity(), digest_size=16)
        for numbers in (self.train.rows, self.train.labels):
            digest.update(numbers.numpy().tobytes())
        return {"identity": torch.tensor(list(digest.digest()), dtype=torch.uint8)}

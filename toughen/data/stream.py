"""Streamed training sets: images stay encoded, because they do not fit into memory or because crops need the originals.

Only labels, names and the held-out validation images are in memory; ``toughen.data.feed`` reads the rest during
training.
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

SAMPLE = 1024  # size of the stratified sample that gives the statistics and the form of all images
_CHUNK = 64  # images decoded at a time


@dataclass(frozen=True)
class EncodedSplit:
    """Encoded images in a store.

    Attributes:
        labels: the classes, int64 [n].
        rows: the images' indices in the store, int64 [n] and sorted.
        store: reads the images.
        form: the form that each image is converted to, unless a random crop is taken.
    """

    labels: Labels
    rows: Tensor
    store: Store
    form: Form

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor) -> EncodedSplit:
        """The images at these indices, int64 and sorted."""
        return replace(self, labels=self.labels[index], rows=self.rows[index])

    def to(self, device: torch.device | str) -> EncodedSplit:
        """The split itself: images are moved to a device batch by batch."""
        return self

    def sample(self) -> EncodedSplit:
        """A stratified sample of ``SAMPLE`` images, always the same."""
        return self.take(stratified(self.labels, min(SAMPLE, len(self)), seed=0))

    def source(self) -> Source:
        """The images as a ``Source``; each group of the store is read once."""
        return Source(self.labels, lambda: read_all(self.store, self.rows))

    def chunks(self) -> Iterator[ByteImages]:
        """All images, decoded in chunks."""
        for index in torch.arange(len(self)).split(_CHUNK):
            yield decode(self.take(index).source(), self.form)

    def decoded(self) -> Split:
        """All images, decoded, in memory."""
        return Split(decode(self.source(), self.form), self.labels)


def encoded_split(source: Source, form: Form) -> EncodedSplit:
    """A source as an ``EncodedSplit``.

    Raises:
        ValueError: the source has no store.
    """
    if source.store is None:
        raise ValueError("these images cannot be streamed: give a folder or a hub set, or leave --crop resized out")
    rows = torch.arange(len(source)) if source.rows is None else source.rows
    return EncodedSplit(source.labels, rows, source.store, form)


def groups_of(store: Store, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The group of each of these indices in a store, and the index within the group."""
    ends = store.sizes.cumsum(0)
    group = torch.searchsorted(ends, rows, right=True)
    return group, rows - (ends - store.sizes)[group]


def read_all(store: Store, rows: Tensor) -> Iterator[Encoded]:
    """The images at these sorted indices of a store."""
    groups, places = groups_of(store, rows)
    present, counts = torch.unique_consecutive(groups, return_counts=True)
    for group, within in zip(present.tolist(), places.split(counts.tolist()), strict=True):
        yield from store.read(group, within.tolist())


@dataclass(frozen=True)
class Streamed:
    """A data set for training only: its training images stay encoded, and it has no test images."""

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

    def shared(self, seen: dict[str, Tensor]) -> int:
        """0: the images stay encoded, and nothing is known of copies."""
        return 0

    def seen(self) -> dict[str, Tensor]:
        """What a run stores to recognise its training images: a digest of names, rows and labels, not of pixels."""
        digest = hashlib.blake2b(self.train.store.identity(), digest_size=16)
        for numbers in (self.train.rows, self.train.labels):
            digest.update(numbers.numpy().tobytes())
        return {"identity": torch.tensor(list(digest.digest()), dtype=torch.uint8)}

"""Data sets before decoding: the labels and the encoded images of each split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from toughen.core.types import Labels, Mask
from toughen.data.sets import stratified

_HELD_OUT = 10  # without a test split, one image in ten becomes a test image


class Encoded(NamedTuple):
    """An image to be decoded, and its name in error messages."""

    where: str
    content: bytes | Path | Image.Image


class Store:
    """Encoded images that can be read in any order, group by group: files, or the row groups of parquet shards.

    Attributes:
        sizes: the number of images in each group, int64.
        weights: bytes that reading a whole group loads into memory, int64; 0 if only names are loaded.
    """

    sizes: Tensor
    weights: Tensor

    def read(self, group: int, places: list[int]) -> list[Encoded]:
        """The images at these indices within a group.

        Raises:
            ValueError: the file is missing, damaged or changed.
        """
        raise NotImplementedError

    def identity(self) -> bytes:
        """Bytes that identify these images without reading them: the names and rows of their files."""
        raise NotImplementedError


@dataclass(frozen=True)
class Source:
    """A split before decoding.

    Attributes:
        labels: the classes, int64 [n].
        images: reads all images, in the same order at each call.
        store: reads the images in any order; None if that is not possible.
        rows: their indices in the store, int64 [n] and sorted; None means the whole store.
    """

    labels: Labels
    images: Callable[[], Iterator[Encoded]]
    store: Store | None = None
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, mask: Mask, labels: Labels) -> Source:
        """The images under the mask, with new labels for all of them."""
        chosen = mask.tolist()
        rows = mask.nonzero()[:, 0] if self.rows is None else self.rows[mask]
        return Source(labels[mask], lambda: compress(self.images(), chosen), self.store, rows)


@dataclass(frozen=True)
class Sources:
    """A data set's splits, one of which may be missing.

    Attributes:
        name: the set's name.
        train: the training split; None if the set has only a test split, for evaluation.
        test: the test split; None if there is none.
        classes: the class names, in the order of their numbers.
        advice: if ``train`` is None, the message for a user who wants to train.
    """

    name: str
    train: Source | None
    test: Source | None
    classes: tuple[str, ...]
    advice: str = ""

    def keep(self, wanted: tuple[str, ...]) -> Sources:
        """Only these classes, numbered in this order.

        Raises:
            ValueError: the set does not have one of the classes.
        """
        unknown = [name for name in wanted if name not in set(self.classes)]
        if unknown:
            raise ValueError(
                f"{self.name} does not have {len(unknown)} of the given classes, the first is {unknown[0]!r}: "
                f"use its own class names, such as {self.classes[0]!r}, one per line"
            )
        number = torch.full((len(self.classes),), -1)
        number[[self.classes.index(name) for name in wanted]] = torch.arange(len(wanted))

        def kept(source: Source | None) -> Source | None:
            if source is None:
                return None
            labels = number[source.labels]
            return source.only(labels >= 0, labels)

        return replace(self, train=kept(self.train), test=kept(self.test), classes=wanted)

    def both(self) -> tuple[Source, Source]:
        """Training and test images; without a test split, a stratified tenth of the training images is held out.

        Raises:
            ValueError: there is no training split, there are fewer than two classes, a split has no images, or a test
                class has no training images.
        """
        train, test = self.train, self.test
        if train is None:
            raise ValueError(self.advice)
        if test is None:
            train, test = _hold_out(train)
        self._require(("training", train), ("test", test))
        lacking = sorted(set(test.labels.tolist()) - set(train.labels.tolist()))
        if lacking:
            name = self.classes[lacking[0]]
            raise ValueError(f"{self.name}: class {name!r} has test images and no training images: add or remove some")
        return train, test

    def only_test(self) -> Source | None:
        """The test images of a set that has only test images; None if it has training images.

        Raises:
            ValueError: there are fewer than two classes, or no images.
        """
        if self.train is not None or self.test is None:
            return None
        self._require(("test", self.test))
        return self.test

    def _require(self, *splits: tuple[str, Source]) -> None:
        if len(self.classes) < 2:
            named = f"1 class, {self.classes[0]}" if self.classes else "no classes"
            raise ValueError(f"{self.name} has {named}: a classifier needs two or more")
        for name, source in splits:
            if not len(source):
                raise ValueError(f"{self.name} has no {name} images: add some, or list other classes")


def _hold_out(source: Source) -> tuple[Source, Source]:
    """Hold out a stratified tenth, at least one image, but never the only image of a class."""
    held_out = torch.zeros(len(source), dtype=torch.bool)
    held_out[stratified(source.labels, min(len(source), max(1, len(source) // _HELD_OUT)), seed=0)] = True
    held_out &= torch.bincount(source.labels)[source.labels] > 1
    return source.only(~held_out, source.labels), source.only(held_out, source.labels)

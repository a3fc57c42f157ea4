"""A data set before its images are decoded, wherever it comes from."""

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

_HELD_OUT = 10  # without a test split, one image in so many becomes one


class Encoded(NamedTuple):
    """An image to be decoded, and the words that name it in an error."""

    where: str
    content: bytes | Path | Image.Image


class Store:
    """Encoded images that can be read in any order, group by group: files, or the row groups of parquet shards.

    Attributes:
        sizes: images in each group, int64.
        weights: bytes that reading a whole group brings into memory, int64; 0 where it brings names alone.
    """

    sizes: Tensor
    weights: Tensor

    def read(self, group: int, places: list[int]) -> list[Encoded]:
        """The images at these places of a group, counted from its first.

        Raises:
            ValueError: the file is gone, damaged, or no longer what it was.
        """
        raise NotImplementedError

    def identity(self) -> bytes:
        """What tells these images from others without reading them: their files' names and rows."""
        raise NotImplementedError


@dataclass(frozen=True)
class Source:
    """A split's labels, int64 [n], and its images, read afresh in the same order whenever ``images`` is called.

    Attributes:
        labels: the classes.
        images: reads them all.
        store: where they can be read in another order, None where they cannot.
        rows: their places in the store, int64 [n] and rising; None means all of it.
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
        name: the set's.
        train: None where there is none; then there is a test split, which can be evaluated on.
        test: None where there is none.
        classes: their names, in the order of their numbers.
        advice: where ``train`` is None, what to tell a user who wants to train.
    """

    name: str
    train: Source | None
    test: Source | None
    classes: tuple[str, ...]
    advice: str = ""

    def keep(self, wanted: tuple[str, ...]) -> Sources:
        """Only these classes, numbered in this order.

        Raises:
            ValueError: a class is not one of the set's.
        """
        unknown = [name for name in wanted if name not in set(self.classes)]
        if unknown:
            raise ValueError(
                f"{len(unknown)} of the wanted classes are not in {self.name}, first {unknown[0]!r}: "
                f"write its own names, such as {self.classes[0]!r}, one per line"
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
        """Training and test images; without a test split, a stratified tenth of the training images (seed 0).

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
        """The test images of a set that has no others; None where it has training images.

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
    """Split a stratified tenth off, at least one image, but never a class's only one."""
    held_out = torch.zeros(len(source), dtype=torch.bool)
    held_out[stratified(source.labels, min(len(source), max(1, len(source) // _HELD_OUT)), seed=0)] = True
    held_out &= torch.bincount(source.labels)[source.labels] > 1
    return source.only(~held_out, source.labels), source.only(held_out, source.labels)

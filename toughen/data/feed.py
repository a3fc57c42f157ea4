"""The batches of an epoch, out of decoded images in memory or out of encoded ones that worker processes decode.

The order of an epoch is a function of (seed, epoch) and of where images lie, never of how they are read: any batch can
be computed, so a run that is resumed goes on with the very images that it would have had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from toughen.core.rng import derive_seed
from toughen.core.types import AnyImages, Labels
from toughen.data.sets import Split
from toughen.data.sources import Encoded
from toughen.data.stream import EncodedSplit, groups_of
from toughen.data.workers import Decoder, Wanted, as_it_is, loader_settings
from toughen.utils.sizes import spell

AHEAD = 2  # batches that each worker decodes before they are asked for
Part: TypeAlias = Callable[[int], slice]  # of a batch of so many images, those that this process trains on


class Unreadable(RuntimeError):
    """An image or its file cannot be read in the middle of a run."""


class Fed(NamedTuple):
    """A batch: images on the run's device, their labels, and their places in the training split."""

    images: AnyImages
    labels: Labels
    rows: Labels


def whole(count: int) -> slice:
    """All of a batch."""
    return slice(0, count)


class Feed:
    """Gives the batches of an epoch."""

    def batches(self, epoch: int, first: int = 0, part: Part = whole) -> Iterator[Fed]:
        """An epoch's batches from number ``first`` on, of each the part that this process trains on.

        Raises:
            Unreadable: an image cannot be read; all batches before its own have been given.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class MemoryFeed(Feed):
    """Batches of images that lie in memory, on the run's device, shuffled as a whole."""

    split: Split
    seed: int
    batch_size: int

    def batches(self, epoch: int, first: int = 0, part: Part = whole) -> Iterator[Fed]:
        order = shuffled(len(self.split), self.seed, epoch).to(self.split.labels.device)
        for rows in order[first * self.batch_size :].split(self.batch_size):
            rows = rows[part(len(rows))]
            yield Fed(self.split.images[rows], self.split.labels[rows], rows)


@dataclass(frozen=True, kw_only=True)
class StreamFeed(Feed):
    """Batches of encoded images: groups are read here, once an epoch, and workers decode.

    Attributes:
        split: the images.
        seed: the run's.
        batch_size: of the global batch.
        device: where batches go.
        buffer: images among which those of a group are shuffled.
        resized: whether a random part of each image is resized, or the whole of it as its form says.
        workers: processes that decode; 0: this one does. The images are the same.
    """

    split: EncodedSplit
    seed: int
    batch_size: int
    device: torch.device
    buffer: int
    resized: bool = False
    workers: int = 0

    def batches(self, epoch: int, first: int = 0, part: Part = whole) -> Iterator[Fed]:
        order = windowed(self.split, self.buffer, self.seed, epoch)
        cuts = [rows[part(len(rows))] for rows in order[first * self.batch_size :].split(self.batch_size)]
        decoder = Decoder(self.split.form, (self.seed, epoch) if self.resized else None)
        try:
            loader = iter(self._loader(decoder, _Reads(self.split, cuts)))
        except (EOFError, OSError) as error:  # of the process that workers are forked off, or of the system
            reason = error or type(error).__name__
            raise Unreadable(
                f"a process that decodes images cannot be started ({reason}): use --num-workers 0"
            ) from None
        for rows in cuts:
            try:
                images = next(loader)
            except (RuntimeError, EOFError, OSError) as error:  # of the pipes to them
                reason = (str(error) or type(error).__name__).splitlines()[0]
                raise Unreadable(
                    f"a process that decodes images ended ({reason}): use --num-workers 0, or in a script of your own "
                    'put what it does under `if __name__ == "__main__":`'
                ) from None
            if isinstance(images, str):
                raise Unreadable(images)
            labels, index = self.split.labels[rows].to(self.device), rows.to(self.device)
            yield Fed(images.to(self.device, non_blocking=True), labels, index)

    def _loader(self, decoder: Decoder, reads: _Reads) -> DataLoader[Any]:
        settings = {"prefetch_factor": AHEAD, **loader_settings()} if self.workers else {}
        return DataLoader(
            decoder,  # type: ignore[arg-type]  # anything with __getitem__ will do
            batch_size=None,
            sampler=reads,
            num_workers=self.workers,
            collate_fn=as_it_is,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # the global one is the run's
            **settings,
        )

    def check_memory(self, limit: int, held: int) -> None:
        """See that what waits in memory stays within a limit.

        Args:
            limit: bytes.
            held: bytes of images that lie in memory all the time.

        Raises:
            ValueError: it would not.
        """
        store, count = self.split.store, max(1, int(self.split.store.sizes.sum()))
        window = min(self.buffer / 2, len(self.split)) * int(store.weights.sum()) / count
        waiting = window + 2 * int(store.weights.max())
        decoded = (AHEAD * self.workers + 1) * self.batch_size * int(np.prod(self.split.form.shape))
        if waiting + decoded + held > limit:
            raise ValueError(
                f"images need more than the memory limit of {spell(limit)}: {spell(waiting)} wait encoded (lower "
                f"--shuffle-buffer, or write smaller row groups), {spell(decoded)} decoded (--num-workers, "
                f"--batch-size), {spell(held)} are for validation (--validation); or raise --memory-limit"
            )


def shuffled(count: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch's images, all places 0..count-1."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(derive_seed("order", seed, epoch)))


def windowed(split: EncodedSplit, buffer: int, seed: int, epoch: int) -> Tensor:
    """An order in which a store's groups are read one after the other, shuffled, and ``buffer`` images mixed.

    Each image comes up to ``buffer`` places later than its group's turn, uniformly, so that at most so many images and
    a group wait at any time, half as many on average. Where images are groups of their own, or all fit into the
    buffer, the order is that of images in memory.
    """
    count = len(split)
    if buffer >= count or int(split.store.sizes.max()) == 1:
        return shuffled(count, seed, epoch)
    generator = torch.Generator().manual_seed(derive_seed("groups", seed, epoch))
    turn = torch.randperm(len(split.store.sizes), generator=generator)
    queue = turn[groups_of(split.store, split.rows)[0]].argsort(stable=True)
    later = buffer * torch.rand(count, generator=generator, dtype=torch.float64)
    return queue[(torch.arange(count) + later).argsort(stable=True)]


class _Reads(Sampler[Wanted]):
    """Reads the images of batches; of a group all that any of them wants are kept until they are."""

    def __init__(self, split: EncodedSplit, cuts: list[Tensor]) -> None:
        self.split, self.cuts = split, cuts
        self.groups, self.places = (each.numpy() for each in groups_of(split.store, split.rows))
        self.wanted = np.zeros(len(split), dtype=bool)
        for rows in cuts:
            self.wanted[rows.numpy()] = True

    def __len__(self) -> int:
        return len(self.cuts)

    def __iter__(self) -> Iterator[Wanted]:
        waiting: dict[int, Encoded] = {}
        for rows in self.cuts:
            index = rows.tolist()
            try:
                for place in index:
                    if place not in waiting:
                        waiting |= self._read(int(self.groups[place]))
                yield Wanted(index, [waiting.pop(place) for place in index])
            except (ValueError, OSError) as error:
                yield Wanted(index, [], str(error))
                return

    def _read(self, group: int) -> dict[int, Encoded]:
        """A group's images that are still to come, by their places in the split."""
        first, end = np.searchsorted(self.groups, [group, group + 1])
        index = [place for place in range(first, end) if self.wanted[place]]
        return dict(zip(index, self.split.store.read(group, self.places[index].tolist()), strict=True))

"""The batches of an epoch, from decoded images in memory or from encoded images that worker processes decode.

The order of an epoch depends only on (seed, epoch) and on how the images are stored, not on how they are read. So any
batch can be computed directly, and a resumed run trains on the same batches as one that was not stopped.
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
from toughen.data.workers import BatchRequest, Decoder, loader_settings, unchanged
from toughen.utils.units import format_size

AHEAD = 2  # batches that each worker decodes in advance
Part: TypeAlias = Callable[[int], slice]  # from the size of a batch to the images that this process trains on


class Unreadable(RuntimeError):
    """An image or its file cannot be read during a run."""


class LoadedBatch(NamedTuple):
    """A batch: images on the run's device, their labels, and their indices in the training split."""

    images: AnyImages
    labels: Labels
    rows: Labels


def whole(count: int) -> slice:
    """The whole batch."""
    return slice(0, count)


class Feed:
    """Gives the batches of an epoch."""

    def batches(self, epoch: int, first: int = 0, part: Part = whole) -> Iterator[LoadedBatch]:
        """An epoch's batches from number ``first`` on; of each batch, only this process's part.

        Raises:
            Unreadable: an image cannot be read; all batches before it have been returned.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class MemoryFeed(Feed):
    """Batches of decoded images in the memory of the run's device, shuffled over the whole split."""

    split: Split
    seed: int
    batch_size: int

    def batches(self, epoch: int, first: int = 0, part: Part = whole) -> Iterator[LoadedBatch]:
        order = shuffled(len(self.split), self.seed, epoch).to(self.split.labels.device)
        for rows in order[first * self.batch_size :].split(self.batch_size):
            rows = rows[part(len(rows))]
            yield LoadedBatch(self.split.images[rows], self.split.labels[rows], rows)


@dataclass(frozen=True, kw_only=True)
class StreamFeed(Feed):
    """Batches of encoded images: this process reads each group once per epoch, and workers decode.

    Attributes:
        split: the images.
        seed: the run's seed.
        batch_size: the size of the batch over all processes.
        device: the device of the batches.
        buffer: the size of the shuffle buffer, in images.
        resized: whether to take a random resized crop of each image, instead of the form's centre crop.
        workers: number of decoding processes; 0 decodes in this process. The images are the same.
    """

    split: EncodedSplit
    seed: int
    batch_size: int
    device: torch.device
    buffer: int
    resized: bool = False
    workers: int = 0

    def batches(self, epoch: int, first: int = 0, part: Part = whole) -> Iterator[LoadedBatch]:
        order = windowed(self.split, self.buffer, self.seed, epoch)
        cuts = [rows[part(len(rows))] for rows in order[first * self.batch_size :].split(self.batch_size)]
        decoder = Decoder(self.split.form, (self.seed, epoch) if self.resized else None)
        try:
            loader = iter(self._loader(decoder, _Reads(self.split, cuts)))
        except (EOFError, OSError) as error:  # from the forkserver process, or from the system
            reason = error or type(error).__name__
            raise Unreadable(
                f"a process that decodes images cannot be started ({reason}): use --num-workers 0"
            ) from None
        for rows in cuts:
            try:
                images = next(loader)
            except (RuntimeError, EOFError, OSError) as error:  # from the pipes to the workers
                reason = (str(error) or type(error).__name__).splitlines()[0]
                raise Unreadable(
                    f"a process that decodes images ended ({reason}): use --num-workers 0. In a script of your own, "
                    'put the code that runs under `if __name__ == "__main__":`'
                ) from None
            if isinstance(images, str):
                raise Unreadable(images)
            labels, index = self.split.labels[rows].to(self.device), rows.to(self.device)
            yield LoadedBatch(images.to(self.device, non_blocking=True), labels, index)

    def _loader(self, decoder: Decoder, reads: _Reads) -> DataLoader[Any]:
        settings = {"prefetch_factor": AHEAD, **loader_settings()} if self.workers else {}
        return DataLoader(
            decoder,  # type: ignore[arg-type]  # anything with __getitem__ will do
            batch_size=None,
            sampler=reads,
            num_workers=self.workers,
            collate_fn=unchanged,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # so that the loader does not change the run's global generator
            **settings,
        )

    def check_memory(self, limit: int, held: int) -> None:
        """Check that the images in memory stay within a limit.

        Args:
            limit: the limit in bytes.
            held: bytes of the images that are always in memory.

        Raises:
            ValueError: they would exceed it.
        """
        store, count = self.split.store, max(1, int(self.split.store.sizes.sum()))
        whole = self.buffer >= len(self.split) and int(store.sizes.max()) > 1  # see ``windowed``
        window = (
            (len(self.split) if whole else min(self.buffer / 2, len(self.split))) * int(store.weights.sum()) / count
        )
        waiting = window + 2 * int(store.weights.max())
        decoded = (AHEAD * self.workers + 1) * self.batch_size * int(np.prod(self.split.form.shape))
        if waiting + decoded + held > limit:
            raise ValueError(
                f"images need more than the memory limit of {format_size(limit)}: {format_size(waiting)} for encoded "
                "images (lower --shuffle-buffer, or write smaller row groups), "
                f"{format_size(decoded)} for decoded ones (lower --num-workers or --batch-size), "
                f"{format_size(held)} for validation (lower --validation); or raise "
                "--memory-limit"
            )


def shuffled(count: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch's images, a permutation of 0..count-1."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(derive_seed("order", seed, epoch)))


def windowed(split: EncodedSplit, buffer: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch's images with a shuffle buffer: the store's groups are read one by one, in random order.

    Each image comes up to ``buffer`` places after its group is read, uniformly. So at most ``buffer`` images and one
    group are in memory at any time, and on average half as many. If each group has one image, or if all images fit
    into the buffer, the order is the same as for images in memory.
    """
    count = len(split)
    if buffer >= count or int(split.store.sizes.max()) == 1:
        return shuffled(count, seed, epoch)
    generator = torch.Generator().manual_seed(derive_seed("groups", seed, epoch))
    turn = torch.randperm(len(split.store.sizes), generator=generator)
    queue = turn[groups_of(split.store, split.rows)[0]].argsort(stable=True)
    later = buffer * torch.rand(count, generator=generator, dtype=torch.float64)
    return queue[(torch.arange(count) + later).argsort(stable=True)]


class _Reads(Sampler[BatchRequest]):
    """Reads the images of batches; images of a group that later batches need are kept until then."""

    def __init__(self, split: EncodedSplit, cuts: list[Tensor]) -> None:
        self.split, self.cuts = split, cuts
        self.groups, self.places = (each.numpy() for each in groups_of(split.store, split.rows))
        self.wanted = np.zeros(len(split), dtype=bool)
        for rows in cuts:
            self.wanted[rows.numpy()] = True

    def __len__(self) -> int:
        return len(self.cuts)

    def __iter__(self) -> Iterator[BatchRequest]:
        waiting: dict[int, Encoded] = {}
        for rows in self.cuts:
            index = rows.tolist()
            try:
                for place in index:
                    if place not in waiting:
                        waiting |= self._read(int(self.groups[place]))
                yield BatchRequest(index, [waiting.pop(place) for place in index])
            except (ValueError, OSError) as error:
                yield BatchRequest(index, [], str(error))
                return

    def _read(self, group: int) -> dict[int, Encoded]:
        """The images of a group that batches of this process need, by their indices in the split."""
        first, end = np.searchsorted(self.groups, [group, group + 1])
        index = [place for place in range(first, end) if self.wanted[place]]
        return dict(zip(index, self.split.store.read(group, self.places[index].tolist()), strict=True))

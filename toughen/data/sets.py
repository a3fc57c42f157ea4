"""Data sets in memory: decoded images and labels, with statistics, held-out splits and hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from toughen.core.rng import derive_seed
from toughen.core.types import AnyImages, Labels

HELD_OUT = 1000  # the most images for validation if the user gives no number
_CHUNK = 1024  # images converted to float64 at a time
_SMALLEST_STD = 1 / 255  # avoids a division by zero for a constant channel


@dataclass(frozen=True)
class Split:
    """Images, uint8 [n, c, h, w] and contiguous, with labels, int64 [n]; float images in [0, 1] only for evaluation.

    Raises:
        ValueError: images and labels differ in number.
    """

    images: AnyImages
    labels: Labels

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise ValueError(f"{len(self.images)} images have {len(self.labels)} labels: give one label for each image")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor) -> Split:
        """The images at these indices (int64, or a mask), in this order."""
        return Split(self.images[index], self.labels[index])

    def to(self, device: torch.device | str) -> Split:
        """The same images on another device."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Data:
    """A data set: training and test images of one shape, and the names of the classes in the order of the labels.

    Attributes:
        split_off: the number of training images that were held out as test images, if the set has no test split.
        image_size: the pixels that images were resized to; None if they were left as they are.
        why: the reason for the size, if it was chosen automatically.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    split_off: int = 0
    image_size: int | None = None
    why: str = ""

    @property
    def trained(self) -> tuple[int, ...]:
        """Training images of each class."""
        return by_class(self.train.labels, len(self.classes))

    @property
    def tested(self) -> tuple[int, ...]:
        """Test images of each class."""
        return by_class(self.test.labels, len(self.classes))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of an image."""
        channels, rows, columns = self.train.images.shape[1:]
        return channels, rows, columns

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Each channel's mean and standard deviation over all training pixels, in the units of images in [0, 1]."""
        return channel_statistics(self.train.images.split(_CHUNK))

    def split(self, validation: int | None, seed: int) -> tuple[Split, Split, Labels]:
        """Take a seeded, stratified validation split out of the training images.

        Args:
            validation: the number of validation images; None for a tenth, at most ``HELD_OUT``.
            seed: the seed of the draw.

        Returns:
            the remaining training images, the validation images, and the indices of the former in ``train``.

        Raises:
            ValueError: the number is negative, or no training images would remain.
        """
        index, held_out = hold_out(self.train.labels, validation, seed)
        device = self.train.labels.device
        return self.train.take(index.to(device)), self.train.take(held_out.to(device)), index

    def seen(self) -> dict[str, Tensor]:
        """What a run stores to recognise its training images: a hash and the class of each, and the classes' names."""
        names = "\n".join(self.classes).encode("utf-8", "surrogateescape")
        digest = hashlib.blake2b(names, digest_size=16).digest()
        return {
            "hashes": self.hashes(self.train),
            "labels": self.train.labels.cpu(),
            "classes": torch.tensor(list(digest), dtype=torch.uint8),
        }

    def shared(self, seen: dict[str, Tensor]) -> int:
        """The number of test images that are training images, too, of the run or its initial weights (``seen``)."""
        known = torch.cat([seen[name] for name in ("hashes", "inherited") if name in seen])
        return int(torch.isin(self.hashes(self.test), known).sum())

    def hashes(self, split: Split) -> Labels:
        """A 64-bit number per image, int64 [n], from its shape and bytes: the same in every process and machine."""
        images = split.images.cpu().contiguous().numpy()
        shape = repr(images.shape[1:]).encode()
        digests = (hashlib.blake2b(shape + image.tobytes(), digest_size=8).digest() for image in images)
        return torch.tensor([int.from_bytes(digest, "little", signed=True) for digest in digests], dtype=torch.int64)


def by_class(labels: Labels, classes: int) -> tuple[int, ...]:
    """The number of labels of each class."""
    return tuple(int(number) for number in torch.bincount(labels.cpu(), minlength=classes))


def channel_statistics(chunks: Iterable[Tensor]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Each channel's mean and standard deviation over all pixels of bytes [n, c, h, w], in the units of [0, 1]."""
    total, squares, count = torch.zeros(()), torch.zeros(()), 0
    for chunk in chunks:
        pixels = chunk.double()
        total = total + pixels.sum((0, 2, 3)).cpu()
        squares = squares + pixels.square().sum((0, 2, 3)).cpu()
        count += chunk.numel() // chunk.shape[1]
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt() / 255
    return tuple((mean / 255).tolist()), tuple(std.clamp(min=_SMALLEST_STD).tolist())


def held_out_count(images: int, count: int | None) -> int:
    """The number of training images that are held out: the given one, or a tenth of them, at most ``HELD_OUT``."""
    return min(HELD_OUT, images // 10) if count is None else count


def hold_out(labels: Labels, count: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """The sorted indices of the remaining labels and of the held-out ones, which are drawn by ``stratified``.

    ``held_out_count`` gives the number if ``count`` is None. If all images of a class are drawn, one of them remains.

    Raises:
        ValueError: the number is negative, or no training images would remain.
    """
    count = held_out_count(len(labels), count)
    if not 0 <= count < len(labels):
        raise ValueError(f"validation {count} must be at least 0 and below the {len(labels)} training images")
    labels = labels.cpu()
    held_out = stratified(labels, count, seed)
    drawn, sizes = labels[held_out], torch.bincount(labels)
    emptied = ((torch.bincount(drawn, minlength=len(sizes)) == sizes) & (sizes > 0)).nonzero()[:, 0].tolist()
    back = [int((drawn == label).nonzero()[0]) for label in emptied]
    held_out = held_out[[place for place in range(len(drawn)) if place not in back]] if back else held_out
    remaining = torch.ones(len(labels), dtype=torch.bool)
    remaining[held_out] = False
    return remaining.nonzero()[:, 0], held_out


def stratified(labels: Labels, count: int, seed: int) -> Tensor:
    """The sorted indices, int64, of a stratified sample; each class keeps its proportion to within one image.

    Images left over by rounding down go to the classes with the largest remainders; ties are broken by the seed.

    Raises:
        ValueError: ``count`` is negative or exceeds the number of labels.
    """
    total = len(labels)
    if not 0 <= count <= total:
        raise ValueError(f"cannot draw {count} of {total} images: give a number from 0 to {total}")
    if count == 0:
        return torch.empty(0, dtype=torch.int64)
    generator = torch.Generator().manual_seed(derive_seed("stratified", seed))
    labels = labels.cpu()
    sizes = torch.bincount(labels)
    quota = count * sizes // total
    ties = torch.randperm(len(sizes), generator=generator)
    neediest = ties[(count * sizes % total)[ties].argsort(descending=True, stable=True)]
    quota[neediest[: count - int(quota.sum())]] += 1

    shuffled = torch.randperm(total, generator=generator)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    rank = torch.arange(total) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return by_class[rank < quota.repeat_interleave(sizes)].sort().values

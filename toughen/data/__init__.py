"""Data sets of uint8 images, decoded once or while they are trained on: the embedded one, the hub's, folders."""

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

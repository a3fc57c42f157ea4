"""Data sets as uint8 tensors, decoded once: the embedded one, the hub's, a folder of parquet shards, class folders."""

from __future__ import annotations

from toughen.data.augment import Augment
from toughen.data.ingest import load, names
from toughen.data.sets import Data, Split, stratified

__all__ = ["Augment", "Data", "Split", "load", "names", "stratified"]

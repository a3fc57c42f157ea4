"""Reads images and labels from arrow columns, of parquet shards or of the hub's data sets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from toughen.core.types import Labels
from toughen.data.sources import Encoded, Source, Sources, Store

_LARGEST = 2**31  # the largest label if the number of classes is not known
_TEXTS = ("class", "class_name", "category", "label_name")  # with text: integers beside them may number rows
_LABELS = ("label", "fine_label", "labels")  # preferred in this order if several columns could be the labels


class Group(NamedTuple):
    """Rows that are read together: their number, and the bytes of each column."""

    rows: int
    weights: dict[str, int]


@dataclass(frozen=True)
class Shard:
    """A part of a split.

    Attributes:
        where: its file, for messages.
        schema: its columns; "huggingface" metadata, if present, tell the column of images and the class names.
        batches: reads the rows of one column.
        read: reads the rows of one group, given its number, its number of rows and a column.
        groups: the groups of rows that are read together.
        files: whether an image without bytes may be read from its ``path`` (never for a table of unknown origin).
    """

    where: str
    schema: pa.Schema
    batches: Callable[[str], Iterator[pa.Array]]
    read: Callable[[int, int, str], pa.Array]
    groups: tuple[Group, ...]
    files: bool = False


class Images(Store):
    """A column of encoded images in shards, read group by group."""

    def __init__(self, shards: list[Shard], column: str) -> None:
        self.shards, self.column = shards, column
        groups = [group for shard in shards for group in shard.groups]
        self.sizes = torch.tensor([group.rows for group in groups], dtype=torch.int64)
        self.weights = torch.tensor([group.weights.get(column, 0) for group in groups], dtype=torch.int64)

    @cached_property
    def _shard_ends(self) -> Tensor:
        """The number of the group after each shard's last one."""
        return torch.tensor([len(shard.groups) for shard in self.shards]).cumsum(0)

    def read(self, group: int, places: list[int]) -> list[Encoded]:
        number = int(torch.searchsorted(self._shard_ends, group, right=True))
        shard = self.shards[number]
        _require(shard, self.column)
        within = group - (int(self._shard_ends[number - 1]) if number else 0)
        first = sum(each.rows for each in shard.groups[:within])
        rows = shard.read(within, shard.groups[within].rows, self.column)
        return [_encoded(rows[place].as_py(), shard, first + place) for place in places]

    def identity(self) -> bytes:
        parts = [(Path(shard.where).name, [group.rows for group in shard.groups]) for shard in self.shards]
        return repr(parts).encode()


def sources(name: str, train: list[Shard], test: list[Shard] | None) -> Sources:
    """The splits of a set in tables; without class names in the metadata, the numbers are the names.

    Raises:
        ValueError: a column is missing or ambiguous, a label or an image is missing or out of range.
    """
    image, label, classes = _columns(train[0])
    labels = _labels(train, label, classes)
    if classes is None:
        count = int(labels.max()) + 1 if len(labels) else 0
        if count > len(labels):
            raise ValueError(
                f"{name} has {len(labels)} training images and a label {count - 1}: number the classes from 0 "
                "without gaps"
            )
        classes = tuple(map(str, range(count)))
    tested = None if test is None else _source(test, image, _labels(test, label, classes))
    return Sources(name, _source(train, image, labels), tested, classes)


def _source(shards: list[Shard], column: str, labels: Labels) -> Source:
    return Source(labels, lambda: _images(shards, column), Images(shards, column))


def _columns(shard: Shard) -> tuple[str, str, tuple[str, ...] | None]:
    """The column of images, the column of labels, and the class names if the metadata have them."""
    features = _features(shard.schema)
    image = _one(shard, "image", [column for column in shard.schema.names if _is_image(shard.schema, column, features)])
    label = _one(shard, "label", _label_columns(shard.schema, features))
    return image, label, _names(features, label)


def _names(features: dict[str, dict[str, Any]], column: str) -> tuple[str, ...] | None:
    """The class names of a column of labels in the metadata; None if there are none."""
    names = features.get(column, {}).get("names")
    named = isinstance(names, list) and all(isinstance(name, str) for name in names) and len(set(names)) == len(names)
    return tuple(names) if named and names else None


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """The metadata of each column; {} if they are missing or not valid."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _is_image(schema: pa.Schema, column: str, features: dict[str, dict[str, Any]]) -> bool:
    """Whether a column has encoded images: bytes, or a struct with a field "bytes"; the metadata may exclude it."""
    kind = schema.field(column).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return _is_bytes(kind) and features.get(column, {}).get("_type", "Image") in ("Image", "Value")


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _label_columns(schema: pa.Schema, features: dict[str, dict[str, Any]]) -> list[str]:
    declared = [column for column in schema.names if features.get(column, {}).get("_type") == "ClassLabel"]
    guessed = [column for column in schema.names if column in _LABELS or pa.types.is_integer(schema.field(column).type)]
    text = [
        column for column in schema.names if column in _TEXTS and not pa.types.is_integer(schema.field(column).type)
    ]
    return declared or ([] if text and not set(guessed) & set(_LABELS) else guessed)


def _one(shard: Shard, kind: str, candidates: list[str]) -> str:
    preferred = [column for column in _LABELS if column in candidates] if len(candidates) > 1 else candidates
    if preferred:
        return preferred[0]
    fact = f"several {kind} columns ({', '.join(candidates)})" if candidates else f"no {kind} column"
    raise ValueError(
        f"{shard.where} has {fact} among {', '.join(shard.schema.names) or 'none at all'}: "
        "keep one column of encoded images and one of integers called label"
    )


def _labels(shards: list[Shard], column: str, classes: tuple[str, ...] | None) -> Labels:
    """Every label of a split, numbered in the order of these classes; None keeps the numbers."""
    return torch.from_numpy(np.concatenate([_shard_labels(shard, column, classes) for shard in shards]))


def _shard_labels(
    shard: Shard, column: str, classes: tuple[str, ...] | None
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """A shard's labels; if the shard has its class names in another order, the labels are renumbered."""
    _require(shard, column)
    own = _names(_features(shard.schema), column) or classes
    foreign = None if own == classes else next((name for name in own or () if name not in (classes or ())), None)
    if foreign is not None:
        raise ValueError(
            f"{shard.where} names a class {foreign!r} that the first training shard does not have: write the same "
            "class names into the metadata of all shards"
        )
    count = None if own is None else len(own)
    kind = shard.schema.field(column).type
    if not pa.types.is_integer(kind):
        raise ValueError(f"{shard.where}: labels in column {column} are of type {kind}: write integers from 0 up")
    values = pa.chunked_array(list(shard.batches(column)), type=kind)
    missing = values.is_null().to_numpy()
    if missing.any():
        raise _wrong_label(shard, int(missing.argmax()), "no label", count)
    labels = values.to_numpy()
    wrong = (labels < 0) | (labels > (_LARGEST if count is None else count - 1))
    if wrong.any():
        row = int(wrong.argmax())
        raise _wrong_label(shard, row, f"label {labels[row]}", count)
    if own == classes:
        return np.array(labels, dtype=np.int64)  # a copy, since arrow's memory is read-only
    number = np.array([(classes or ()).index(name) for name in own or ()], dtype=np.int64)
    numbered: np.ndarray[tuple[int], np.dtype[np.int64]] = number[labels]
    return numbered


def _wrong_label(shard: Shard, row: int, problem: str, count: int | None) -> ValueError:
    allowed = "from 0 up" if count is None else f"from 0 to {count - 1}"
    return ValueError(f"{shard.where}, row {row}, has {problem}: labels are integers {allowed}; correct or remove it")


def _images(shards: list[Shard], column: str) -> Iterator[Encoded]:
    """Every image of a split, in order."""
    for shard in shards:
        _require(shard, column)
        row = 0
        for batch in shard.batches(column):
            for value in batch:
                yield _encoded(value.as_py(), shard, row)
                row += 1


def _encoded(value: bytes | dict[str, Any] | None, shard: Shard, row: int) -> Encoded:
    content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if not content and path and shard.files:
        content = Path(path)
    if not content:
        raise ValueError(f"{shard.where}, row {row}, has no image bytes: remove it or rewrite the shard")
    return Encoded(f"{shard.where}, row {row}", content)


def _require(shard: Shard, column: str) -> None:
    if column not in shard.schema.names:
        raise ValueError(
            f"{shard.where} has no column {column}, which other shards have: give all shards the same columns"
        )

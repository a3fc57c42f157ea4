"""Reads the parquet shards of a data set, in a folder or behind a URL."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import PurePath
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from toughen.data import tables
from toughen.data.layout import TESTS
from toughen.data.sources import Sources

Opener: TypeAlias = Callable[[str], Any]  # from a path to an open binary file

SPLITS = ("train", *TESTS)
_ROWS = 1024  # read at a time


def sources(root: PurePath, files: list[Any], name: str, opener: Opener | None = None) -> Sources:
    """A set of parquet shards.

    Args:
        root: the folder of the shards.
        files: the paths of the shards, sorted.
        name: the set's name.
        opener: opens a path that is not a local file.

    Raises:
        ValueError: the shards are damaged, or do not form a data set.
    """
    splits: dict[str, list[PurePath]] = {}
    for file in files:
        splits.setdefault(split_of(file, root), []).append(file)
    tested = next((splits[name] for name in TESTS if name in splits), None)
    if "train" not in splits:
        advice = (
            f"{root} has parquet files, such as {files[0].name}, but no train split: name its files train-*.parquet"
        )
        if tested is None:
            raise ValueError(advice)
        alone = tables.sources(name, _shards(tested, opener), None)
        return Sources(name, None, alone.train, alone.classes, advice)
    if tested is None and "" in splits:
        raise ValueError(
            f"{splits[''][0]} is no part of a split by its name, and there is no test split: name its files "
            "test-*.parquet if these are test images, or move it away"
        )
    train = _shards(splits["train"], opener)
    return tables.sources(name, train, _shards(tested, opener) if tested else None)


def split_of(file: PurePath, root: PurePath) -> str:
    """The split that the name of a shard's folder, or else of its file, starts with; "" for none."""
    for text in (file.parent.name if file.parent != root else "", file.name):
        if match := re.match(rf"({'|'.join(SPLITS)})(?![a-z])", text.lower()):
            return match[1]
    return ""


def _shards(files: list[PurePath], opener: Opener | None) -> list[tables.Shard]:
    """The files of a split as shards.

    Raises:
        ValueError: shards are missing, going by the names of the others; one is not a parquet file; or there are no
            rows.
    """
    totals = {int(match[1]) for file in files if (match := re.search(r"-of-(\d+)\.parquet$", file.name))}
    if len(totals) == 1 and len(files) < max(totals):
        raise ValueError(
            f"{files[0].parent} has {len(files)} of {max(totals)} shards like {files[0].name}: add the rest"
        )
    shards, rows = [], 0
    for file in files:
        with _opened(file, opener) as opened:
            rows += opened.metadata.num_rows
            schema, groups = opened.schema_arrow, _groups(opened.metadata)
        batches, group = partial(_batches, file, opener), partial(_group, file, opener)
        shards.append(tables.Shard(str(file), schema, batches, group, groups))
    if not rows:
        raise ValueError(f"{files[0]} has no rows: write the images anew")
    return shards


def _batches(file: PurePath, opener: Opener | None, column: str) -> Iterator[pa.Array]:
    with _opened(file, opener) as opened:
        for batch in opened.iter_batches(_ROWS, columns=[column]):
            yield batch.column(0)


def _groups(metadata: Any) -> tuple[tables.Group, ...]:
    """The number of rows of each row group, and the bytes of each of its columns."""
    groups = []
    for number in range(metadata.num_row_groups):
        group, sizes = metadata.row_group(number), dict[str, int]()
        for column in map(group.column, range(group.num_columns)):
            name = column.path_in_schema.partition(".")[0]
            sizes[name] = sizes.get(name, 0) + column.total_uncompressed_size
        groups.append(tables.Group(group.num_rows, sizes))
    return tuple(groups)


def _group(file: PurePath, opener: Opener | None, number: int, rows: int, column: str) -> pa.Array:
    """One column of a row group.

    Raises:
        ValueError: the file cannot be read, or the row group no longer has this number of rows.
    """
    with _opened(file, opener) as opened:
        present = opened.metadata.row_group(number).num_rows if number < opened.metadata.num_row_groups else 0
        if present != rows:
            raise ValueError(
                f"{file} has changed: row group {number} had {rows} rows, now {present}; put back the file as it was"
            )
        return opened.read_row_group(number, columns=[column], use_threads=False).column(0).combine_chunks()


@contextmanager
def _opened(file: PurePath, opener: Opener | None) -> Iterator[pq.ParquetFile]:
    """An open shard; within the block, arrow's errors about damaged files become one message."""
    try:
        if opener is None:
            with pq.ParquetFile(file) as opened:
                yield opened
        else:
            with opener(str(file)) as stream, pq.ParquetFile(stream) as opened:
                yield opened
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        message = f"{file} cannot be read as parquet ({reason[:120]}): download or write it anew"
        raise ValueError(message) from None

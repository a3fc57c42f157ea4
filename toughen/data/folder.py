"""A local folder, read in place: parquet shards or class-named folders of images. Nothing is cached."""

from __future__ import annotations

import mimetypes
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePath
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from toughen.data import tables
from toughen.data.layout import (
    LAYOUTS,
    PICTURES,
    TESTS,
    folders,
    holds_classes,
    holds_pictures,
    no_train,
    pictures,
    require_classes,
    require_no_other_test,
    require_no_run,
    visible,
)
from toughen.data.sources import Encoded, Source, Sources, Store

Opener: TypeAlias = Callable[[str], Any]  # of a path, giving a binary file

_ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"}
_SPLITS = ("train", *TESTS)
_ROWS = 1024  # read at a time


def sources(root: Path) -> Sources:
    """The set in a folder: parquet shards where there are any, class folders else.

    Raises:
        ValueError: the path is a file, or the folder has no layout that is known here, or a damaged one.
    """
    if not root.is_dir():
        advice = "unpack it and give the folder" if root.suffix.lower() in _ARCHIVES else "give the folder it lies in"
        raise ValueError(f"{root} is a file: {advice}")
    require_no_run(root)
    shards = visible([*root.glob("*.parquet"), *(f for s in (*_SPLITS, "data") for f in root.glob(f"{s}/*.parquet"))])
    if not shards:
        return _class_folders(root)
    if not any(_split_of(file, root) for file in shards) and holds_classes(root):
        raise ValueError(f"{shards[0]} lies beside folders of images, and is no split of a data set: move it away")
    return parquet(root, shards, root.resolve().name)


def parquet(root: PurePath, files: list[Any], name: str, opener: Opener | None = None) -> Sources:
    """A set of parquet shards.

    Args:
        root: what they lie in.
        files: their paths, sorted.
        name: the set's.
        opener: opens a path that is no local file.

    Raises:
        ValueError: they are no set, or damaged.
    """
    splits: dict[str, list[PurePath]] = {}
    for file in files:
        splits.setdefault(_split_of(file, root), []).append(file)
    tested = next((splits[name] for name in TESTS if name in splits), None)
    if "train" not in splits:
        advice = f"{root} has parquet files, such as {files[0].name}, but no train split: call it train-*.parquet"
        if tested is None:
            raise ValueError(advice)
        alone = tables.sources(name, _shards(tested, opener), None)
        return Sources(name, None, alone.train, alone.classes, advice)
    train = _shards(splits["train"], opener)
    return tables.sources(name, train, _shards(tested, opener) if tested else None)


def _split_of(file: PurePath, root: PurePath) -> str:
    """The split a shard's folder or else its name begins with; "" for none."""
    for text in (file.parent.name if file.parent != root else "", file.name):
        if match := re.match(rf"({'|'.join(_SPLITS)})(?![a-z])", text.lower()):
            return match[1]
    return ""


def _shards(files: list[PurePath], opener: Opener | None) -> list[tables.Shard]:
    """The files of a split as shards.

    Raises:
        ValueError: names say that some are missing, or one is no parquet file, or they hold no row.
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
    """Rows of each row group, and the bytes of each of its columns."""
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
        ValueError: the file cannot be read, or the row group has no longer so many rows.
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
    """A shard; within the block, what arrow says of a damaged file becomes one message."""
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


def _class_folders(root: Path) -> Sources:
    name = root.resolve().name
    if not folders(root / "train"):  # also where a class is called train
        if set(folder.name for folder in folders(root)) & set(TESTS) and not _is_class(root):
            return _only_test(root, name)
        require_classes(root)
        classes = tuple(folder.name for folder in folders(root))
        return Sources(name, _source(root, classes), None, classes)
    classes = tuple(folder.name for folder in folders(root / "train"))
    tested = next((root / split for split in TESTS if (root / split).is_dir()), None)
    if tested is None:
        require_no_other_test(root, classes)
    return Sources(name, _source(root / "train", classes), _source(tested, classes) if tested else None, classes)


def _only_test(root: Path, name: str) -> Sources:
    tested = next(root / split for split in TESTS if (root / split).is_dir())
    classes = tuple(folder.name for folder in folders(tested))
    return Sources(name, None, _source(tested, classes), classes, no_train(root))


def _is_class(root: Path) -> bool:
    """Whether the folders that are called like splits hold images themselves, and so are classes."""
    return all(pictures(root / name) for name in TESTS if (root / name).is_dir())


def _require_all_read(folder: Path, files: list[Path]) -> None:
    """See that no picture of a class is left out without a word.

    Args:
        folder: the class's.
        found: the pictures in it that are read.

    Raises:
        ValueError: one is in a format that is not read here or lies deeper, or a link to one leads nowhere.
    """
    for entry in sorted(set(visible(list(folder.iterdir()))) - set(files)):
        kind = mimetypes.guess_type(entry.name)[0] or ""
        if entry.is_dir():
            if holds_pictures(entry):
                raise ValueError(f"{entry} holds images below a class: move them up into {folder}, or out of it")
        elif entry.suffix.lower() in PICTURES or kind.startswith("image/"):
            if not entry.is_file():
                raise ValueError(f"{entry} leads to no file: mend the link or remove it")
            raise ValueError(
                f"{entry} is an image in a format that is not read here ({', '.join(sorted(PICTURES))}): save it "
                "in one of these, or move it away"
            )


class Files(Store):
    """Image files below a folder, each a group of its own."""

    def __init__(self, root: Path, names: list[bytes]) -> None:
        self.root, self.names = root, np.array(names)  # a million Path objects would take a gigabyte
        self.sizes = torch.ones(len(names), dtype=torch.int64)
        self.weights = torch.zeros(len(names), dtype=torch.int64)

    def read(self, group: int, places: list[int]) -> list[Encoded]:
        return [self._at(group) for _ in places]

    def all(self) -> Iterator[Encoded]:
        return map(self._at, range(len(self.names)))

    def identity(self) -> bytes:
        return b"\0".join(self.names.tolist())

    def _at(self, place: int) -> Encoded:
        file = self.root / os.fsdecode(self.names[place])
        return Encoded(str(file), file)


def _source(split: Path, classes: tuple[str, ...]) -> Source:
    """A split's images, class by class, file by file.

    Raises:
        ValueError: it has no class folders, or one that is empty, that the training split lacks, or that holds images
            which would be left out.
    """
    names: list[bytes] = []
    labels: list[int] = []
    kinds = folders(split)
    if not kinds:
        raise ValueError(f"{split} has no class folders: {LAYOUTS}")
    if loose := pictures(split):
        raise ValueError(f"{loose[0]} lies beside the folders of the classes: move it into one of them, or away")
    for folder in kinds:
        if folder.name not in classes:
            raise ValueError(f"{folder} is a class that the training images lack: add it there or remove it")
        images = pictures(folder)
        _require_all_read(folder, images)
        if not images:
            raise ValueError(f"{folder} has no images ({', '.join(sorted(PICTURES))}): fill or remove it; {LAYOUTS}")
        names += [os.fsencode(file.relative_to(split)) for file in images]
        labels += [classes.index(folder.name)] * len(images)
    files = Files(split, names)
    return Source(torch.tensor(labels, dtype=torch.int64), files.all, files)

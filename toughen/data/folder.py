"""Reads a local folder: parquet shards, or a folder of images for each class. Nothing is cached."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from toughen.data import shards
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
from toughen.utils.paths import is_text

_ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"}


def sources(root: Path) -> Sources:
    """The set in a folder: from parquet shards if there are any, else from class folders.

    Raises:
        ValueError: the path is a file, or the folder has an unknown or damaged layout.
    """
    if not root.is_dir():
        advice = "unpack it and give the folder" if root.suffix.lower() in _ARCHIVES else "give the folder it lies in"
        raise ValueError(f"{root} is a file: {advice}")
    require_no_run(root)
    places = (root, *(root / name for name in (*shards.SPLITS, "data")))
    files = visible([file for place in places for file in place.glob("*.parquet")])
    if not files:
        return _class_folders(root)
    if not any(shards.split_of(file, root) for file in files) and holds_classes(root):
        raise ValueError(f"{files[0]} is next to folders of images, but is not a split of a data set: move it away")
    return shards.sources(root, files, root.resolve().name)


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
    """Whether the folders with names of splits contain images directly, and so are classes."""
    return all(pictures(root / name) for name in TESTS if (root / name).is_dir())


def _require_all_read(folder: Path, files: list[Path]) -> None:
    """Check that no image of a class is silently left out: in another format, in a subfolder, or behind a dead link.

    Args:
        folder: the class's folder.
        files: the images in it that are read.
    """
    for entry in sorted(set(visible(list(folder.iterdir()))) - set(files)):
        kind = mimetypes.guess_type(entry.name)[0] or ""
        if entry.is_dir():
            if holds_pictures(entry):
                raise ValueError(f"{entry} has images in a subfolder of a class: move them into {folder}, or out of it")
        elif entry.suffix.lower() in PICTURES or kind.startswith("image/"):
            if not entry.is_file():
                raise ValueError(f"{entry} is a link to a missing file: repair the link or remove it")
            raise ValueError(
                f"{entry} is an image in an unsupported format: save it in a supported one "
                f"({', '.join(sorted(PICTURES))}), or move it away"
            )


class Files(Store):
    """Image files below a folder; each file is a group."""

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
        ValueError: it has no class folders; or one is empty, is not in the training split, or has images that would be
            left out.
    """
    names: list[bytes] = []
    labels: list[int] = []
    kinds = folders(split)
    if not kinds:
        raise ValueError(f"{split} has no class folders: {LAYOUTS}")
    if loose := pictures(split):
        raise ValueError(f"{loose[0]} is next to the class folders: move it into one of them, or away")
    for folder in kinds:
        if folder.name not in classes:
            raise ValueError(f"{folder} is a class without a folder of training images: add one or remove this one")
        if not is_text(folder.name):
            raise ValueError(f"{folder} has a name that is not UTF-8, and it names a class: rename it")
        images = pictures(folder)
        _require_all_read(folder, images)
        if not images:
            if any(folder.glob("*.parquet")):
                raise ValueError(f"{folder} holds parquet files and no images: did you mean --data {folder}?")
            raise ValueError(
                f"{folder} has no images ({', '.join(sorted(PICTURES))}): add images or remove it; {LAYOUTS}"
            )
        names += [os.fsencode(file.relative_to(split)) for file in images]
        labels += [classes.index(folder.name)] * len(images)
    files = Files(split, names)
    return Source(torch.tensor(labels, dtype=torch.int64), files.all, files)

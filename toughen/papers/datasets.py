"""Finds the papers' data sets, in the user's folder or on the hub, and chooses the test images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from toughen.core.types import Labels
from toughen.data import stratified
from toughen.data.ingest import peek
from toughen.data.layout import PICTURES
from toughen.papers.scales import Scale
from toughen.runs.files import read_fields, write_json


class DataSet(NamedTuple):
    """One data set.

    Attributes:
        title: the name in papers.
        shape: channels, height and width of the images.
        classes: the number of classes.
        train, test: the numbers of images.
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
HUB = ("mnist", "cifar10", "cifar100")
MOST = 0.95  # a set must have at least this fraction of its training images
READ = 2**31  # up to this many bytes, a fingerprint includes the files' content


class Missing(ValueError):
    """A data set is not available.

    Attributes:
        reason: why not.
        replaceable: whether the user's folder has other data sets but not this one; at scale smoke, generated noise
            images then replace it.
    """

    def __init__(self, name: str, reason: str, replaceable: bool = False) -> None:
        super().__init__(f"this needs {name}: {reason}")
        self.reason, self.replaceable = reason, replaceable


def place(name: str, given: str | None) -> str:
    """The folder or name of a data set, as a recipe takes it.

    Args:
        name: the paper's data set.
        given: a folder with a data set, or with several in folders of their names; or a data set's name; None: the hub.

    Raises:
        Missing: the data set is not available.
    """
    if given is None:
        if name not in HUB:
            raise Missing(name, "it is not on the hub: give a folder with it by --data")
        if not Path(name).exists():
            return name
        given = name
    if given in HUB and Path(given).exists():  # such a folder is preferred to the name, so it is checked as a folder
        given = str(Path(given).absolute())
    spec = str(Path(given) / name) if _holds_images(Path(given) / name) else given
    if spec == given and _holds_sets(Path(given)):
        raise Missing(name, f"{given} has no folder of that name with images", replaceable=True)
    try:
        held, why = kind(spec)
    except (OSError, ValueError) as error:
        raise Missing(name, str(error)) from None
    if held != name and not (held == "imagenet" and name == "imagenet100"):
        raise Missing(name, f"{spec} holds {held or why}")
    return spec


def _holds_sets(folder: Path) -> bool:
    """Whether a folder contains data sets in folders of their names, and is not a data set itself."""
    return not any(folder.glob("*.parquet")) and any(_holds_images(folder / name) for name in SETS)


def _holds_images(folder: Path) -> bool:
    """Whether a folder may be a data set: it has parquet shards or folders."""
    return folder.is_dir() and any(each.is_dir() or each.suffix == ".parquet" for each in folder.iterdir())


def kind(spec: str) -> tuple[str, str]:
    """The papers' data set that matches a set by shape and classes, "" for none; and a description of the set."""
    outline = peek(spec)
    shape, classes = outline.shape, outline.classes
    description = f"{len(classes)} classes of images of shape {list(shape)}"
    if shape == (1, 28, 28) and len(classes) == 10:
        digits = all(str(number) in name for number, name in enumerate(classes))
        return ("mnist", description) if digits else ("", f"classes that are not digits, {', '.join(classes)}")
    if shape == (3, 32, 32) and len(classes) in (10, 100):
        return f"cifar{len(classes)}", description
    if min(shape[1:]) > 32 and len(classes) >= 100:
        return "imagenet" if len(classes) >= 1000 else "imagenet100", description
    return "", description


def check_whole(name: str, spec: str) -> None:
    """Check that a paper's data set is complete, without additional images.

    Raises:
        Missing: it is not.
    """
    outline = peek(spec)
    train, test = SETS[name].train, SETS[name].test
    exact = name in HUB  # copies of the others differ by a few training images, and ImageNet contains ImageNet-100
    if (outline.train, outline.test) != (train, test) if exact else outline.train < MOST * train or outline.test < test:
        raise Missing(
            name,
            f"it has {'' if exact else 'about '}{train:,} training and {test:,} test images, but {spec} has "
            f"{outline.train:,} and {outline.test:,}: give the whole set (--scale smoke accepts any part)",
        )


def check_same(name: str, spec: str, scale: Scale, out: Path) -> None:
    """Check that images are the same as those of earlier results; the first call stores their fingerprint.

    Samples have a fingerprint of their own, and the hub's sets are identified by their names.

    Raises:
        ValueError: they are not the same.
    """
    if scale.training_images is not None or spec in HUB:
        return
    path, now = out / scale.name / "images" / f"{name}.json", fingerprint(Path(spec))
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"from": spec, "files": now})
    elif (before := read_fields(path)).get("files") != now:
        former = before.get("from", "unknown ones")
        raise ValueError(
            f"{path.parent.parent} has results on other images of {name} ({former}) than those in {spec}: choose "
            "another --out"
        )


def fingerprint(folder: Path) -> str:
    """A hash of a folder's images: of the files' names and sizes, and, up to 2 GiB in total, of their content."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".parquet", *PICTURES))
    sizes = [path.stat().st_size for path in files]
    total, digest = sum(sizes), hashlib.blake2b(digest_size=16)
    for path, size in zip(files, sizes, strict=True):
        digest.update(f"{path.relative_to(folder).as_posix()} {size}\n".encode())
        if total <= READ:
            digest.update(path.read_bytes())
    return digest.hexdigest()


ALL, FIRST, STRATIFIED = "all", "first", "stratified"  # how images were drawn from a test set
DRAWN = {ALL: "{} {}", FIRST: "the first {} {}", STRATIFIED: "a stratified sample of {} {}"}


def some(labels: Labels, count: int | None) -> tuple[Tensor, str]:
    """The indices of ``count`` test images (None: all), and how they were chosen.

    They are the first ones, which are the same for everybody. If the set is sorted by class, as folders are, they are a
    stratified sample instead.
    """
    if count is None or count >= len(labels):
        return torch.arange(len(labels)), ALL
    if bool((labels.diff() >= 0).all()):
        return stratified(labels, count, seed=0), STRATIFIED
    return torch.arange(count), FIRST


def describe_images(cells: Iterable[Mapping[str, Any]], noun: str = "test images") -> str:
    """A text on the images that figures were measured on; "" if they need no images."""
    kinds = sorted({(cell["images"], cell.get("drawn", ALL)) for cell in cells if cell["images"]})
    return " and ".join(DRAWN[drawn].format(f"{count:,}", noun) for count, drawn in kinds)

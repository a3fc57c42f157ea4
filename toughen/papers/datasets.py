"""Where a paper's images are: in the folder that the user gives, on the hub, or nowhere; and which are measured on."""

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
HUB = ("mnist", "cifar10", "cifar100")
MOST = 0.95  # a set with fewer of its training images is not taken for it
READ = 2**31  # bytes of files that are read to tell them from others


class Missing(ValueError):
    """A data set is not at hand.

    Attributes:
        reason: why not; the same of several where it lies in what the user gave.
        drawable: whether a folder of data sets lacks it, so that at smoke drawn images can stand in.
    """

    def __init__(self, name: str, reason: str, drawable: bool = False) -> None:
        super().__init__(f"this needs {name}: {reason}")
        self.reason, self.drawable = reason, drawable


def place(name: str, given: str | None) -> str:
    """What a recipe takes as its data.

    Args:
        name: the paper's data set.
        given: a folder that is a data set or holds some by their names, or another data set's name; None: the hub.

    Raises:
        Missing: the data set is not there.
    """
    if given is None:
        if name in HUB:
            return name
        raise Missing(name, "the hub does not have it: give a folder of it with --data")
    spec = str(Path(given) / name) if _holds_images(Path(given) / name) else given
    if spec == given and _holds_sets(Path(given)):
        raise Missing(name, f"{given} has no folder of that name with images", drawable=True)
    try:
        held, why = kind(spec)
    except (OSError, ValueError) as error:
        raise Missing(name, str(error)) from None
    if held != name and not (held == "imagenet" and name == "imagenet100"):
        raise Missing(name, f"{spec} holds {held or why}")
    return spec


def _holds_sets(folder: Path) -> bool:
    """Whether a folder holds data sets by their names, and is none itself."""
    return not any(folder.glob("*.parquet")) and any(_holds_images(folder / name) for name in SETS)


def _holds_images(folder: Path) -> bool:
    """Whether there may be a data set in a folder: parquet shards, or folders of a split."""
    return folder.is_dir() and any(each.is_dir() or each.suffix == ".parquet" for each in folder.iterdir())


def kind(spec: str) -> tuple[str, str]:
    """Which of the papers' data sets a set looks like, "" for none; and what it looks like."""
    outline = peek(spec)
    shape, classes = outline.shape, outline.classes
    looks = f"{len(classes)} classes of images of shape {list(shape)}"
    if shape == (1, 28, 28) and len(classes) == 10:
        digits = all(str(number) in name for number, name in enumerate(classes))
        return ("mnist", looks) if digits else ("", f"other things than digits, {', '.join(classes)}")
    if shape == (3, 32, 32) and len(classes) in (10, 100):
        return f"cifar{len(classes)}", looks
    if min(shape[1:]) > 32 and len(classes) >= 100:
        return "imagenet" if len(classes) >= 1000 else "imagenet100", looks
    return "", looks


def check_whole(name: str, spec: str) -> None:
    """See that no image of a paper's data set is missing, nor that others were added.

    Raises:
        Missing: that is so.
    """
    outline = peek(spec)
    train, test = SETS[name].train, SETS[name].test
    exact = name in HUB  # of the others copies differ by some training images, and a larger set may hold a smaller one
    if (outline.train, outline.test) != (train, test) if exact else outline.train < MOST * train or outline.test < test:
        raise Missing(
            name,
            f"it has {'' if exact else 'about '}{train:,} training and {test:,} test images, {spec} has "
            f"{outline.train:,} and {outline.test:,}: give the whole set (--scale smoke takes any part)",
        )


def check_same(name: str, spec: str, scale: Scale, out: Path) -> None:
    """See that images are those that everything of a scale was measured on; the first ones are noted there.

    Samples have their own note, and the hub's sets are those of their names.

    Raises:
        ValueError: they are others.
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
            f"{path.parent.parent} was measured on other images of {name} ({former}) than {spec} holds: choose another "
            "--out"
        )


def fingerprint(folder: Path) -> str:
    """What tells a folder's images from others: their files' names and sizes, and, up to 2 GiB, what is in them."""
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
    """Places of so many test images, and how they were drawn.

    They are the first, which everybody has alike; of a set that lies sorted by class, as folders do, a stratified
    sample instead. None means all.
    """
    if count is None or count >= len(labels):
        return torch.arange(len(labels)), ALL
    if bool((labels.diff() >= 0).all()):
        return stratified(labels, count, seed=0), STRATIFIED
    return torch.arange(count), FIRST


def describe_images(cells: Iterable[Mapping[str, Any]], noun: str = "test images") -> str:
    """What figures were measured on, in words; "" where on no images."""
    kinds = sorted({(cell["images"], cell.get("drawn", ALL)) for cell in cells if cell["images"]})
    return " and ".join(DRAWN[drawn].format(f"{count:,}", noun) for count, drawn in kinds)

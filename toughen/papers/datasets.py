"""Where a paper's images are: in the folder that the user gives, on the hub, or nowhere; and which are measured on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from toughen import data as data_sets
from toughen.core.types import Labels
from toughen.data import EncodedSplit, Split, stratified
from toughen.data.folder import PICTURES
from toughen.data.ingest import peek, read_classes
from toughen.papers.dataset_facts import SETS
from toughen.papers.scales import EACH, SMALL, Scale
from toughen.runs.files import read_fields, read_json, write_json

HUB = ("mnist", "cifar10", "cifar100")
ORIGIN = "origin.json"
MOST = 0.95  # a set with fewer of its training images is not taken for it
READ = 2**31  # bytes of files that are read to tell them from others
DRAWN_HERE = "drawn images"  # as a sample's origin


class Missing(ValueError):
    """A data set is not at hand.

    Attributes:
        reason: why not; the same of several where it lies in what the user gave.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"this needs {name}: {reason}")
        self.reason = reason


class Lacking(Missing):
    """A folder of data sets lacks one, which at smoke drawn images can stand in for."""


def place(name: str, given: str | None) -> str:
    """What a recipe takes as its data.

    Args:
        name: the paper's data set.
        given: a folder that is a data set or holds some by their names, or another data set's name; None: the hub.

    Raises:
        Lacking: the folder holds sets by their names, and not this one.
        Missing: the data set is not there for another reason.
    """
    if given is None:
        if name in HUB:
            return name
        raise Missing(name, "the hub does not have it: give a folder of it with --data")
    spec = str(Path(given) / name) if _holds_images(Path(given) / name) else given
    if spec == given and _holds_sets(Path(given)):
        raise Lacking(name, f"{given} has no folder of that name with images")
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
    found = peek(spec)
    shape, classes = found.shape, found.classes
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
    found = peek(spec)
    train, test = SETS[name].train, SETS[name].test
    exact = name in HUB  # of the others copies differ by some training images, and a larger set may hold a smaller one
    if (found.train, found.test) != (train, test) if exact else found.train < MOST * train or found.test < test:
        raise Missing(
            name,
            f"it has {'' if exact else 'about '}{train:,} training and {test:,} test images, {spec} has "
            f"{found.train:,} and {found.test:,}: give the whole set (--scale smoke takes any part)",
        )


def at_scale(name: str, spec: str | None, scale: Scale, out: Path) -> str:
    """The images of a scale: the set itself, or a small sample of it that is written to a folder once.

    Args:
        name: the paper's data set.
        spec: where it is; None, at smoke only, for drawn images in its place.
        scale: how much is run.
        out: where samples are written.

    Raises:
        ValueError: the folder holds a sample of other images, or another number of them.
    """
    if scale.training_images is None:
        if spec is None:
            raise ValueError(f"drawn images stand in for {name} at smoke only")
        if spec not in HUB:
            check_whole(name, spec)
        return spec
    folder = out / scale.name / "images" / name
    origin = DRAWN_HERE if spec is None else spec if spec in HUB else str(Path(spec).absolute())
    files = fingerprint(Path(spec)) if spec and spec not in HUB and Path(spec).is_dir() else origin
    if folder.exists():
        _check_sample(folder, origin, files)
        return str(folder)
    train, test, classes = _drawn(name) if spec is None else _loaded(name, spec)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{name}-", dir=folder.parent) as place:
        whole = Path(place) / name  # moved when it is: what a kill leaves is no sample
        _write(whole / "train", train, scale.training_images, classes)
        _write(whole / "test", test, scale.images or len(test), classes)
        write_json(whole / ORIGIN, {"from": origin, "files": files, "images": _pictures(whole)})
        try:
            whole.rename(folder)
        except OSError:  # the same command beside this one was sooner
            _check_sample(folder, origin, files)
    return str(folder)


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


def _loaded(name: str, spec: str) -> tuple[Split | EncodedSplit, Split, tuple[str, ...]]:
    """Training images, test images and classes of a set; large images are made smaller."""
    large = name.startswith("imagenet")
    how = {"classes": "imagenet100" if name == "imagenet100" else None, "image_size": SMALL if large else None}
    train = data_sets.load_training(spec, **how, stream=large)  # type: ignore[arg-type]
    return train.train, data_sets.load_test(spec, **how).test, train.classes  # type: ignore[arg-type]


def _drawn(name: str) -> tuple[Split, Split, tuple[str, ...]]:
    """Noise in the shape of a set, a colour for each class."""
    (channels, size, _), classes = SETS[name].shape, SETS[name].classes
    size = min(size, SMALL)
    random = torch.Generator().manual_seed(0)
    colours = torch.randint(256, (classes, channels, 1, 1), generator=random)

    def split() -> Split:
        labels = torch.arange(max(200, EACH * classes)) % classes
        noise = torch.randint(-64, 65, (len(labels), channels, size, size), generator=random)
        return Split((colours[labels] + noise).clamp(0, 255).to(torch.uint8), labels)

    names = read_classes(name) if name == "imagenet100" else tuple(f"{number:04d}" for number in range(classes))
    return split(), split(), names  # its recipes ask for its classes by their names


def stands_in(folder: str) -> bool:
    """Whether a sample's images were drawn here, in place of a set that was not at hand."""
    path = Path(folder) / ORIGIN
    return path.is_file() and read_json(path).get("from") == DRAWN_HERE


def _pictures(folder: Path) -> int:
    return sum(1 for _ in folder.rglob("*.png"))


def _check_sample(folder: Path, origin: str, files: str) -> None:
    """See that a folder holds the sample of the images that lie at the origin now, as it was written.

    Raises:
        ValueError: it doesn't.
    """
    try:
        written = read_json(folder / ORIGIN)
    except (ValueError, FileNotFoundError):
        written = None
    if not isinstance(written, dict) or written.get("images") != _pictures(folder):
        raise ValueError(f"{folder} is not the sample that was written there: remove it, or choose another --out")
    if written.get("files") != files:
        raise ValueError(f"{folder} is a sample of other images than {origin}: choose another --out")


def _write(folder: Path, split: Split | EncodedSplit, count: int, classes: tuple[str, ...]) -> None:
    """A stratified sample with at least ``EACH`` images of each class, as class folders of PNG files."""
    count = min(len(split), max(count, EACH * len(classes)))
    some = split.take(stratified(split.labels, count, 0))
    some = some.decoded() if isinstance(some, EncodedSplit) else some
    named = all(re.fullmatch(r"[\w -]+", name) for name in classes)
    for row, label in enumerate(some.labels.tolist()):
        place = folder / (classes[label] if named else f"{label:04d}")
        place.mkdir(parents=True, exist_ok=True)
        pixels = some.images[row].to(torch.uint8).permute(1, 2, 0).squeeze(-1).numpy()
        Image.fromarray(pixels).save(place / f"{row}.png")


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


def describe_images(cells: Iterable[Mapping[str, Any]], what: str = "test images") -> str:
    """What figures were measured on, in words; "" where on no images."""
    kinds = sorted({(cell["images"], cell.get("drawn", ALL)) for cell in cells if cell["images"]})
    return " and ".join(DRAWN[drawn].format(f"{count:,}", what) for count, drawn in kinds)

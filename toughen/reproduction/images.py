"""Where a paper's images are: in the folder that the user gives, on the hub, or nowhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from PIL import Image

from toughen import data as data_sets
from toughen.data import EncodedSplit, Split, stratified
from toughen.data.ingest import peek
from toughen.files import write_text
from toughen.reproduction.scales import Scale

HUB = ("mnist", "cifar10", "cifar100")
SHAPES = {(1, 28, 28, 10): "mnist", (3, 32, 32, 10): "cifar10", (3, 32, 32, 100): "cifar100"}
ORIGIN = "origin.json"
SMALL = 64  # pixels that a sample of large images is brought to


class Missing(ValueError):
    """A data set is not at hand."""


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
        raise Missing(f"{name} is not on the hub: give a folder of it with --data")
    if (Path(given) / name).is_dir():
        return str(Path(given) / name)
    held = kind(given)
    if held == name or (held == "imagenet" and name == "imagenet100"):
        return given
    raise Missing(
        f"this needs {name}, and {given} " + (f"holds {held}" if held else "is neither that nor a folder of data sets")
    )


def kind(spec: str) -> str:
    """Which of the papers' data sets a folder looks like; "" for none."""
    folder = Path(spec)
    if folder.is_dir() and not any(folder.glob("*.parquet")) and not (folder / "train").exists():
        if any((folder / name).is_dir() for name in (*HUB, "imagenet", "imagenet100")):
            return ""
    channels, height, width, classes = peek(spec)
    if (channels, height, width, classes) in SHAPES:
        return SHAPES[channels, height, width, classes]
    if min(height, width) > 32 and classes >= 100:
        return "imagenet" if classes >= 1000 else "imagenet100"
    return ""


def at_scale(name: str, spec: str, scale: Scale, out: Path) -> str:
    """The images of a scale: the set itself, or a small sample of it that is written to a folder once.

    Raises:
        ValueError: the folder holds a sample of other images.
    """
    if scale.training_images is None:
        return spec
    folder = out / scale.name / "images" / name
    origin = json.dumps({"from": spec if spec in HUB else str(Path(spec).absolute())})
    if (folder / ORIGIN).is_file():
        if (folder / ORIGIN).read_text(encoding="utf-8") != origin:
            raise ValueError(f"{folder} is a sample of other images than {spec}: choose another --out")
        return str(folder)
    large = name.startswith("imagenet")
    how = {"classes": "imagenet100" if name == "imagenet100" else None, "image_size": SMALL if large else None}
    train = data_sets.load_training(spec, **how, stream=large)  # type: ignore[arg-type]
    test = data_sets.load_test(spec, **how)  # type: ignore[arg-type]
    _write(folder / "train", train.train, scale.training_images, train.classes)
    _write(folder / "test", test.test, scale.images or len(test.test), test.classes)
    write_text(folder / ORIGIN, origin)
    return str(folder)


def _write(folder: Path, split: Split | EncodedSplit, count: int, classes: tuple[str, ...]) -> None:
    """A stratified sample with at least two images of each class, as class folders of PNG files."""
    count = min(len(split), max(count, 2 * len(classes)))
    some = split.take(stratified(split.labels, count, 0))
    some = some.decoded() if isinstance(some, EncodedSplit) else some
    named = all(re.fullmatch(r"[\w -]+", name) for name in classes)
    for row, label in enumerate(some.labels.tolist()):
        place = folder / (classes[label] if named else f"{label:04d}")
        place.mkdir(parents=True, exist_ok=True)
        pixels = some.images[row].to(torch.uint8).permute(1, 2, 0).squeeze(-1).numpy()
        Image.fromarray(pixels).save(place / f"{row}.png")

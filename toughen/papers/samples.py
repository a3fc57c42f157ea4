"""Samples of the papers' data sets for the smoke scale: a few images of each class, written as parquet once."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq
import torch
from PIL import Image as Picture

from toughen import data as data_sets
from toughen.data import EncodedSplit, Split, stratified
from toughen.data.find import read_classes
from toughen.papers import datasets
from toughen.papers.datasets import HUB, SETS, fingerprint
from toughen.papers.scales import EACH, SMALL, Scale
from toughen.runs.files import read_fields, write_json

ORIGIN = "origin.json"
GENERATED = "drawn images"  # the origin of a sample of generated noise images


def at_scale(name: str, spec: str | None, scale: Scale, out: Path) -> str:
    """The images of a scale: the set itself, or a small sample of it that is written to a folder once.

    Args:
        name: the paper's data set.
        spec: its folder or name; None, only at scale smoke, for generated noise images instead.
        scale: the scale.
        out: the folder that samples are written to.

    Raises:
        ValueError: the folder has a sample of other images, or another number of images.
    """
    if scale.training_images is None:
        if spec is None:
            raise ValueError(f"noise images can replace {name} only at --scale smoke: give a folder with --data")
        if spec not in HUB:
            datasets.check_whole(name, spec)
        return spec
    folder = out / scale.name / "images" / name
    origin = GENERATED if spec is None else spec if spec in HUB else str(Path(spec).absolute())
    files = fingerprint(Path(spec)) if spec and spec not in HUB and Path(spec).is_dir() else origin
    if folder.exists():
        _check_sample(folder, origin, files)
        return str(folder)
    train, test, classes = _generated(name) if spec is None else _loaded(name, spec)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{name}-", dir=folder.parent) as place:
        whole = Path(place) / name  # moved when complete, so that a kill leaves no incomplete sample
        whole.mkdir()
        _write(whole / "train.parquet", train, scale.training_images, classes)
        _write(whole / "test.parquet", test, scale.images or len(test), classes)
        write_json(whole / ORIGIN, {"from": origin, "files": files, "sample": fingerprint(whole)})
        try:
            whole.rename(folder)
        except OSError:  # a parallel run of the same command was faster
            _check_sample(folder, origin, files)
    return str(folder)


def _loaded(name: str, spec: str) -> tuple[Split | EncodedSplit, Split, tuple[str, ...]]:
    """Training images, test images and classes of a set; large images are resized to ``SMALL`` pixels."""
    large = name.startswith("imagenet")
    options = {"classes": "imagenet100" if name == "imagenet100" else None, "image_size": SMALL if large else None}
    train = data_sets.load_training(spec, **options, stream=large)  # type: ignore[arg-type]
    return train.train, data_sets.load_test(spec, **options).test, train.classes  # type: ignore[arg-type]


def _generated(name: str) -> tuple[Split, Split, tuple[str, ...]]:
    """Noise images in the shape of a set: each class has a colour."""
    (channels, size, _), classes = SETS[name].shape, SETS[name].classes
    size = min(size, SMALL)
    random = torch.Generator().manual_seed(0)
    colours = torch.randint(256, (classes, channels, 1, 1), generator=random)

    def split() -> Split:
        labels = torch.arange(max(200, EACH * classes)) % classes
        noise = torch.randint(-64, 65, (len(labels), channels, size, size), generator=random)
        return Split((colours[labels] + noise).clamp(0, 255).to(torch.uint8), labels)

    names = read_classes(name) if name == "imagenet100" else tuple(f"{number:04d}" for number in range(classes))
    return split(), split(), names  # its recipes select the classes by name


def is_generated(folder: str) -> bool:
    """Whether a sample consists of generated noise images, because the set was not available."""
    return read_fields(Path(folder) / ORIGIN).get("from") == GENERATED


def _check_sample(folder: Path, origin: str, files: str) -> None:
    """Check that a folder has an unchanged sample of the images that are now at the origin."""
    written = read_fields(folder / ORIGIN)
    if written.get("sample") != fingerprint(folder):
        raise ValueError(f"{folder} is not the sample that was written there: remove it, or choose another --out")
    if written.get("files") != files:
        raise ValueError(f"{folder} is a sample of other images than {origin}: choose another --out")


def _write(file: Path, split: Split | EncodedSplit, count: int, classes: tuple[str, ...]) -> None:
    """A stratified sample with at least ``EACH`` images of each class, sorted by class as in a folder of images."""
    from datasets import ClassLabel, Dataset, Features, Image  # the import takes a second

    count = min(len(split), max(count, EACH * len(classes)))
    rows = stratified(split.labels, count, 0)
    some = split.take(rows[split.labels[rows].argsort(stable=True)])
    some = some.decoded() if isinstance(some, EncodedSplit) else some
    pixels = some.images.to(torch.uint8).permute(0, 2, 3, 1).squeeze(-1).numpy()
    columns = {"image": [Picture.fromarray(each) for each in pixels], "label": some.labels.tolist()}
    features = Features({"image": Image(), "label": ClassLabel(names=list(classes))})
    table = Dataset.from_dict(columns, features=features).with_format("arrow")[:]
    with file.open("wb") as opened:
        pq.write_table(table, opened)  # to_parquet would show a bar

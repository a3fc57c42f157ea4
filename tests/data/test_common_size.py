"""Images of different sizes: which size they are brought to, what is told of a set beforehand, and what a run keeps."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from commands import refused, small, toughen
from PIL import Image, ImageFile

from toughen import data
from toughen.data.common_size import choose
from toughen.data.ingest import Outline, peek

SIZES = [  # how many images there are of each size, and what is worked out by hand for them
    ({(28, 28): 5}, None),
    ({(100, 30): 5}, None),  # of one size, whatever its shape
    ({(224, 224): 5}, None),
    ({(640, 480): 5}, 224),
    ({(300, 200): 5}, 192),  # more pixels than 224x224
    ({(28, 28): 5, (32, 32): 5}, 28),
    ({(90, 70): 90, (10, 5000): 10}, 64),  # a tenth is smaller than 70, as it may
    ({(90, 70): 89, (10, 5000): 11}, 8),
    ({(500, 375): 80, (375, 500): 20}, 224),
    ({(64, 64): 1, (63, 90): 19}, 56),
    ({(5, 9): 3, (4, 9): 3}, 8),
]


@pytest.mark.parametrize(("sizes", "chosen"), SIZES)
def test_a_size_is_the_largest_usual_one_that_nine_in_ten_have(
    sizes: dict[tuple[int, int], int], chosen: int | None
) -> None:
    assert choose(sizes).size == chosen


@cache
def images() -> Any:
    """The embedded training images, [4000, 28, 28], sorted by digit."""
    return data.load("mnist-5k").train.images[:, 0].numpy()


def digit(number: int, place: int, side: int | tuple[int, int]) -> Image.Image:
    """One of the embedded digits, at another size."""
    size = (side, side) if isinstance(side, int) else side
    return Image.fromarray(images()[400 * number + place]).resize(size, Image.Resampling.BICUBIC)


def mixed(root: Path, sides: tuple[int, ...] = (40, 52, 64, 90)) -> Path:
    """JPEG digits of three classes, 24, 16 and 8 of them, of these shorter sides in turn, some of them wide."""
    for number, count in ((0, 24), (1, 16), (2, 8)):
        folder = root / f"digit {number}"
        folder.mkdir(parents=True)
        for place in range(count):
            side = sides[place % len(sides)]
            digit(number, place, (side + place % 3 * 10, side)).save(folder / f"{place}.jpg")
    return root


def test_a_look_counts_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = mixed(tmp_path / "set")

    def decoded(image: Image.Image) -> None:
        raise AssertionError("pixels were decoded")

    with monkeypatch.context() as watched:
        watched.setattr(ImageFile.ImageFile, "load", decoded)
        found = peek(str(root))
    # a tenth of 48 is 4, shared out over classes as 2, 1 (remainders .0, .33, .67) and 1
    assert found == Outline(
        (1, 40, 40), ("digit 0", "digit 1", "digit 2"), 44, 4, (22, 15, 7), (2, 1, 1), 4, (40, 90), 48, 40, found.why
    )
    assert "shorter sides of 40 to 90 pixels" in found.why
    loaded = data.load(str(root), image_size="auto")
    assert (loaded.shape, loaded.image_size, loaded.why) == (found.shape, 40, found.why)
    assert torch.bincount(loaded.train.labels).tolist() == list(found.counts)
    assert peek(str(root), image_size=16).shape == (1, 16, 16)
    kept = peek(str(root), classes=("digit 2", "digit 0"))
    assert (kept.classes, kept.counts) == (("digit 2", "digit 0"), (7, 22))


def test_one_size_stays_unless_it_is_huge(tmp_path: Path) -> None:
    assert peek("mnist-5k").image_size is None and data.load("mnist-5k", image_size="auto").image_size is None
    found = peek(str(mixed(tmp_path / "huge", (300,))))
    assert (found.shape, found.image_size) == ((1, 224, 224), 224)


def saved(image: Image.Image, kind: str, **settings: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def test_shards_whose_images_differ_get_one_size_in_memory_and_streamed(tmp_path: Path) -> None:
    for split, count in (("train", 40), ("test", 8)):
        files = [saved(digit(i % 2, i, 30 + i), "PNG") for i in range(count)]
        table = {"image": [{"bytes": each, "path": None} for each in files], "label": [i % 2 for i in range(count)]}
        pq.write_table(pa.table(table), tmp_path / f"{split}.parquet", row_group_size=10)
    # shorter sides 30 to 69; four of 40 are below 34, and 32 is the usual size below that
    found = peek(str(tmp_path))
    assert (found.image_size, found.sides, found.train, found.test) == (32, (30, 69), 40, 8)
    for stream in (False, True):
        loaded = data.load_training(str(tmp_path), image_size="auto", stream=stream)
        assert (loaded.shape, loaded.image_size) == ((1, 32, 32), 32)
    with pytest.raises(ValueError, match="give --image-size N"):
        data.load_training(str(tmp_path))


def upright(image: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(image.convert("RGB").resize((28, 28), Image.Resampling.BICUBIC)).astype(int)


def test_pictures_of_all_kinds_in_one_folder_become_alike(tmp_path: Path) -> None:
    """The same digit, grey, coloured, transparent, out of a palette, in ink and turned by a camera."""
    image = digit(7, 3, 56)
    turned = Image.Exif()
    turned[0x0112] = 6
    inverse = image.convert("RGB").convert("CMYK")
    kinds = {
        "grey.png": saved(image, "PNG"),
        "colour.jpg": saved(image.convert("RGB"), "JPEG", quality=95),
        "clear.png": saved(image.convert("RGBA"), "PNG"),
        "palette.gif": saved(image, "GIF"),
        "ink.jpg": saved(inverse, "JPEG", quality=95),
        "turned.jpg": saved(image.rotate(90), "JPEG", exif=turned, quality=95),
        "two.tif": saved(image, "TIFF"),
        "tiny.png": saved(digit(7, 3, 2), "PNG"),
    }
    for name in "ab":
        (tmp_path / name).mkdir()
        for file, content in kinds.items():
            (tmp_path / name / file).write_bytes(content)
        for place in range(24):
            digit(7, 3, 28 + place).save(tmp_path / name / f"more {place}.png")
        (tmp_path / name / "notes.txt").write_text("no picture")
        (tmp_path / name / ".DS_Store").write_bytes(b"\0")
    found = data.load(str(tmp_path), image_size="auto")
    assert found.shape == (3, 28, 28)
    order = sorted(path.name for path in (tmp_path / "a").iterdir() if path.suffix in {".png", ".jpg", ".gif", ".tif"})
    form = data.load_training(str(tmp_path), image_size=28, stream=True)
    assert isinstance(form, data.Streamed)
    rows = dict(zip(form.train.rows.tolist(), found.train.images, strict=True))
    compared = [place for place, name in enumerate(order) if name in kinds and name != "tiny.png" and place in rows]
    assert len(compared) >= 5
    for place in compared:
        apart = np.abs(rows[place].permute(1, 2, 0).numpy().astype(int) - upright(image))
        assert apart.mean() < 4, order[place]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def sixteen(path: Path) -> None:
    path.with_suffix(".png").write_bytes(saved(Image.fromarray(np.full((40, 40), 700, np.uint16)), "PNG"))


def nested(path: Path) -> None:
    (path.parent / "in").mkdir()
    path.rename(path.parent / "in" / path.name)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (cut, "5.jpg cannot be decoded"),
    "no picture": (lambda path: path.write_text("text"), "5.jpg cannot be decoded (unknown image format)"),
    "16 bits": (sixteen, "5.png has pixels of mode I;16: save it with 8 bits"),
    "nested": (nested, "in a subfolder of a class: move them into"),
    "empty class": (lambda path: (path.parent.parent / "none").mkdir(), "none has no images"),
    "loose": (lambda path: path.rename(path.parent.parent / "5.jpg"), "5.jpg is next to the class folders"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_trained_on_is_named(case: str, tmp_path: Path) -> None:
    root = mixed(tmp_path / "set")
    harm, said = BAD[case]
    harm(root / "digit 1" / "5.jpg")
    refused(toughen(*small("--data", root, "--out", tmp_path / "run")), said)
    assert not (tmp_path / "run").exists()


def sizes_of(run: Path) -> tuple[Any, bool]:
    """What model.json and config.yaml say."""
    size = json.loads((run / "model.json").read_text())["image_size"]
    return size, f"image_size: {size}" in (run / "config.yaml").read_text().splitlines()


@pytest.mark.slow
def test_a_run_keeps_the_size_that_was_chosen_and_needs_no_flag_later(tmp_path: Path) -> None:
    root, run = mixed(tmp_path / "set"), tmp_path / "run"
    words = ("--data", root, "--model", "resnet18", "--model_settings.width", 4, "--method", "FBF", "--eps", 0.1)
    ended = toughen(*small(*words, "--out", run))
    assert ended.status == 0, ended.err
    assert "images are resized to 40x40 (--image-size): they have shorter sides of 40 to 90 pixels" in " ".join(
        ended.err.split()
    )
    assert sizes_of(run) == (40, True)
    ended = toughen("evaluate", run, "--attacks", "fgsm", "--verdict", "false", "--details", "false")
    assert ended.status == 0, ended.err
    assert toughen("attack", run, "--attack", "fgsm", "--out", tmp_path / "images.parquet").status == 0
    assert toughen("report", run).status == 0
    again = toughen(*small(*words, "--out", run), "--resume")
    assert again.status == 0 and "finished already" in again.err
    other = (*words, "--image_size", 48, "--out")
    refused(toughen(*small(*other, run), "--resume"), "image_size: 40, now 48")
    assert toughen(*small(*other, tmp_path / "other")).status == 0 and sizes_of(tmp_path / "other") == (48, True)
    refused(toughen(*small(*words, "--out", tmp_path / "other"), "--resume"), "image_size: 48, now 40")
    repeated = toughen("train", run / "config.yaml", "--out", tmp_path / "repeated")
    assert repeated.status == 0 and "resized to" not in repeated.err
    assert (tmp_path / "repeated/model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    refused(toughen(*small(*words, "--image_size", "keep", "--out", tmp_path / "kept")), "give --image-size N")


def test_one_shorter_side_is_no_range() -> None:
    why = choose({(16, 16): 9, (16, 24): 1}).why
    assert why == "they have shorter sides of 16 pixels; 16 is the largest usual size that 9 of 10 images have"

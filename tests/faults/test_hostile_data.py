"""Settings and images from a stranger: nothing runs or changes outside, memory is bounded, the file is named."""

from __future__ import annotations

import io
import os
import random
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from commands import files, refused, small, toughen
from PIL import Image

from toughen.data import load
from toughen.utils import strict_yaml

ENTRIES = 2000  # random texts for the YAML reader


def settings(trap: Path) -> dict[str, str]:
    """Recipes that want more than to be read, by what."""
    return {
        "a class path of os": f"method: {{class_path: os.system, init_args: {{command: 'touch {trap}'}}}}\n",
        "a class path of subprocess": f"method: {{class_path: subprocess.Popen, init_args: {{args: ['{trap}']}}}}\n",
        "a callback of os": "method: Standard\ncallbacks: [os.system]\n",
        "an optimizer of builtins": "method: Standard\noptimizer: {class_path: builtins.exec}\n",
        "a tag": f"method: !!python/object/apply:os.system ['touch {trap}']\n",
        "a tag of a name": "method: !!python/name:os.system\n",
        "a tag of a module": "method: !!python/module:os\n",
        "a million levels in brackets": "method: " + "[" * 10**6,
        "a million levels in braces": "method: " + "{a: " * 10**6,
        "a million levels of dashes": "- " * 10**6 + "x\n",
        "anchors that explode": "a0: &a0 [x, x]\n"
        + "".join(f"a{n}: &a{n} [{f'*a{n - 1},' * 9}]\n" for n in range(1, 30)),
        "another folder's weights": "method: {class_path: Ensemble, init_args: {sources: [../../../etc]}}\neps: 0.1\n",
        "a moment in another folder": "method: Standard\nkeep_at: ['epoch ../../../x']\n",
        "a net in another folder": "method: Standard\nmodel: ../../etc/passwd\n",
        "a number of a million digits": "method: Standard\nseed: " + "9" * 10**6 + "\n",
    }


@pytest.mark.parametrize("wrong", settings(Path("trap")))
def test_settings_of_a_stranger(wrong: str, tmp_path: Path) -> None:
    trap, out = tmp_path / "sprung", tmp_path / "inside" / "run"
    (tmp_path / "mine.yaml").write_text(settings(trap)[wrong])
    kept, before = files(tmp_path), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ended = toughen("train", tmp_path / "mine.yaml", *small()[1:3], "--device", "cpu", "--out", out)
    assert ended.status == 2 and "Traceback" not in ended.err and len(ended.err) < 1000, ended.err[:2000]
    assert files(tmp_path) == kept and not trap.exists() and not out.exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 * 1024  # kilobytes


def test_random_texts_are_read_or_refused() -> None:
    """What reads YAML gives a value or a ValueError, whatever the text; the seed is kept."""
    draw = random.Random(2026)
    parts = ["a", ":", " ", "\n", "- ", "[", "]", "{", "}", "&x ", "*x", "!!", "!!int ", "'", '"', "|", ">", "#", "\t",
             "0x", "1e9", ".inf", "~", "?", "%", "@", "\\", "\u2028", "\x00", "\ud7ff", "<<: "]  # fmt: skip
    refusals = 0
    for _ in range(ENTRIES):
        text = "".join(draw.choices(parts, k=draw.randrange(1, 30)))
        try:
            strict_yaml.read(text, "it")
        except ValueError as error:
            refusals += 1
            assert str(error).startswith("it ")
    assert 100 < refusals < ENTRIES


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG whose head says this."""

    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + part(b"IHDR", head)
        + part(b"IDAT", data or zlib.compress(b"\0" * 100))
        + part(b"IEND", b"")
    )


def saved(kind: str, mode: str, size: tuple[int, int] = (8, 8), **more: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind, **more)
    return file.getvalue()


def animated() -> bytes:
    file, frames = io.BytesIO(), [Image.new("RGB", (8, 8), (n, 0, 0)) for n in range(9)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved("JPEG", "RGB", (8, 8), exif=exif)


GOOD = saved("PNG", "RGB")
REFUSED = {
    "zero bytes": b"",
    "30000 x 30000": png(30_000, 30_000),
    "30000 x 30000, and data": png(30_000, 30_000, zlib.compress(b"\0" * 10**7)),
    "more pixels than fit into memory": png(2**31 - 1, 2**31 - 1),
    "no pixels": png(0, 0),
    "cut in its data": saved("PNG", "RGB", (64, 64))[:-30],
    "cut in its head": GOOD[:20],
    "16 bits": saved("PNG", "I;16"),
    "1 x 1 among others": saved("PNG", "RGB", (1, 1)),
    "a page of HTML": b"<html><script>alert(1)</script></html>",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
}
READ = {
    "CMYK": saved("JPEG", "CMYK"),
    "a palette": saved("PNG", "P"),
    "a palette, transparent": saved("PNG", "P", transparency=0),
    "animated": animated(),
    "turned by its camera": turned(),
    "grey": saved("PNG", "L"),
    "black and white": saved("PNG", "1"),
}


def folder_of(root: Path, content: bytes, name: str) -> Path:
    """A set of two classes whose third training image is this one."""
    for split in ("train", "test"):
        for label in ("a", "b"):
            (root / split / label).mkdir(parents=True)
            for number in range(2):
                (root / split / label / f"{number}.png").write_bytes(GOOD)
    (root / "train/b" / name).write_bytes(content)
    return root


@pytest.mark.parametrize("wrong", REFUSED)
@pytest.mark.parametrize("name", ["5.png", "5 <img src=x onerror=alert(1)>\n'\".png"])
def test_images_that_are_refused(name: str, wrong: str, tmp_path: Path) -> None:
    root = folder_of(tmp_path / "data", REFUSED[wrong], name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"(?s)5.*\.png") as caught:
        load(str(root), image_size=None)
    assert len(str(caught.value)) < 600
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


@pytest.mark.parametrize("kind", READ)
def test_images_that_are_read(kind: str, tmp_path: Path) -> None:
    data = load(str(folder_of(tmp_path / "data", READ[kind], "5.png")))
    assert data.shape == (3, 8, 8) and len(data.train) == 5


def test_one_byte_changed_anywhere_in_an_image(tmp_path: Path) -> None:
    """It is read or refused by name; nothing else is raised."""
    draw, root = random.Random(3), folder_of(tmp_path / "data", GOOD, "5.png")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        file = io.BytesIO()
        noise.save(file, kind)
        for _ in range(40):
            changed = bytearray(file.getvalue())
            changed[draw.randrange(len(changed))] = draw.randrange(256)
            (root / "train/b/5.png").write_bytes(changed)
            try:
                load(str(root))
            except ValueError as error:
                assert "5.png" in str(error), error


def shard(path: Path, images: list[bytes], labels: list[object]) -> bytes:
    pq.write_table(pa.table({"image": images, "label": labels}), path)
    return path.read_bytes()


def test_shards_cut_and_changed_anywhere(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path = tmp_path / "data/train-0.parquet"
    content, draw = shard(path, [GOOD] * 4, [0, 1, 0, 1]), random.Random(4)
    assert len(load(str(tmp_path / "data"), image_size=None).classes) == 2
    for number in range(200):
        changed = bytearray(content)
        if number % 2:
            changed = changed[: draw.randrange(len(content))]
        else:
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        try:
            load(str(tmp_path / "data"), image_size=None)
        except ValueError as error:
            assert "train-0.parquet" in str(error) or str(error).startswith("data "), error  # the file, or the set


@pytest.mark.parametrize("name", ["<script>alert(1)", "a'b\"c", "a\nb", "..a", "-rf", "%2e%2e", "\u202egnp", " "])
def test_class_names_of_a_stranger(name: str, tmp_path: Path) -> None:
    """They are names of folders here, and nothing else anywhere."""
    root = tmp_path / "data"
    noise = torch.Generator().manual_seed(0)
    for split in ("train", "test"):
        for label in (name, "b"):
            (root / split / label).mkdir(parents=True)
            for number in range(4):
                pixels = torch.randint(0, 256, (28, 28), dtype=torch.uint8, generator=noise)
                Image.fromarray(pixels.numpy()).save(root / split / label / f"{number}.png")
    before = sorted(os.listdir(tmp_path))
    words = small("--device", "cpu")
    words[2] = root
    ended = toughen(*words, "--validation", 0, "--out", tmp_path / "run")
    if ended.status:
        refused(ended)
        return
    assert toughen("evaluate", tmp_path / "run", "--eps", 0.1, "--attacks", "fgsm", "--verdict", "false").status == 0
    assert toughen("report", tmp_path / "run").status == 0
    assert "<script>alert(1)" not in (tmp_path / "run/report.html").read_text()
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "run"])

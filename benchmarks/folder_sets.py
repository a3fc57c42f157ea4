"""Five sets of pictures in class folders, made from Fashion-MNIST and CIFAR-10, for `folders.py`.

python benchmarks/folder_sets.py --fashion DIR --cifar10 DIR --out DIR

    fashion      6,000 grey PNG of 28 x 28 in ten classes; 2,000 to test
    cifar        2,000 colour PNG of 32 x 32 in ten classes; 1,000 to test
    three        600 JPEG of many sizes, three classes; 900 to test
    unbalanced   870 PNG, four classes of 600, 150, 90 and 30; 1,000 to test, 250 of each
    two          600 PNG, two classes; 1,000 to test
"""

from __future__ import annotations

import argparse
import gzip
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
from PIL import Image

FASHION = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIZES = (36, 120)  # of the mixed set's shorter sides
LONGEST = 1.5  # its longest side, in shorter ones
Images = dict[str, list[Image.Image]]  # by class
COUNTS: dict[str, dict[str, tuple[int, int]]] = {  # set -> class -> images to train on and to test
    "fashion": {name: (600, 200) for name in FASHION},
    "cifar": {name: (200, 100) for name in CIFAR10},
    "three": {name: (200, 300) for name in ("automobile", "horse", "ship")},
    "unbalanced": {"airplane": (600, 250), "frog": (150, 250), "truck": (90, 250), "deer": (30, 250)},
    "two": {name: (300, 500) for name in ("cat", "automobile")},
}


def fashion(folder: Path, part: str) -> Images:
    """Fashion-MNIST out of its four files; part is "train" or "t10k"."""
    pixels, labels = (
        np.frombuffer(gzip.decompress((folder / f"{part}-{kind}.gz").read_bytes()), np.uint8, offset=offset)
        for kind, offset in (("images-idx3-ubyte", 16), ("labels-idx1-ubyte", 8))
    )
    found: Images = {name: [] for name in FASHION}
    for image, label in zip(pixels.reshape(-1, 28, 28), labels, strict=True):
        found[FASHION[label]].append(Image.fromarray(image))
    return found


def cifar10(folder: Path, part: str) -> Images:
    """CIFAR-10 out of its parquet shards; part is "train" or "test"."""
    found: Images = {name: [] for name in CIFAR10}
    for shard in sorted(folder.glob(f"{part}-*.parquet")):
        for row in parquet.read_table(shard).to_pylist():
            found[CIFAR10[row["label"]]].append(Image.open(io.BytesIO(row["img"]["bytes"])).convert("RGB"))
    return found


def photographs(images: list[Image.Image], seed: int) -> Iterator[Image.Image]:
    """The images enlarged, each to a different size and aspect ratio."""
    generator = np.random.default_rng(seed)
    for image in images:
        shorter, ratio = int(generator.integers(*SIZES)), generator.uniform(1, LONGEST)
        sides = (shorter, round(shorter * ratio))
        yield image.resize(sides if generator.random() < 0.5 else sides[::-1], Image.Resampling.BICUBIC)


def write(name: str, sources: dict[str, Images], out: Path) -> None:
    """Write a set's folders ``train`` and ``test``; sources are the images of either by class."""
    for number, (label, counts) in enumerate(COUNTS[name].items()):
        for (part, images), count in zip(sources.items(), counts, strict=True):
            folder = out / name / part / label
            folder.mkdir(parents=True, exist_ok=True)
            some = images[label][:count]
            mixed = name == "three"
            for place, image in enumerate(photographs(some, 2 * number + (part == "test")) if mixed else some):
                image.save(folder / f"{place:05}.{'jpg' if mixed else 'png'}", quality=92)


def make(fashion_at: Path, cifar10_at: Path, out: Path) -> None:
    """Write all five sets below ``out``."""
    write("fashion", {"train": fashion(fashion_at, "train"), "test": fashion(fashion_at, "t10k")}, out)
    pictures = {part: cifar10(cifar10_at, part) for part in ("train", "test")}
    for name in COUNTS:
        if name != "fashion":
            write(name, pictures, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion", type=Path, required=True, help="a folder with Fashion-MNIST's four .gz files")
    parser.add_argument("--cifar10", type=Path, required=True, help="a folder with CIFAR-10's parquet shards")
    parser.add_argument("--out", type=Path, default=Path("runs/sets"), help="where the sets go")
    known = parser.parse_args()
    make(known.fashion, known.cifar10, known.out)


if __name__ == "__main__":
    main()

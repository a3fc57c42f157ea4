"""Reads gallery.parquet for the report: clean images, adversarial images and their differences."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from toughen.report import words
from toughen.report.read import Run
from toughen.report.values import real, text

GALLERY = "gallery.parquet"
LARGEST, ALL = 2**20, 8 * 2**20  # limits in bytes for one picture and for all; a report leaves out what exceeds them
COLUMNS = (  # only these are read, so that damage in other columns cannot stop a report
    "index", "label_name", "prediction_name", "attacked_prediction_name", "outcome", "attack", "distance", "gain",
    "image", "attacked", "difference",
)  # fmt: skip
UNREADABLE = (OSError, ValueError, TypeError, LookupError, ArithmeticError, pa.ArrowException)  # of a parquet file
PNG = b"\x89PNG\r\n\x1a\n"
TITLES = {
    "broken": "Not robust: the attack changed the prediction",
    "stands": "Robust: the attack did not change the prediction",
    "wrong": "Misclassified even without an attack",
}


@dataclass(frozen=True)
class Picture:
    """One picture: its data URL, its description for screen readers, and its tooltip."""

    source: str
    alt: str
    title: str


@dataclass(frozen=True)
class Example:
    """One test image: its pictures, its true class, and the predictions before and after the attack."""

    pictures: tuple[Picture, ...]
    label: str
    before: str
    after: str
    about: str


def read_gallery(run: Run) -> dict[str, list[Example]]:
    """The images by the outcome of the attack, each group under its title; {} if there are none."""
    path = run.folder / GALLERY
    if not path.is_file():
        return {}
    groups: dict[str, list[Example]] = {title: [] for title in TITLES.values()}
    try:
        rows, left_out = _rows(path)
        for row in rows:
            if (example := _example(row)) and row.get("outcome") in TITLES:
                groups[TITLES[str(row["outcome"])]].append(example)
    except UNREADABLE:
        run.missing.append(f"{GALLERY} cannot be read, so its images are left out.")
        return {}
    if rows and not any(groups.values()):
        run.missing.append(f"{GALLERY} is not what toughen writes there, so its images are left out.")
    if left_out:
        run.missing.append(f"Of {GALLERY}, {words.count(left_out, 'image')} cannot be shown: too large for a report.")
    return {title: examples for title, examples in groups.items() if examples}


def _rows(path: Path) -> tuple[list[dict[str, object]], int]:
    """The rows that are small enough to be shown, and the number of the others."""
    rows: list[dict[str, object]] = []
    total = left_out = 0
    with path.open("rb") as file:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=1, columns=list(COLUMNS)):
            row = batch.to_pylist()[0]
            sizes = [len(value) for value in row.values() if isinstance(value, bytes)]
            if max(sizes, default=0) > LARGEST or total + sum(sizes) > ALL:
                left_out += 1
                continue
            total += sum(sizes)
            rows.append(row)
    return rows, left_out


def _example(row: dict[str, object]) -> Example | None:
    """One row; None if its image is not a PNG."""
    label, before, after, attack = (
        text(row.get(name)) for name in ("label_name", "prediction_name", "attacked_prediction_name", "attack")
    )
    gain, distance, number = real(row.get("gain")), real(row.get("distance")), text(row.get("index"))
    shown = [("image", "clean", f"test image {number} of class {label}, predicted as {before}")]
    if attack:
        shown.append(("attacked", "attacked", f"the same image after {attack}, predicted as {after}"))
        shown.append(
            ("difference", f"difference × {gain or 0:.1f}", f"the change by {attack}, amplified {gain or 0:.1f} times")
        )
    pictures = [
        Picture(source, alt, title) for name, title, alt in shown if (source := _source(row.get(name))) is not None
    ]
    if not pictures:
        return None
    return Example(tuple(pictures), label, before, after, f"{attack}, distance {distance or 0:.3g}" if attack else "")


def _source(picture: object) -> str | None:
    if not isinstance(picture, bytes) or not picture.startswith(PNG):
        return None
    return "data:image/png;base64," + base64.b64encode(picture).decode("ascii")

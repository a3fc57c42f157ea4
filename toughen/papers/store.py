"""Stores results, one file for each figure: SCALE/KEY/cells/QUANTITY.json; the run itself is in SCALE/KEY/run."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from toughen.papers.datasets import ALL, DRAWN
from toughen.papers.measure import OF_TRAINING
from toughen.papers.run_spec import KEPT, RunSpec, slug
from toughen.papers.settings_match import serves
from toughen.runs.files import read_fields, read_json, write_json
from toughen.utils.type_hints import first_mismatch, matches

ABOUT, CELLS, RUN, TRAINED, TURNS = "about.json", "cells", "run", "trained.json", "turns.json"
FIELDS = {  # the fields of a cell, with their types
    "quantity": str, "eps": str, "source": str | None, "settings": list[Any], "value": float | dict[str, Any],
    "images": int | None, "seconds": float, "provenance": dict[str, Any], "date": str, "seed": int, "recipe": str,
    "scale": str, "data": str,
}  # fmt: skip
ABOUT_FIELDS = {"words": list[str], "data": str, "scale": str, "settings": dict[str, Any]}


@dataclass(frozen=True)
class Quantity:
    """A quantity that is measured for a trained model.

    Attributes:
        of: as in ``toughen.papers.published.exhibits.Column``, or a curve.
        eps: radius of the threat, as text.
        images: the number of test images (``datasets.some``); None means all.
        source: for a black-box attack, the model that the images are made on.
        settings: further settings of the measurement.
    """

    of: str
    eps: str = ""
    images: int | None = None
    source: RunSpec | None = None
    settings: tuple[Any, ...] = ()

    @property
    def file(self) -> str:
        """The name of its file."""
        decides = [self.of, self.eps, self.images, self.source.key if self.source else None, *self.settings]
        digest = hashlib.blake2b(json.dumps(decides).encode(), digest_size=4).hexdigest()
        return f"{slug(self.of)}-{digest}.json"


class Store:
    """A folder of results.

    Args:
        root: the folder; it need not exist.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.damaged: list[Path] = []  # damaged about.json files, so the results in their folders are not used
        self.checked: set[Path] = set()  # folders whose weights were compared with weights.json

    def folder(self, model: RunSpec) -> Path:
        """The folder of a model's results: the one of its key, or one of a model with equal settings.

        Settings that are newer than the results may be at their defaults, and the run may have kept more weights.
        """
        exact = self.root / model.scale.name / model.key
        if exact.exists():
            return exact
        for path, about in self._known.items():
            same = path.parent == exact.parent and model.words in about["words"]
            if same and serves(about["settings"], model.whole):
                return path
        return exact

    def knows(self, model: RunSpec) -> bool:
        """Whether there may be results of a model; the settings are not compared, since that takes long."""
        return (model.words, model.data, model.scale.name) in self._words

    @cached_property
    def _known(self) -> dict[Path, dict[str, Any]]:
        abouts = {path.parent: about_of(path) for path in sorted(self.root.glob(f"*/*/{ABOUT}"))}
        self.damaged += [folder / ABOUT for folder, about in abouts.items() if not about]
        return {folder: about for folder, about in abouts.items() if about}

    @cached_property
    def _words(self) -> set[tuple[str, str, str]]:
        return {(words, each["data"], each["scale"]) for each in self._known.values() for words in each["words"]}

    def read(self, model: RunSpec, quantity: Quantity) -> dict[str, Any] | None:
        """A figure with all its fields; None if it was not measured.

        Raises:
            ValueError: its file is damaged.
        """
        path = self.folder(model) / CELLS / quantity.file
        if path.is_file():
            cell = cell_of(path)
            if (cell["quantity"], cell["seed"], cell["data"]) != (quantity.of, model.settings["seed"], model.data):
                raise ValueError(
                    f"{path} has another quantity, seed or data set: remove it, and the figure is measured again"
                )
            return cell
        # the file's name includes the source's key, which may be older than some settings
        for cell in self._matching(model, quantity) if quantity.source else ():
            if cell.get("drawn", ALL) == ALL if quantity.images is None else cell["images"] == quantity.images:
                return cell
        return None

    def best(self, model: RunSpec, quantity: Quantity) -> dict[str, Any] | None:
        """The figure for any number of images; if there are several, the latest one with the most images.

        Raises:
            ValueError: a file is damaged.
        """
        cells = self._matching(model, quantity)
        return max(cells, key=lambda cell: (cell["images"] or 0, cell["date"]), default=None)

    def _matching(self, model: RunSpec, quantity: Quantity) -> Iterator[dict[str, Any]]:
        """All stored versions of the figure, for any number of images."""
        source = quantity.source
        wanted = {
            "quantity": quantity.of, "eps": quantity.eps, "settings": list(quantity.settings),
            "seed": model.settings["seed"], "data": model.data, "source": source.words if source else None,
        }  # fmt: skip
        for path in sorted((self.folder(model) / CELLS).glob(f"{slug(quantity.of)}-*.json")):
            cell = cell_of(path)
            before = cell.get("source_settings")
            if {name: cell[name] for name in wanted} == wanted and (
                source is None or (isinstance(before, dict) and serves(before, source.whole))
            ):
                yield cell

    def write(
        self,
        model: RunSpec,
        quantity: Quantity,
        value: Any,
        *,
        images: int | None,
        drawn: str = ALL,
        seconds: float,
        provenance: Mapping[str, Any],
    ) -> None:
        """Store a figure.

        Args:
            model, quantity: the model and the measured quantity.
            value: a number (accuracies 0..1), or a curve.
            images: the number of images.
            drawn: how the images were chosen from the test set.
            seconds: the time of the measurement.
            provenance: processor, versions and commit.
        """
        folder = self.folder(model)
        (folder / CELLS).mkdir(parents=True, exist_ok=True)
        about = self.note(model)
        cell = {
            "quantity": quantity.of,
            "eps": quantity.eps,
            "source": quantity.source.words if quantity.source else None,
            "source_settings": quantity.source.whole if quantity.source else None,
            "settings": list(quantity.settings),
            "value": value,
            "images": images,
            "drawn": drawn,
            "seconds": round(seconds, 3),
            "recipe": model.words,
            **{name: about[name] for name in ("scale", "data", "seed")},
            "date": datetime.now(UTC).date().isoformat(),
            "provenance": dict(provenance),
        }
        write_json(folder / CELLS / quantity.file, cell)

    def note(self, model: RunSpec, begun: Sequence[int | str] | None = None) -> dict[str, Any]:
        """Write the description of a model's folder, about.json, and return it.

        Different words can have the same settings, for example if a scale makes their epochs equal; all are stored.

        Args:
            model: the model.
            begun: if its training starts now, the moments whose weights are kept.
        """
        path = self.folder(model) / ABOUT
        before = about_of(path) if path.is_file() else {}
        about = model.about | {"words": sorted({model.words, *before.get("words", [])})}
        if begun is not None:
            about["settings"] = {**about["settings"], KEPT: list(begun)}
        else:  # the settings of its training, which may have kept more weights
            about["settings"] = before.get("settings", about["settings"])
        if about != before:
            write_json(path, about)
            self.__dict__.pop("_known", None)  # so that they are read again
            self.__dict__.pop("_words", None)
        return about


def about_of(path: Path) -> dict[str, Any]:
    """The content of an about.json; {} if it is damaged."""
    about = read_fields(path)
    return about if all(name in about and matches(about[name], kind) for name, kind in ABOUT_FIELDS.items()) else {}


def record_of(path: Path) -> dict[str, Any]:
    """A training's record (``measure.training_record``); {} if there is none."""
    record = read_fields(path)
    return record if isinstance(record.get("provenance"), dict) else {}


def turns_of(path: Path) -> list[str]:
    """The folders of the models that a run is trained in turns with; [] if the file is missing or damaged."""
    try:
        names = read_json(path)
    except (ValueError, FileNotFoundError):
        return []
    return names if matches(names, list[str]) else []


def cell_of(path: Path) -> dict[str, Any]:
    """A stored figure, with the record of its model's training under "training" ({} if there is none).

    Raises:
        ValueError: the file is damaged.
    """
    cell = read_fields(path)
    value: Any = cell.get("value")
    most = math.inf if cell.get("quantity") in OF_TRAINING else 1.0  # the others are fractions
    if (
        first_mismatch({name: cell[name] for name in FIELDS if name in cell}, FIELDS)
        or cell.get("drawn", ALL) not in DRAWN
        or not (isinstance(value, dict) or (0 <= value <= most and value < math.inf))
    ):
        raise ValueError(f"{path} is damaged: remove it, and the figure is measured again")
    return {**cell, "training": record_of(path.parent.parent / TRAINED)}

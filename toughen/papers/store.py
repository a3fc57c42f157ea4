"""What was measured, a file for each figure: SCALE/KEY/cells/QUANTITY.json; the run itself and its record beside."""

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
from toughen.runs.json_types import first_mismatch, matches

ABOUT, CELLS, RUN, TRAINED, TURNS = "about.json", "cells", "run", "trained.json", "turns.json"
FIELDS = {  # of a cell, with those types
    "quantity": str, "eps": str, "source": str | None, "settings": list[Any], "value": float | dict[str, Any],
    "images": int | None, "seconds": float, "provenance": dict[str, Any], "date": str, "seed": int, "recipe": str,
    "scale": str, "data": str,
}  # fmt: skip
ABOUT_FIELDS = {"words": list[str], "data": str, "scale": str, "settings": dict[str, Any]}


@dataclass(frozen=True)
class Quantity:
    """What is measured of a trained model.

    Attributes:
        of: as in ``toughen.papers.published.exhibits.Column``, or a curve.
        eps: radius of the threat, as it is written.
        images: so many test images (``datasets.some``); None means all.
        source: the model whose images are shown, for a black-box attack.
        settings: what else decides it.
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
        self.damaged: list[Path] = []  # files that say nothing of what lies beside them
        self.checked: set[Path] = set()  # folders whose weights were compared with the list's

    def folder(self, model: RunSpec) -> Path:
        """Where a model's results are kept: under its key, or where one with the same settings lies.

        A setting that toughen has got since then is no difference where it is at its default; nor are weights that a
        figure has had kept beside.
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
        """Whether there is anything of a model, without a look at its settings, which takes a while."""
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
        """A figure with all that is known of it; None where it was not measured.

        Raises:
            ValueError: its file is damaged.
        """
        path = self.folder(model) / CELLS / quantity.file
        if path.is_file():
            cell = cell_of(path)
            if (cell["quantity"], cell["seed"], cell["data"]) != (quantity.of, model.seed, model.data):
                raise ValueError(f"{path} is of something else: remove it, and the figure is measured again")
            return cell
        # on images of a source, the figure may lie under the name that the source had before toughen got a setting
        for cell in self._matching(model, quantity) if quantity.source else ():
            if cell.get("drawn", ALL) == ALL if quantity.images is None else cell["images"] == quantity.images:
                return cell
        return None

    def best(self, model: RunSpec, quantity: Quantity) -> dict[str, Any] | None:
        """The same figure on however many images; of several, the one on the most of them, and of these the latest.

        Raises:
            ValueError: a file is damaged.
        """
        cells = self._matching(model, quantity)
        return max(cells, key=lambda cell: (cell["images"] or 0, cell["date"]), default=None)

    def _matching(self, model: RunSpec, quantity: Quantity) -> Iterator[dict[str, Any]]:
        """The same figure on however many images."""
        source = quantity.source
        wanted = {
            "quantity": quantity.of, "eps": quantity.eps, "settings": list(quantity.settings), "seed": model.seed,
            "data": model.data, "source": source.words if source else None,
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
        """Keep a figure.

        Args:
            model, quantity: what it is of.
            value: a number (accuracies 0..1), or a curve.
            images: how many it was measured on.
            drawn: how they were drawn from the test set.
            seconds: what measuring it took.
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
        """Write what a folder is about, and return it.

        Several words may lead to the same settings, as where a scale evens their epochs out: all of them are noted.

        Args:
            model: what lies there.
            begun: the moments whose weights are kept, where its training begins now.
        """
        path = self.folder(model) / ABOUT
        before = about_of(path) if path.is_file() else {}
        about = model.about | {"words": sorted({model.words, *before.get("words", [])})}
        if begun is not None:
            about["settings"] = {**about["settings"], KEPT: list(begun)}
        else:  # as it was trained, with weights kept beside
            about["settings"] = before.get("settings", about["settings"])
        if about != before:
            write_json(path, about)
            self.__dict__.pop("_known", None)  # to be read anew
            self.__dict__.pop("_words", None)
        return about


def about_of(path: Path) -> dict[str, Any]:
    """What a folder says that it is about; {} where that is damaged."""
    about = read_fields(path)
    return about if all(name in about and matches(about[name], kind) for name, kind in ABOUT_FIELDS.items()) else {}


def record_of(path: Path) -> dict[str, Any]:
    """A training's record (``measure.training_record``); {} where there is none."""
    record = read_fields(path)
    return record if isinstance(record.get("provenance"), dict) else {}


def turns_of(path: Path) -> list[str]:
    """The folders of those that a run takes turns with; none where no whole file says so."""
    try:
        names = read_json(path)
    except (ValueError, FileNotFoundError):
        return []
    return names if matches(names, list[str]) else []


def cell_of(path: Path) -> dict[str, Any]:
    """A figure, and under "training" where and with what its model was trained, {} where no record lies there.

    Raises:
        ValueError: it is not what was written there.
    """
    cell = read_fields(path)
    value: Any = cell.get("value")
    most = math.inf if cell.get("quantity") in OF_TRAINING else 1.0  # others are shares
    if (
        first_mismatch({name: cell[name] for name in FIELDS if name in cell}, FIELDS)
        or cell.get("drawn", ALL) not in DRAWN
        or not (isinstance(value, dict) or (0 <= value <= most and value < math.inf))
    ):
        raise ValueError(f"{path} is damaged: remove it, and the figure is measured again")
    return {**cell, "training": record_of(path.parent.parent / TRAINED)}

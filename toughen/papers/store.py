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
from types import NoneType
from typing import Any

from toughen.papers.datasets import ALL, DRAWN
from toughen.papers.measure import OF_TRAINING
from toughen.papers.run_spec import RunSpec, slug
from toughen.papers.settings_match import KEPT, serves
from toughen.runs.files import read_fields, read_json, write_json

ABOUT, CELLS, RUN, TRAINED, TURNS = "about.json", "cells", "run", "trained.json", "turns.json"
KINDS: dict[str, type | tuple[type, ...]] = {
    "quantity": str,
    "eps": str,
    "source": (str, NoneType),
    "settings": list,
    "value": (int, float, dict),
    "images": (int, NoneType),
    "seconds": (int, float),
    "provenance": dict,
    "date": str,
    "seed": int,
    "recipe": str,
    "scale": str,
    "data": str,
}


@dataclass(frozen=True)
class Quantity:
    """What is measured of a trained model.

    Attributes:
        of: as in ``toughen.papers.published.exhibits.Column``, or a curve.
        eps: radius of the threat, as it is written.
        images: so many test images (``images.some``); None means all.
        source: the run_spec whose images are shown, for a black-box attack.
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

    def folder(self, run_spec: RunSpec) -> Path:
        """Where an run_spec's results are kept: under its key, or where one with the same settings lies.

        A setting that toughen has got since then is no difference where it is at its default; nor are weights that a
        figure has had kept beside.
        """
        exact = self.root / run_spec.scale.name / run_spec.key
        if exact.exists():
            return exact
        for path, about in self._known.items():
            kept = about["settings"]
            if path.parent == exact.parent and run_spec.words in about["words"] and serves(kept, run_spec.whole):
                return path
        return exact

    def knows(self, run_spec: RunSpec) -> bool:
        """Whether there is anything of an run_spec, without a look at its settings, which takes a while."""
        return (run_spec.words, run_spec.data, run_spec.scale.name) in self._words

    @cached_property
    def _known(self) -> dict[Path, dict[str, Any]]:
        found = {path.parent: about_of(path) for path in sorted(self.root.glob(f"*/*/{ABOUT}"))}
        self.damaged += [folder / ABOUT for folder, about in found.items() if not about]
        return {folder: about for folder, about in found.items() if about}

    @cached_property
    def _words(self) -> set[tuple[str, str, str]]:
        return {(words, each["data"], each["scale"]) for each in self._known.values() for words in each["words"]}

    def read(self, run_spec: RunSpec, quantity: Quantity) -> dict[str, Any] | None:
        """A figure with all that is known of it; None where it was not measured.

        Raises:
            ValueError: its file is damaged.
        """
        path = self.folder(run_spec) / CELLS / quantity.file
        if not path.is_file():
            return self._of_source(run_spec, quantity) if quantity.source else None
        found = self._with_training(path)
        if (found["quantity"], found["seed"], found["data"]) != (quantity.of, run_spec.seed, run_spec.data):
            raise ValueError(f"{path} is of something else: remove it, and the figure is measured again")
        return found

    def _with_training(self, path: Path) -> dict[str, Any]:
        """A figure, and under "training" where and with what its model was trained, {} where no record lies there."""
        return {**cell_of(path), "training": record_of(path.parent.parent / TRAINED)}

    def _of_source(self, run_spec: RunSpec, quantity: Quantity) -> dict[str, Any] | None:
        """The figure on images of a source that has another name by now, since toughen has got settings."""
        for cell in self._matching(run_spec, quantity):
            if cell.get("drawn", ALL) == ALL if quantity.images is None else cell["images"] == quantity.images:
                return cell
        return None

    def _matching(self, run_spec: RunSpec, quantity: Quantity) -> Iterator[dict[str, Any]]:
        """The same figure on however many images."""
        source = quantity.source
        for path in sorted((self.folder(run_spec) / CELLS).glob(f"{slug(quantity.of)}-*.json")):
            cell = self._with_training(path)
            made = (cell["quantity"], cell["eps"], cell["settings"], cell["seed"], cell["data"])
            if made != (quantity.of, quantity.eps, list(quantity.settings), run_spec.seed, run_spec.data):
                continue
            if cell["source"] != (source.words if source else None):
                continue
            kept = cell.get("source_settings")
            if source is None or (isinstance(kept, dict) and serves(kept, source.whole)):
                yield cell

    def best(self, run_spec: RunSpec, quantity: Quantity) -> dict[str, Any] | None:
        """The same figure on however many images; of several, the one on the most of them, and of these the latest.

        Raises:
            ValueError: a file is damaged.
        """
        found = self._matching(run_spec, quantity)
        return max(found, key=lambda cell: (cell["images"] or 0, cell["date"]), default=None)

    def write(
        self,
        run_spec: RunSpec,
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
            run_spec, quantity: what it is of.
            value: a number (accuracies 0..1), or a curve.
            images: how many it was measured on.
            drawn: how they were drawn from the test set.
            seconds: what measuring it took.
            provenance: processor, versions and commit.
        """
        folder = self.folder(run_spec)
        (folder / CELLS).mkdir(parents=True, exist_ok=True)
        about = self.note(run_spec)
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
            "recipe": run_spec.words,
            "scale": about["scale"],
            "data": about["data"],
            "seed": about["seed"],
            "date": datetime.now(UTC).date().isoformat(),
            "provenance": dict(provenance),
        }
        write_json(folder / CELLS / quantity.file, cell)

    def note(self, run_spec: RunSpec, begun: Sequence[int | str] | None = None) -> dict[str, Any]:
        """Write what a folder is about, and return it.

        Several words may lead to the same settings, as where a scale evens their epochs out: all of them are noted.

        Args:
            run_spec: the model.
            begun: the moments whose weights are kept, where its training begins now.
        """
        path = self.folder(run_spec) / ABOUT
        before = about_of(path) if path.is_file() else {}
        about = run_spec.about | {"words": sorted({run_spec.words, *before.get("words", [])})}
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
    found = read_fields(path)
    kinds = {"words": list, "data": str, "scale": str, "settings": dict}
    whole = all(isinstance(found.get(name), kind) for name, kind in kinds.items())
    return found if whole and all(isinstance(each, str) for each in found["words"]) else {}


def record_of(path: Path) -> dict[str, Any]:
    """A training's record (``measure.training_record``); {} where there is none."""
    found = read_fields(path)
    return found if isinstance(found.get("provenance"), dict) else {}


def turns_of(path: Path) -> list[str]:
    """The folders of those that a run takes turns with; none where no whole file says so."""
    try:
        found = read_json(path)
    except (ValueError, FileNotFoundError):
        return []
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def cell_of(path: Path) -> dict[str, Any]:
    """A figure with all that is known of it.

    Raises:
        ValueError: it is not what was written there.
    """
    try:
        found = read_json(path)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(
        name in found and isinstance(found[name], kind) and not isinstance(found[name], bool)
        for name, kind in KINDS.items()
    ):
        raise ValueError(f"{path} is damaged: remove it, and the figure is measured again")
    value, most = found["value"], math.inf if found["quantity"] in OF_TRAINING else 1.0  # others are shares
    if not (isinstance(value, dict) or 0 <= value <= most and value < math.inf) or found.get("drawn", ALL) not in DRAWN:
        raise ValueError(f"{path} is damaged: remove it, and the figure is measured again")
    return found

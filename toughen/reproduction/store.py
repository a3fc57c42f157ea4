"""What was measured, a file for each figure: results/SCALE/RUN/cells/QUANTITY.json, and the run itself beside."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from toughen.files import read_json, write_json
from toughen.reproduction.entrants import Entrant, slug
from toughen.reproduction.images import ALL
from toughen.reproduction.same import agree

ABOUT, CELLS, RUN = "about.json", "cells", "run"
FIELDS = {
    "quantity",
    "eps",
    "source",
    "settings",
    "value",
    "images",
    "seconds",
    "provenance",
    "date",
    "seed",
    "recipe",
    "scale",
    "data",
}


@dataclass(frozen=True)
class Quantity:
    """What is measured of a trained model.

    Attributes:
        of: as in ``toughen.papers.exhibits.Column``, or a curve.
        eps: radius of the threat, as it is written.
        images: so many test images (``images.some``); None means all.
        source: the entrant whose images are shown, for a black-box attack.
        settings: what else decides it.
    """

    of: str
    eps: str = ""
    images: int | None = None
    source: Entrant | None = None
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

    def folder(self, entrant: Entrant) -> Path:
        """Where an entrant's results are kept: under its key, or where one with the same settings lies.

        A setting that toughen has got since then is no difference where it is at its default.
        """
        exact = self.root / entrant.scale.name / entrant.key
        if exact.exists():
            return exact
        for path, about in self._known.items():
            kept = about["settings"]
            if path.parent == exact.parent and entrant.words in about["words"] and agree(kept, entrant.settings):
                return path
        return exact

    def knows(self, entrant: Entrant) -> bool:
        """Whether there is anything of an entrant, without a look at its settings, which takes a while."""
        return (entrant.words, entrant.data, entrant.scale.name) in self._words

    @cached_property
    def _known(self) -> dict[Path, dict[str, Any]]:
        return {path.parent: read_json(path) for path in sorted(self.root.glob(f"*/*/{ABOUT}"))}

    @cached_property
    def _words(self) -> set[tuple[str, str, str]]:
        return {(words, each["data"], each["scale"]) for each in self._known.values() for words in each["words"]}

    def read(self, entrant: Entrant, quantity: Quantity) -> dict[str, Any] | None:
        """A figure with all that is known of it; None where it was not measured.

        Raises:
            ValueError: its file is damaged.
        """
        path = self.folder(entrant) / CELLS / quantity.file
        if not path.is_file():
            return None
        found = read_json(path)
        if not isinstance(found, dict) or not found.keys() >= FIELDS:
            raise ValueError(f"{path} is damaged: remove it, and the figure is measured again")
        return found

    def best(self, entrant: Entrant, quantity: Quantity) -> dict[str, Any] | None:
        """The same figure on however many images; of several, the one on the most of them."""
        found = []
        for path in sorted((self.folder(entrant) / CELLS).glob(f"{slug(quantity.of)}-*.json")):
            cell = read_json(path)
            source = quantity.source.words if quantity.source else None
            if isinstance(cell, dict) and cell.keys() >= FIELDS and cell["quantity"] == quantity.of:
                if (cell["eps"], cell["source"], cell["settings"]) == (quantity.eps, source, list(quantity.settings)):
                    found.append(cell)
        return max(found, key=lambda cell: cell["images"] or 0, default=None)

    def write(
        self,
        entrant: Entrant,
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
            entrant, quantity: what it is of.
            value: a number (accuracies 0..1), or a curve.
            images: how many it was measured on.
            drawn: how they were drawn from the test set.
            seconds: what measuring it took.
            provenance: processor, versions and commit.
        """
        folder = self.folder(entrant)
        (folder / CELLS).mkdir(parents=True, exist_ok=True)
        about = self.note(entrant)
        cell = {
            "quantity": quantity.of,
            "eps": quantity.eps,
            "source": quantity.source.words if quantity.source else None,
            "settings": list(quantity.settings),
            "value": value,
            "images": images,
            "drawn": drawn,
            "seconds": round(seconds, 3),
            "recipe": entrant.words,
            "scale": about["scale"],
            "data": about["data"],
            "seed": about["seed"],
            "date": datetime.now(UTC).date().isoformat(),
            "provenance": dict(provenance),
        }
        write_json(folder / CELLS / quantity.file, cell)

    def note(self, entrant: Entrant) -> dict[str, Any]:
        """Write what a folder is about, and return it.

        Several words may lead to the same settings, as where a scale evens their epochs out: all of them are noted.
        """
        about, path = entrant.about, self.folder(entrant) / ABOUT
        before = read_json(path)["words"] if path.is_file() else []
        about["words"] = sorted({entrant.words, *before})
        if about["words"] != before:
            write_json(path, about)
        return about

"""What is trained for a row: a run's settings, all of them, and the name under which it is kept."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import yaml

from toughen.config.train import parse_train
from toughen.reproduction.scales import Scale, nodes

ELSEWHERE = ("device", "num_workers", "memory_limit", "checkpoint_seconds")  # of a machine: they decide no figure
# what rows were trained with before there was such a setting: not part of their names
LATER = {"validation_every": 1, "callbacks": None}
BASE = ("--watch", "warn")  # the papers train without a watch, so nothing is rescued


@dataclass(frozen=True)
class Entrant:
    """A model of a table or figure at one scale and seed.

    Attributes:
        words: what `toughen train` is told.
        data: the data set's name.
        seed: added to the recipe's.
        scale: at which it is trained.
        sources: the nets that its method learns from.
        more: settings that a figure needs beside, such as the steps whose weights are kept.
    """

    words: str
    data: str
    seed: int
    scale: Scale
    sources: tuple[Entrant, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All settings of the run, without those of the machine; data set and sources are named, not placed."""
        found = self.scale.shrink(self.stated) | dict(self.more)
        found |= {"data": self.data, "seed": found["seed"] + self.seed}
        if self.sources:
            found["method"]["init_args"]["sources"] = [source.key for source in self.sources]
        return {name: value for name, value in found.items() if name not in ELSEWHERE and value != LATER.get(name, ...)}

    @property
    def stated(self) -> dict[str, Any]:
        """All settings of the run as the words have them, at no scale; not to be changed."""
        return parsed(self.words, json.dumps(["-"] * len(self.sources)) if self.sources else "")

    @property
    def share(self) -> float:
        """How much of the recipe's epochs is trained."""
        return float(self.settings["epochs"] / self.stated["epochs"])

    def title_for(self, title: str) -> str:
        """What a display calls it as a source of the model of this title."""
        return f"{title}: source {self.settings['model']}"

    @cached_property
    def whole(self) -> dict[str, Any]:
        """The same with all settings of its sources, where ``settings`` has their names."""
        found = copy.deepcopy(self.settings)
        if self.sources:
            found["method"]["init_args"]["sources"] = [source.whole for source in self.sources]
        return found

    @cached_property
    def key(self) -> str:
        """Its name: the recipe's, and a hash of all settings."""
        content = json.dumps(self.settings, sort_keys=True).encode()
        return f"{shlex.split(self.words)[0]}-{hashlib.blake2b(content, digest_size=6).hexdigest()}"

    def recipe(self, data: str, sources: Sequence[str], device: str) -> dict[str, Any]:
        """The settings that train it here.

        Args:
            data: where the images lie.
            sources: the source nets' run directories.
            device: what to train on.
        """
        found: dict[str, Any] = copy.deepcopy(self.settings) | {"data": data, "device": device}
        for node in nodes(found) if sources else ():
            if "sources" in node:
                node["sources"] = list(sources)
        return found

    @property
    def about(self) -> dict[str, Any]:
        """What results say of it."""
        return {
            "words": [self.words],
            "data": self.data,
            "scale": self.scale.name,
            "seed": self.settings["seed"],
            "sources": [source.words for source in self.sources],
            "settings": self.whole,
        }


@cache
def parsed(words: str, sources: str) -> dict[str, Any]:
    """All settings that `toughen train` makes of these words; not to be changed.

    Args:
        words: a recipe and changes to it.
        sources: what the method's sources are; "" where it takes none.
    """
    given = ["--method.sources", sources] if sources else []
    found: dict[str, Any] = yaml.safe_load(parse_train([*shlex.split(words), *BASE, *given])[1])
    return found


def entrant(
    words: str, data: str, seed: int, scale: Scale, sources: Sequence[str] = (), more: Mapping[str, Any] | None = None
) -> Entrant:
    """A row's model, and with it the nets that its method learns from, at the same seed and scale."""
    made = tuple(Entrant(source, data, seed, scale) for source in sources)
    return Entrant(words, data, seed, scale, made, more or {})


def slug(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^a-z0-9.+]+", "-", text.lower()).strip("-")

"""A model of a table or figure: its settings, the name under which it is kept, and the weights that figures need."""

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
from toughen.papers.published import EXHIBITS
from toughen.papers.published.exhibits import Figure, Line, Plot
from toughen.papers.scales import SCALES, Scale, nodes

KEPT = "keep_at"
# of a machine: they decide no figure
ELSEWHERE = ("device", "num_workers", "memory_limit", "checkpoint_seconds", "cuda_graphs")
LATER = {  # what rows were trained with before there were such settings: not part of their names
    "validation_every": 1,
    "label_smoothing": 0.0,
    "frozen": 0,
    "layer_decay": 1.0,
}
BASE = ("--watch", "warn")  # the papers train without a watch, so nothing is rescued


@dataclass(frozen=True)
class RunSpec:
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
    sources: tuple[RunSpec, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All settings of the run, without those of the machine; data set and sources are named, not placed."""
        settings = self.scale.shrink(self.stated) | dict(self.more)
        settings |= {"data": self.data, "seed": settings["seed"] + self.seed}
        if self.sources:
            settings["method"]["init_args"]["sources"] = [source.key for source in self.sources]
        return {name: each for name, each in settings.items() if name not in ELSEWHERE and each != LATER.get(name, ...)}

    @property
    def stated(self) -> dict[str, Any]:
        """All settings of the run as the words have them, at no scale; not to be changed."""
        return parsed(self.words, json.dumps(["-"] * len(self.sources)) if self.sources else "")

    @property
    def share(self) -> float:
        """How much of the recipe's epochs is trained."""
        return float(self.settings["epochs"] / self.stated["epochs"])

    @cached_property
    def whole(self) -> dict[str, Any]:
        """The same with all settings of its sources, where ``settings`` has their names."""
        settings = copy.deepcopy(self.settings)
        if self.sources:
            settings["method"]["init_args"]["sources"] = [source.whole for source in self.sources]
        return settings

    @property
    def plain(self) -> dict[str, Any]:
        """The settings, whatever weights are kept beside."""
        return {name: value for name, value in self.settings.items() if name != KEPT}

    @cached_property
    def key(self) -> str:
        """Its name: the recipe's, and a hash of all settings."""
        content = json.dumps(self.settings, sort_keys=True).encode()
        return f"{shlex.split(self.words)[0]}-{hashlib.blake2b(content, digest_size=6).hexdigest()}"

    def title_for(self, title: str) -> str:
        """What a display calls it as a source of the model of this title."""
        return f"{title}: source {self.settings['model']}"

    def recipe(self, data: str, sources: Sequence[str], device: str) -> dict[str, Any]:
        """The settings that train it here: on these data, with its source nets' run directories, on a device."""
        settings: dict[str, Any] = copy.deepcopy(self.settings) | {"data": data, "device": device}
        for node in nodes(settings) if sources else ():
            if "sources" in node:
                node["sources"] = list(sources)
        return settings

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
    more = ["--method.sources", sources] if sources else []
    settings: dict[str, Any] = yaml.safe_load(parse_train([*shlex.split(words), *BASE, *more])[1])
    return settings


def run_spec(
    words: str, data: str, seed: int, scale: Scale, sources: Sequence[str] = (), more: Mapping[str, Any] | None = None
) -> RunSpec:
    """A row's model, and with it the nets that its method learns from, at the same seed and scale."""
    nets = tuple(RunSpec(source, data, seed, scale) for source in sources)
    return RunSpec(words, data, seed, scale, nets, more or {})


def slug(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^a-z0-9.+]+", "-", text.lower()).strip("-")


# ---- Weights of single steps and epochs, which figures need.


def figure_run_spec(plot: Plot, line: Line, scale: Scale) -> RunSpec:
    """The model of a line, with the weights kept that the plot needs."""
    epochs = run_spec(line.run, plot.data, 0, scale).settings["epochs"]
    whole = run_spec(line.run, plot.data, 0, SCALES["full"]).settings["epochs"]
    more = settings_of(plot, epochs, epochs / whole, small=scale.training_images is not None)
    return run_spec(line.run, plot.data, 0, scale, more=more)


def settings_of(plot: Plot, epochs: int, share: float, *, small: bool) -> dict[str, Any]:
    """What a run must keep so that a plot can be drawn of it.

    Args:
        plot: the plot.
        epochs: that the run trains at its scale.
        share: of the paper's epochs.
        small: whether there are only a few steps in the whole run.
    """
    if plot.curve == "watched":
        steps = [1 + 2 * place if small else max(1, round(int(step) * share)) for place, step in enumerate(plot.at)]
        return {KEPT: steps, "log_every": 2 if small else plot.every}
    if plot.curve == "old weights" or (plot.curve == "by epoch" and plot.attack):
        every = max(1, round(plot.every * share))
        return {KEPT: [f"epoch {epoch}" for epoch in sorted({*range(every - 1, epochs, every), epochs - 1})]}
    return {}


def moments(model: RunSpec) -> list[int | str]:
    """The steps, then the epochs whose weights a model keeps: all that any figure that draws the same training needs.

    So a row that is trained for a table serves the figures, too.
    """
    kept: set[int | str] = set(model.settings[KEPT])
    figures = (each for each in EXHIBITS.values() if isinstance(each, Figure))
    for plot in (plot for figure in figures for plot in figure.plots):
        for line in plot.lines:
            if (line.run, plot.data, 0) == (model.words, model.data, model.seed):
                drawn = figure_run_spec(plot, line, model.scale)
                kept |= set(drawn.settings[KEPT]) if drawn.plain == model.plain else set()
    return sorted(kept, key=lambda each: (isinstance(each, str), int(str(each).removeprefix("epoch "))))

"""The specification of a model of a table or figure: its settings, its name, and the weights that figures need."""

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
from toughen.training.recipe_yaml import recipe_yaml

KEPT = "keep_at"
# settings of the machine, which do not change the results
ELSEWHERE = ("device", "num_workers", "memory_limit", "checkpoint_seconds", "cuda_graphs")
LATER = {  # newer settings with the value that older rows used; at this value they are not part of a row's name
    "validation_every": 1,
    "label_smoothing": 0.0,
    "eps_factor": 1.0,
    "frozen": 0,
    "layer_decay": 1.0,
    "transform": None,
}
BASE = ("--watch", "warn")  # the papers have no collapse watch, so it must not change the training


@dataclass(frozen=True)
class RunSpec:
    """A model of a table or figure at one scale and seed.

    Attributes:
        words: the arguments of `toughen train`.
        data: the data set's name.
        seed: a number added to the recipe's seed.
        scale: the scale of the training.
        sources: the source nets of its method.
        more: additional settings for a figure, such as the steps whose weights are kept.
    """

    words: str
    data: str
    seed: int
    scale: Scale
    sources: tuple[RunSpec, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All settings of the run, without those of the machine; data set and sources are names, not paths."""
        settings = self.scale.shrink(self.stated) | dict(self.more)
        settings |= {"data": self.data, "seed": settings["seed"] + self.seed}
        if self.sources:
            settings["method"]["init_args"]["sources"] = [source.key for source in self.sources]
        return {name: each for name, each in settings.items() if name not in ELSEWHERE and each != LATER.get(name, ...)}

    @property
    def stated(self) -> dict[str, Any]:
        """All settings of the run from its words, before scaling; do not modify them."""
        return parsed(self.words, json.dumps(["-"] * len(self.sources)) if self.sources else "")

    @property
    def share(self) -> float:
        """The fraction of the recipe's epochs that is trained."""
        return float(self.settings["epochs"] / self.stated["epochs"])

    @cached_property
    def whole(self) -> dict[str, Any]:
        """``settings``, with all settings of the sources in place of their names."""
        settings = copy.deepcopy(self.settings)
        if self.sources:
            settings["method"]["init_args"]["sources"] = [source.whole for source in self.sources]
        return settings

    @property
    def plain(self) -> dict[str, Any]:
        """The settings without the one that keeps weights of single steps and epochs."""
        return {name: value for name, value in self.settings.items() if name != KEPT}

    @cached_property
    def key(self) -> str:
        """Its name: the recipe's name, and a hash of all settings."""
        content = json.dumps(self.settings, sort_keys=True).encode()
        return f"{shlex.split(self.words)[0]}-{hashlib.blake2b(content, digest_size=6).hexdigest()}"

    def title_for(self, title: str) -> str:
        """Its title in a display, as a source of the model with this title."""
        return f"{title}: source {self.settings['model']}"

    def recipe(self, data: str, sources: Sequence[str], device: str) -> dict[str, Any]:
        """The settings for training it on this machine: with the path of the data, of the source runs, and a device."""
        settings: dict[str, Any] = copy.deepcopy(self.settings) | {"data": data, "device": device}
        for node in nodes(settings) if sources else ():
            if "sources" in node:
                node["sources"] = list(sources)
        return settings

    @property
    def about(self) -> dict[str, Any]:
        """The description that is stored with its results."""
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
    """All settings of `toughen train` with these words; do not modify them.

    Args:
        words: a recipe and changes to it.
        sources: the value of the method's sources; "" if it has none.
    """
    more = ["--method.sources", sources] if sources else []
    settings: dict[str, Any] = yaml.safe_load(recipe_yaml(parse_train([*shlex.split(words), *BASE, *more])[0]))
    return settings


def run_spec(
    words: str, data: str, seed: int, scale: Scale, sources: Sequence[str] = (), more: Mapping[str, Any] | None = None
) -> RunSpec:
    """A row's model, with the source nets of its method at the same seed and scale."""
    nets = tuple(RunSpec(source, data, seed, scale) for source in sources)
    return RunSpec(words, data, seed, scale, nets, more or {})


def slug(text: str) -> str:
    """A text in a form that is safe in a file's name."""
    return re.sub(r"[^a-z0-9.+]+", "-", text.lower()).strip("-")


# ---- Weights of single steps and epochs, which figures need.


def figure_run_spec(plot: Plot, line: Line, scale: Scale) -> RunSpec:
    """The model of a line, which keeps the weights that the plot needs."""
    epochs = run_spec(line.run, plot.data, 0, scale).settings["epochs"]
    whole = run_spec(line.run, plot.data, 0, SCALES["full"]).settings["epochs"]
    more = settings_of(plot, epochs, epochs / whole, small=scale.training_images is not None)
    return run_spec(line.run, plot.data, 0, scale, more=more)


def settings_of(plot: Plot, epochs: int, share: float, *, small: bool) -> dict[str, Any]:
    """The settings that make a run keep the weights for a plot.

    Args:
        plot: the plot.
        epochs: the run's number of epochs at its scale.
        share: the fraction of the paper's epochs.
        small: whether the whole run has only a few steps.
    """
    if plot.curve == "watched":
        steps = [1 + 2 * place if small else max(1, round(int(step) * share)) for place, step in enumerate(plot.at)]
        return {KEPT: steps, "log_every": 2 if small else plot.every}
    if plot.curve == "old weights" or (plot.curve == "by epoch" and plot.attack):
        every = max(1, round(plot.every * share))
        return {KEPT: [f"epoch {epoch}" for epoch in sorted({*range(every - 1, epochs, every), epochs - 1})]}
    return {}


def moments(model: RunSpec) -> list[int | str]:
    """The steps, then the epochs, whose weights a model keeps: all that any figure of the same training needs.

    So a row that is trained for a table can also be used for the figures.
    """
    kept: set[int | str] = set(model.settings[KEPT])
    figures = (each for each in EXHIBITS.values() if isinstance(each, Figure))
    for plot in (plot for figure in figures for plot in figure.plots):
        for line in plot.lines:
            if (line.run, plot.data, 0) == (model.words, model.data, model.seed):
                drawn = figure_run_spec(plot, line, model.scale)
                kept |= set(drawn.settings[KEPT]) if drawn.plain == model.plain else set()
    return sorted(kept, key=lambda each: (isinstance(each, str), int(str(each).removeprefix("epoch "))))

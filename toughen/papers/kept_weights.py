"""The steps and epochs whose weights figures need, so that a row that is trained for a table serves them, too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from toughen.papers.curves import settings_of
from toughen.papers.published import EXHIBITS
from toughen.papers.published.exhibits import Figure, Line, Plot
from toughen.papers.run_spec import RunSpec, run_spec
from toughen.papers.scales import SCALES, Scale
from toughen.papers.settings_match import KEPT


def figure_run_spec(plot: Plot, line: Line, scale: Scale) -> RunSpec:
    """The model of a line, with the weights kept that the plot needs."""
    plain = run_spec(line.run, plot.data, 0, scale)
    paper = run_spec(line.run, plot.data, 0, SCALES["full"]).settings["epochs"]
    epochs = plain.settings["epochs"]
    more = settings_of(plot, epochs, epochs / paper, small=scale.training_images is not None)
    return run_spec(line.run, plot.data, 0, scale, more=more)


def moments(model: RunSpec) -> list[int | str]:
    """What a model keeps, as ``keep_at`` has it: all that any figure that draws the same training needs."""
    found: set[int | str] = set(model.settings[KEPT])
    for each in _drawn(model):
        if plain(each) == plain(model):
            found |= set(each.settings[KEPT])
    return in_order(found)


def _drawn(model: RunSpec) -> Iterator[RunSpec]:
    """The models of figures that the same words train."""
    for exhibit in EXHIBITS.values():
        for plot in exhibit.plots if isinstance(exhibit, Figure) else ():
            for line in plot.lines:
                if (line.run, plot.data, 0) == (model.words, model.data, model.seed):
                    yield figure_run_spec(plot, line, model.scale)


def plain(model: RunSpec) -> dict[str, Any]:
    """A model's settings, whatever weights are kept of it beside."""
    return {name: value for name, value in model.settings.items() if name != KEPT}


def in_order(found: Sequence[int | str] | set[int | str]) -> list[int | str]:
    """Steps, then epochs."""
    return sorted(found, key=lambda each: (isinstance(each, str), int(str(each).removeprefix("epoch "))))

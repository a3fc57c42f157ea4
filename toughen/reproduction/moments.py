"""The steps and epochs whose weights figures need, so that a row that is trained for a table serves them, too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from toughen.papers import EXHIBITS
from toughen.papers.exhibits import Figure, Line, Plot
from toughen.reproduction.curves import settings_of
from toughen.reproduction.entrants import Entrant, entrant
from toughen.reproduction.same import KEPT
from toughen.reproduction.scales import SCALES, Scale


def figure_entrant(plot: Plot, line: Line, scale: Scale) -> Entrant:
    """The model of a line, with the weights kept that the plot needs."""
    plain = entrant(line.run, plot.data, 0, scale)
    paper = entrant(line.run, plot.data, 0, SCALES["full"]).settings["epochs"]
    epochs = plain.settings["epochs"]
    more = settings_of(plot, epochs, epochs / paper, small=scale.training_images is not None)
    return entrant(line.run, plot.data, 0, scale, more=more)


def moments(model: Entrant) -> list[int | str]:
    """What a model keeps, as ``keep_at`` has it: all that any figure that draws the same training needs."""
    found: set[int | str] = set(model.settings[KEPT])
    for each in _drawn(model):
        if plain(each) == plain(model):
            found |= set(each.settings[KEPT])
    return in_order(found)


def _drawn(model: Entrant) -> Iterator[Entrant]:
    """The models of figures that the same words train."""
    for exhibit in EXHIBITS.values():
        for plot in exhibit.plots if isinstance(exhibit, Figure) else ():
            for line in plot.lines:
                if (line.run, plot.data, 0) == (model.words, model.data, model.seed):
                    yield figure_entrant(plot, line, model.scale)


def plain(model: Entrant) -> dict[str, Any]:
    """A model's settings, whatever weights are kept of it beside."""
    return {name: value for name, value in model.settings.items() if name != KEPT}


def in_order(found: Sequence[int | str] | set[int | str]) -> list[int | str]:
    """Steps, then epochs."""
    return sorted(found, key=lambda each: (isinstance(each, str), int(str(each).removeprefix("epoch "))))

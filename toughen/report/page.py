"""Renders the report as one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from toughen.report.compare import COLUMNS, cost_figure, differing, differing_warning, doubt, rank, row
from toughen.report.curves import eps_figure, steps_figure
from toughen.report.details import Details, details
from toughen.report.ending import read_recipe
from toughen.report.figures import Figure
from toughen.report.read import Run
from toughen.utils.version import __version__

DETAILED = 12  # details are shown for at most this many runs, so that the page opens fast and stays readable
PICKED = 8  # the curves show at most this many runs at first, one for each colour


@dataclass(frozen=True)
class PlacedFigure:
    """A figure and its element id on the page."""

    id: str
    figure: Figure


class FigureRegistry:
    """Gives each figure an element id, and collects the data that report.js draws."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}

    def place(self, figure: Figure, *, overlay: bool = False) -> PlacedFigure:
        """Add a figure; an ``overlay`` shows the curves of the runs that the reader selects."""
        name = f"figure-{len(self.data) + 1}"
        self.data[name] = {"kind": figure.kind, "data": figure.data, "overlay": overlay}
        return PlacedFigure(name, figure)


def render(runs: Sequence[Run], title: str) -> str:
    """The HTML text of the page.

    Args:
        runs: one or more runs, as ``read_run`` returns them.
        title: the page's title.
    """
    for run in runs:
        read_recipe(run)
    registry, chosen = FigureRegistry(), _chosen(runs)
    every = {run.name: details(run, f"run-{number}") for number, run in enumerate(chosen, 1)}
    several = len(runs) > 1
    library = _source("echarts/echarts.min.js")
    script = "\n".join(_source(f"templates/{name}.js") for name in ("figures", "report"))
    overlays = _overlays(list(every.values()), registry) if several else []
    cost = cost_figure(runs) if several else None
    differences = differing(runs)
    named = "attacks" in differences
    anchors = {name: each.anchor for name, each in every.items()}
    rows = [row(run, anchors.get(run.name, ""), attacks=named) for run in runs] if several else [None]
    detailed = [place for place, run in enumerate(runs) if run.name in every]
    page = {
        "title": title,
        "subtitle": "" if several else next(iter(every.values())).subtitle,
        "version": __version__,
        "made": datetime.now(UTC).strftime("%d %B %Y"),
        "columns": (*COLUMNS, "attacks") if named else COLUMNS,
        "rows": rows,
        "notes": _notes(runs, differences, len(every)) if several else [],
        "cost": registry.place(cost) if cost else None,
        "overlays": overlays,
        "picked": detailed[:PICKED],
        "first": max(every.values(), key=lambda each: rank(each.run)).anchor,
        "details": [_placed(each, registry) for each in every.values()],
        "figures": registry.data,
        "style": Markup(_source("templates/report.css")),
        "library": Markup(library),
        "script": Markup(script),
        "policy": _policy(library, script),
    }
    return _environment().get_template("report.html").render(page)


def _environment() -> Environment:
    """The templates; every text that is not ``Markup`` is escaped."""
    environment = Environment(
        loader=PackageLoader("toughen.report", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["code"] = _code
    # browsers reject NaN and Infinity in JSON: an error here is better than a page that does not work
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    return environment


def _code(text: str) -> Markup:
    """A sentence as HTML: the text between backticks becomes code, and everything is escaped."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts))


def _source(name: str) -> str:
    return (resources.files("toughen.report") / name).read_text(encoding="utf-8")


def _policy(*scripts: str) -> str:
    """The Content-Security-Policy: only these scripts may run, and nothing is loaded from the network."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    rest = "base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; {rest}"


def _chosen(runs: Sequence[Run]) -> list[Run]:
    """The runs whose details are shown: all, or the ``DETAILED`` most robust ones, in the given order."""
    names = {run.name for run in sorted(runs, key=rank, reverse=True)[:DETAILED]}
    return [run for run in runs if run.name in names]


def _notes(runs: Sequence[Run], differences: Sequence[str], shown: int) -> list[str]:
    """The notes above the table of runs."""
    notes = []
    if differences:
        notes.append(differing_warning(differences))
    unevaluated = sum(run.own is None for run in runs)
    if unevaluated:
        notes.append(f"{unevaluated} of {len(runs)} runs have not been evaluated.")
    damaged = [run.name for run in runs if run.history.partial]
    if damaged:
        notes.append(f"Left out of the cost figure because metrics.jsonl is damaged: {', '.join(damaged)}.")
    if shown < len(runs):
        notes.append(
            f"Details are shown for the {shown} most robust runs; masked and outdated runs rank last. Name fewer runs "
            "to see the details of others."
        )
    return notes


def _overlays(every: Sequence[Details], registry: FigureRegistry) -> list[PlacedFigure]:
    """Figures with the curves of several runs."""
    overlays = []
    for name, make in (("eps", eps_figure), ("steps", steps_figure)):
        curves = {each.run.name: each.diagnostics[name] for each in every if name in each.diagnostics}
        figure = make(curves, doubts={each.run.name: doubt(each.run) for each in every})
        if figure is not None and len(figure.data["lines"]) > 1:
            overlays.append(registry.place(figure, overlay=True))
    return overlays


def _placed(each: Details, registry: FigureRegistry) -> Details:
    """The details, with each figure replaced by a ``PlacedFigure``."""
    for part in ("robustness", "by_class", "training"):
        setattr(each, part, [registry.place(figure) for figure in getattr(each, part)])
    return each

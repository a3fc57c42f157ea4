"""The report as one HTML file that needs nothing else."""

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

from toughen.report.compare import COLUMNS, cost_figure, differing, doubt, rank, row, unlike
from toughen.report.curves import eps_figure, steps_figure
from toughen.report.details import Details, details
from toughen.report.ending import read_recipe
from toughen.report.figures import Figure
from toughen.report.read import Run
from toughen.utils.version import __version__

DETAILED = 12  # runs whose details are shown; a page of more would be slow to open and longer than anyone reads
PICKED = 8  # runs that are drawn together at first: more lines than colours can be told apart


@dataclass(frozen=True)
class Placed:
    """A figure and its name on the page."""

    id: str
    figure: Figure


class Book:
    """Gives figures their names, and keeps what is to be drawn."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}

    def place(self, figure: Figure, *, overlay: bool = False) -> Placed:
        """A figure on the page; one that is an ``overlay`` shows the runs that the reader picks."""
        name = f"figure-{len(self.data) + 1}"
        self.data[name] = {"kind": figure.kind, "data": figure.data, "overlay": overlay}
        return Placed(name, figure)


def render(runs: Sequence[Run], title: str) -> str:
    """The page.

    Args:
        runs: one or more, as ``read_run`` reads them.
        title: what the page is called.
    """
    for run in runs:
        read_recipe(run)
    book, chosen = Book(), _chosen(runs)
    every = {run.name: details(run, f"run-{number}") for number, run in enumerate(chosen, 1)}
    several = len(runs) > 1
    library = _source("echarts/echarts.min.js")
    script = "\n".join(_source(f"templates/{name}.js") for name in ("figures", "report"))
    overlays = _overlays(list(every.values()), book) if several else []
    cost = cost_figure(runs) if several else None
    apart = differing(runs)
    named = "attacks" in apart
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
        "notes": _notes(runs, apart, len(every)) if several else [],
        "cost": book.place(cost) if cost else None,
        "overlays": overlays,
        "picked": detailed[:PICKED],
        "first": max(every.values(), key=lambda each: rank(each.run)).anchor,
        "details": [_placed(each, book) for each in every.values()],
        "figures": book.data,
        "style": Markup(_source("templates/report.css")),
        "library": Markup(library),
        "script": Markup(script),
        "policy": _policy(library, script),
    }
    return _environment().get_template("report.html").render(page)


def _environment() -> Environment:
    """Templates in which every text is escaped that is not marked as ours."""
    environment = Environment(
        loader=PackageLoader("toughen.report", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["code"] = _code
    # a browser reads no NaN or Infinity: better no page
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    return environment


def _code(text: str) -> Markup:
    """A sentence with what stands between backticks as code; all of it escaped."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts))


def _source(name: str) -> str:
    return (resources.files("toughen.report") / name).read_text(encoding="utf-8")


def _policy(*scripts: str) -> str:
    """What the browser may do: run these scripts, show what lies in the page, and ask the network for nothing."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    rest = "base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; {rest}"


def _chosen(runs: Sequence[Run]) -> list[Run]:
    """The runs whose details are shown: all, or the most robust ones, in their order."""
    names = {run.name for run in sorted(runs, key=rank, reverse=True)[:DETAILED]}
    return [run for run in runs if run.name in names]


def _notes(runs: Sequence[Run], apart: Sequence[str], shown: int) -> list[str]:
    """What is to be said of all runs."""
    notes = []
    if apart:
        notes.append(unlike(apart))
    lacking = sum(run.own is None for run in runs)
    if lacking:
        notes.append(f"{lacking} of {len(runs)} have not been evaluated.")
    damaged = [run.name for run in runs if run.history.partial]
    if damaged:
        notes.append(f"Not in the figure of cost, as metrics.jsonl is damaged: {', '.join(damaged)}.")
    if shown < len(runs):
        notes.append(
            f"The figures of single runs are those of the {shown} most robust, masked and outdated ones last; name "
            "fewer runs to see others."
        )
    return notes


def _overlays(every: Sequence[Details], book: Book) -> list[Placed]:
    """Curves of several runs in one figure."""
    overlays = []
    for name, make in (("eps", eps_figure), ("steps", steps_figure)):
        curves = {each.run.name: each.diagnostics[name] for each in every if name in each.diagnostics}
        figure = make(curves, doubts={each.run.name: doubt(each.run) for each in every})
        if figure is not None and len(figure.data["lines"]) > 1:
            overlays.append(book.place(figure, overlay=True))
    return overlays


def _placed(each: Details, book: Book) -> Details:
    """The same with its figures on the page."""
    for part in ("robustness", "by_class", "training"):
        setattr(each, part, [book.place(figure) for figure in getattr(each, part)])
    return each

"""Figures of how accuracy changes with an attack's radius and with its steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toughen.report.evaluations import Evaluation
from toughen.report.figures import Axis, Figure, Line, Lines, Mark, figure_of
from toughen.report.values import mapping, pairs, real, text, whole
from toughen.report.words import threat
from toughen.utils.fraction import radius
from toughen.utils.statistics import percent

Diagnostics = Mapping[str, Any]


def measured(diagnostics: Diagnostics, own: Evaluation | None = None) -> str:
    """On what, and under which attack, a diagnostic was made; data and threat where they are not those of ``own``."""
    about, attack = mapping(diagnostics.get("about")), mapping(diagnostics.get("attack"))
    within, images = mapping(about.get("threat")), whole(about.get("images"))
    norm, eps, data = text(within.get("norm")), real(within.get("eps")), text(about.get("data"))
    said = [f"{images:,} test images"] if images else []
    if text(attack.get("attack")):
        steps = whole(attack.get("steps"))
        said.append(text(attack["attack"]) + (f"-{steps}" if steps else ""))
    if data and (own is None or own.data != data):
        said.append(data)
    if eps is not None and (own is None or (own.norm, own.eps) != (norm, eps)):
        said.append(threat(norm, eps))
    return ", ".join(said)


def own_eps(diagnostics: Diagnostics) -> float | None:
    """The radius of the threat that a diagnostic was made at."""
    return real(mapping(mapping(diagnostics.get("about")).get("threat")).get("eps"))


def _curve(diagnostics: Diagnostics, x: str) -> list[tuple[float, float]]:
    return [(at, value) for at, value in pairs(diagnostics.get(x), diagnostics.get("accuracy")) if 0 <= value <= 1]


def _about(diagnostics: Mapping[str, Diagnostics], without: str, own: Evaluation | None) -> str:
    """How all of them were measured, where they were measured alike."""
    attacks = [{**each, "attack": {**mapping(each.get("attack")), without: None}} for each in diagnostics.values()]
    said = {measured(each, own) for each in attacks}
    return said.pop() if len(said) == 1 else "measured in several ways: " + "; ".join(sorted(said)[:4])


def eps_figure(
    diagnostics: Mapping[str, Diagnostics], own: Evaluation | None = None, doubts: Mapping[str, str] | None = None
) -> Figure | None:
    """Accuracy against eps, a line for each run; None where there is nothing to show.

    Args:
        found: diagnostics by run.
        own: the evaluation beside which it stands, where that is one.
        doubts: what speaks against a run's figures, by run.
    """
    lines = [_line(name, points, doubts) for name, each in diagnostics.items() if (points := _curve(each, "eps"))]
    if not lines:
        return None
    marks = sorted({eps for each in diagnostics.values() if (eps := own_eps(each)) is not None})
    alt = "Accuracy under attack against its radius eps. " + _ends(lines, "eps")
    return figure_of(
        Lines(
            "Accuracy against eps", Axis("eps"), Axis("accuracy", percent=True), _single(lines, "accuracy"), alt,
            _about({line.name: diagnostics[line.name] for line in lines}, "", own),
            [Mark(eps, f"the threat, {radius(eps)}") for eps in marks[:3]],
        )
    )  # fmt: skip


def steps_figure(
    diagnostics: Mapping[str, Diagnostics], own: Evaluation | None = None, doubts: Mapping[str, str] | None = None
) -> Figure | None:
    """Accuracy against the attack's steps, as ``eps_figure``."""
    lines = [
        _line(name, points, doubts)
        for name, each in diagnostics.items()
        if (points := [(at, value) for at, value in _curve(each, "steps") if at > 0])  # the axis is logarithmic
    ]
    if not lines:
        return None
    alt = "Accuracy under attack against its steps; it should fall and then settle. " + _ends(lines, "steps")
    return figure_of(
        Lines(
            "Accuracy against steps", Axis("steps of the attack", log=True, whole=True), Axis("accuracy", percent=True),
            _single(lines, "accuracy"), alt,
            _about({line.name: diagnostics[line.name] for line in lines}, "steps", own),
        )
    )  # fmt: skip


def _line(name: str, points: list[tuple[float, float]], doubts: Mapping[str, str] | None) -> Line:
    against = (doubts or {}).get(name, "")
    return Line(name, points, dashed=bool(against), doubt=against)


def _single(lines: list[Line], name: str) -> list[Line]:
    """One line is called by what it shows, not by its run."""
    return [Line(name, lines[0].points, "pgd")] if len(lines) == 1 else lines


def _ends(lines: list[Line], x: str) -> str:
    """Where lines begin and end, in words."""
    said = []
    for line in lines[:6]:
        (x0, y0), (x1, y1) = line.points[0], line.points[-1]
        name = f"{line.label}: " if len(lines) > 1 else ""
        said.append(f"{name}{percent(y0)} at {x} {x0:g}, {percent(y1)} at {x1:g}")
    return "; ".join(said) + "."

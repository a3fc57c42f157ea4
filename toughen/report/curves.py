"""Figures of accuracy against an attack's radius eps and against its number of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toughen.report.evaluations import Evaluation
from toughen.report.figures import Axis, Figure, Line, Lines, Mark, figure_of
from toughen.report.values import mapping, pairs, real, text, whole
from toughen.report.words import threat
from toughen.utils.statistics import percent
from toughen.utils.units import format_radius

Diagnostics = Mapping[str, Any]


def measured(diagnostics: Diagnostics, own: Evaluation | None = None) -> str:
    """The images and the attack of a diagnostic; also its data and threat if they differ from those of ``own``."""
    about, attack = mapping(diagnostics.get("about")), mapping(diagnostics.get("attack"))
    stated, images = mapping(about.get("threat")), whole(about.get("images"))
    norm, eps, data = text(stated.get("norm")), real(stated.get("eps")), text(about.get("data"))
    parts = [f"{images:,} test images"] if images else []
    if text(attack.get("attack")):
        steps = whole(attack.get("steps"))
        parts.append(text(attack["attack"]) + (f"-{steps}" if steps else ""))
    if data and (own is None or own.data != data):
        parts.append(data)
    if eps is not None and (own is None or (own.norm, own.eps) != (norm, eps)):
        parts.append(threat(norm, eps))
    return ", ".join(parts)


def own_eps(diagnostics: Diagnostics) -> float | None:
    """The radius of a diagnostic's threat."""
    return real(mapping(mapping(diagnostics.get("about")).get("threat")).get("eps"))


def _about(diagnostics: Mapping[str, Diagnostics], x: str, own: Evaluation | None) -> str:
    """How the diagnostics were measured; the attack's setting ``x`` is left out, since the curve varies it."""
    attacks = [{**each, "attack": {**mapping(each.get("attack")), x: None}} for each in diagnostics.values()]
    ways = {measured(each, own) for each in attacks}
    return ways.pop() if len(ways) == 1 else "measured differently: " + "; ".join(sorted(ways)[:4])


def eps_figure(
    diagnostics: Mapping[str, Diagnostics], own: Evaluation | None = None, doubts: Mapping[str, str] | None = None
) -> Figure | None:
    """Accuracy against eps, with a line for each run; None if there are no data.

    Args:
        diagnostics: the curve of each run, by the run's name.
        own: the evaluation that the figure is shown with, if any.
        doubts: why a run's numbers are not reliable, by the run's name.
    """
    radii = sorted({eps for each in diagnostics.values() if (eps := own_eps(each)) is not None})
    marks = [Mark(eps, f"eps {format_radius(eps)}") for eps in radii[:3]]
    alt = "Accuracy under attack against its radius eps."
    return _figure("eps", Axis("eps"), alt, diagnostics, own, doubts, marks)


def steps_figure(
    diagnostics: Mapping[str, Diagnostics], own: Evaluation | None = None, doubts: Mapping[str, str] | None = None
) -> Figure | None:
    """Accuracy against the attack's number of steps; otherwise as ``eps_figure``."""
    axis = Axis("steps of the attack", log=True, whole=True)
    alt = "Accuracy under attack against its number of steps; it should fall and then stay constant."
    return _figure("steps", axis, alt, diagnostics, own, doubts)


def _figure(
    x: str,
    axis: Axis,
    alt: str,
    diagnostics: Mapping[str, Diagnostics],
    own: Evaluation | None,
    doubts: Mapping[str, str] | None,
    marks: Sequence[Mark] = (),
) -> Figure | None:
    lines = []
    for name, each in diagnostics.items():
        curve = pairs(each.get(x), each.get("accuracy"))
        points = [(at, value) for at, value in curve if 0 <= value <= 1 and (at > 0 or not axis.log)]
        doubt = (doubts or {}).get(name, "")
        if points:
            lines.append(Line(name, points, dashed=bool(doubt), doubt=doubt))
    if not lines:
        return None
    about = _about({line.name: diagnostics[line.name] for line in lines}, x, own)
    if len(lines) == 1:  # a single line needs no run's name
        lines = [Line("accuracy", lines[0].points, "pgd")]
    title, y = f"Accuracy against {x}", Axis("accuracy", percent=True)
    return figure_of(Lines(title, axis, y, lines, f"{alt} {_ends(lines, x)}", about, marks))


def _ends(lines: list[Line], x: str) -> str:
    """The first and the last point of each line, as text."""
    parts = []
    for line in lines[:6]:
        (x0, y0), (x1, y1) = line.points[0], line.points[-1]
        name = f"{line.label}: " if len(lines) > 1 else ""
        parts.append(f"{name}{percent(y0)} at {x} {x0:g}, {percent(y1)} at {x1:g}")
    return "; ".join(parts) + "."

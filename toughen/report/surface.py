"""The figure of the loss around an image."""

from __future__ import annotations

from typing import Any

from toughen.report.curves import measured
from toughen.report.evaluations import Evaluation
from toughen.report.figures import Cell, Figure, Table, number_cell
from toughen.report.values import grid, items, real


def surface_figure(diagnostics: dict[str, Any], own: Evaluation | None) -> Figure | None:
    """The mean loss along the gradient and along a second direction; None if there are no data."""
    along, across = ([real(each) for each in items(diagnostics.get(name))] for name in ("along", "across"))
    mean = grid(diagnostics.get("mean"), len(along), len(across))
    if not mean or None in along or None in across:
        return None
    cells = [[i, j, value, value] for i, row in enumerate(mean) for j, value in enumerate(row) if value is not None]
    if not cells:
        return None
    middle, values = mean[len(along) // 2][len(across) // 2], [float(cell[2]) for cell in cells]
    edge = mean[-1][len(across) // 2]
    alt = (
        f"Mean loss around the images: {_number(middle)} at the image itself, {_number(edge)} at the far end along "
        f"the gradient, {min(values):.3g} to {max(values):.3g} overall."
    )
    names = [[f"{each:.3g}" for each in axis] for axis in (along, across)]
    data = {
        "x": {"label": "along the gradient", "names": names[0]},
        "y": {"label": "across", "names": names[1]},
        "cells": cells,
        "counts": False,
    }
    rows = [(Cell(names[1][j]), *(number_cell(row[j], ".3f") for row in mean)) for j in range(len(across))]
    table = Table(("across \\ along", *names[0]), tuple(rows), "mean loss")
    about = f"{measured(diagnostics, own)}; smooth is good, ridges are a sign of gradient masking"
    return Figure("Loss around an image", "heat", alt, data, table, about)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"

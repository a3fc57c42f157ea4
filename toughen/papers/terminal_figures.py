"""Figures as numbers in a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toughen.papers.datasets import describe_images

WIDTH = 80
MOST = 60  # places of one curve that are printed


def plot_lines(cells: dict[str, dict[str, Any] | None], eps: str) -> list[str]:
    """A plot's models: side by side where each is one line over the same places, else one after the other.

    Args:
        cells: what was drawn of each, by its name; None where nothing was.
        eps: of training, which is marked where the curve is over eps.
    """
    drawn = {name: cell["value"] for name, cell in cells.items() if cell}
    images = describe_images(filter(None, cells.values()), "images")
    lines = [f"on {images}"] if images else []
    lines += [f"{name}: not run" for name in cells if name not in drawn]
    single = [len(value.get("series", ())) == 1 and value.keys() == {"x", "at", "series"} for value in drawn.values()]
    if drawn and all(single) and len({str(value["at"]) for value in drawn.values()}) == 1:
        first = next(iter(drawn.values()))
        what = next(iter(first["series"]))
        series = {name: next(iter(value["series"].values())) for name, value in drawn.items()}
        return [*lines, what, *curve_lines({**first, "series": series}, eps)]
    for name, value in drawn.items():
        lines += [name, *(f"  {line}" for line in curve_lines(value, eps))]
    return lines


def curve_lines(value: dict[str, Any], eps: str) -> list[str]:
    """What was drawn, as lines of text; the place at the eps of training is marked.

    Of more than ``MOST`` places at most so many are printed; all the values lie in the JSON of what was measured.
    """
    if "tables" in value:
        return [line for each in value["tables"] for line in curve_lines(each, eps)]
    if "rows" in value:
        return [value["note"], *_grid(value["rows"], value["columns"], value["values"])]
    names, marked = list(value["series"]), value["x"] == "eps" and eps in value["at"]
    shown, count = _shown(len(value["at"])), len(value["at"])
    rows = [[value["series"][name][place] for name in names] for place in shown]
    at = [value["at"][place] for place in shown]
    lines = _grid([f"{each} *" if marked and each == eps else str(each) for each in at], names, rows, value["x"])
    if len(shown) < count:
        lines.append(f"{len(shown)} of {count:,} places, closer together at first")
    lines += ["* the eps of training"] * marked + ([value["note"]] if "note" in value else [])
    return lines + (curve_lines(value["also"], eps) if "also" in value else [])


def _shown(count: int) -> list[int]:
    """Which of so many places are printed: all, or some as if on a logarithmic axis, with the first and the last."""
    if count <= MOST:
        return list(range(count))
    return sorted({round(count ** (step / (MOST - 1))) - 1 for step in range(MOST)})


def _grid(rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[Any]], corner: str = "") -> list[str]:
    """Numbers in columns; turned where names are too long for the width."""
    first = max(len(name) for name in (corner, *rows))
    widths = [max(6, len(name)) for name in columns]
    if first + sum(widths) + 2 * len(widths) > WIDTH - 2:
        return (
            _grid(columns, rows, [list(each) for each in zip(*values, strict=True)])
            if _fits(rows, columns)
            else _short(rows, columns, values, corner)
        )
    lines = [f"{corner:{first}}" + "".join(f"  {name:>{width}}" for name, width in zip(columns, widths, strict=True))]
    for name, each in zip(rows, values, strict=True):
        lines.append(f"{name:{first}}" + "".join(f"  {_number(v):>{w}}" for v, w in zip(each, widths, strict=True)))
    return lines


def _fits(rows: Sequence[str], columns: Sequence[str]) -> bool:
    return max(map(len, columns)) + sum(max(6, len(name)) + 2 for name in rows) <= WIDTH - 2


def _short(rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[Any]], corner: str) -> list[str]:
    """The same with names cut to what fits."""
    width = max(4, (WIDTH - 14) // max(1, len(columns)) - 1)
    lines = [f"{corner[:10]:10}" + "".join(f" {name[:width]:>{width}}" for name in columns)]
    for name, each in zip(rows, values, strict=True):
        lines.append(f"{name[:10]:10}" + "".join(f" {_number(value)[:width]:>{width}}" for value in each))
    return lines


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int | str) else f"{value:.4g}"

"""Checks a command's arguments: the tables and figures, the scale, the numbers, and where the images are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from toughen.papers import datasets
from toughen.papers.published import EXHIBITS, find
from toughen.papers.published.exhibits import Exhibit, Figure, Settings, Table
from toughen.papers.samples import at_scale
from toughen.papers.scales import SCALES, Scale
from toughen.papers.tasks import wanted
from toughen.papers.values import MOST_SEEDS
from toughen.utils.console import say

ALL = "all"


def exhibits_of(
    names: Sequence[str], rows: Sequence[str] | None, net: str | None, seeds: int | None, limit: int | None
) -> list[Table | Figure]:
    """The tables and figures with these names, with only one net's rows if a net is given.

    Raises:
        ValueError: one is unknown, or only states settings, or one of the other arguments does not apply to it.
    """
    if list(names) == [ALL]:
        _check_range(seeds, limit)
        measured = [each for each in EXHIBITS.values() if not isinstance(each, Settings)]
        return measured if net is None else _with_net(measured, net)
    exhibits: list[Table | Figure] = []
    for each in map(find, dict.fromkeys(names)):
        if isinstance(each, Settings):
            raise ValueError(f"{each.name} only states settings, so it cannot be run with others: leave it out")
        if net is not None:
            each = _with_net([each], net)[0]
        check_rows(each, rows)
        check_counts(each, seeds, limit)
        exhibits.append(each)
    return exhibits


def _with_net(exhibits: Sequence[Table | Figure], net: str) -> list[Table | Figure]:
    """Those of the exhibits that have a net, each with only that net's panels or plots.

    Raises:
        ValueError: none has it.
    """
    found: list[Table | Figure] = []
    for each in exhibits:
        if isinstance(each, Table):
            panels = tuple(panel for panel in each.panels if panel.net.lower() == net.lower())
            found += [replace(each, panels=panels)] if panels else []
        else:
            plots = tuple(plot for plot in each.plots if plot.net.lower() == net.lower())
            found += [replace(each, plots=plots)] if plots else []
    if not found:
        nets = dict.fromkeys(part.net for each in exhibits for part in each.parts)
        what = f"{exhibits[0].name} has no net" if len(exhibits) == 1 else "no table or figure has a net"
        raise ValueError(f"{what} {net!r}: give one of {', '.join(nets)}")
    return found


def seeds_of(exhibit: Table | Figure, seeds: int | None) -> int:
    if isinstance(exhibit, Figure):
        return 1
    return exhibit.seeds if seeds is None else seeds


def scale_of(scale: str | None) -> Scale:
    """The scale of this name.

    Raises:
        ValueError: no scale is given.
    """
    if scale is None:
        raise ValueError("--scale is missing: add --scale smoke (as a test), cpu (smaller nets) or full")
    return SCALES[scale]


def check_counts(
    exhibit: Exhibit, seeds: int | None, limit: int | None, time_limit: str | None = None, net: str | None = None
) -> None:
    """Check that the numbers, the time limit and the net apply to this exhibit.

    Raises:
        ValueError: they do not.
    """
    for name, value in (("seeds", seeds), ("limit", limit), ("time-limit", time_limit), ("net", net)):
        if value is not None and isinstance(exhibit, Settings):
            raise ValueError(f"{exhibit.name} only states settings, nothing of it is run: leave --{name} out")
    _check_range(seeds, limit)
    if seeds is not None and seeds > 1 and isinstance(exhibit, Figure):
        raise ValueError(f"{exhibit.name} is a figure, and figures use one seed: leave --seeds out")


def _check_range(seeds: int | None, limit: int | None) -> None:
    for name, value in (("seeds", seeds), ("limit", limit)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}: it must be at least 1")
    if seeds is not None and seeds > MOST_SEEDS:
        raise ValueError(f"seeds is {seeds}: give at most {MOST_SEEDS}")


def check_rows(exhibit: Exhibit, rows: Sequence[str] | None) -> None:
    """Check that the rows exist.

    Raises:
        ValueError: one does not.
    """
    if isinstance(exhibit, Settings):
        names = [entry.of for entry in exhibit.entries]
    else:
        names = [name for part in exhibit.parts for name in part.names]
    for row in rows or ():
        if row.lower() not in (each.lower() for each in names):
            raise ValueError(f"{exhibit.name} has no row {row!r}: it has {', '.join(dict.fromkeys(names))}")


def places_of(
    exhibits: Sequence[Table | Figure],
    named: bool,
    rows: Sequence[str],
    data: str | None,
    scale: Scale,
    out: Path,
    *,
    progress: Console | None = None,
) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """The location of each data set; the exhibits without any images, and the missing data sets, with the reasons.

    Args:
        exhibits: the tables and figures.
        named: whether the user named them, so that missing images are an error; False for "all".
        rows, data, scale, out, progress: as in ``at_hand``.

    Raises:
        ValueError: no exhibit has images, or a named one has none.
    """
    places: dict[str, str] = {}
    lacking: dict[str, str] = {}
    known: dict[str, str | datasets.Missing] = {}
    for each in exhibits:
        try:
            places |= at_hand(each, rows, data, scale, out, known, progress=progress)
        except ValueError as error:
            if named:
                raise
            lacking[each.name] = str(error)
    if not places:
        raise ValueError(next(iter(lacking.values())))
    for name, spec in places.items():
        datasets.check_same(name, spec, scale, out)
    return places, lacking, {name: each.reason for name, each in known.items() if isinstance(each, datasets.Missing)}


def at_hand(
    exhibit: Table | Figure,
    rows: Sequence[str],
    data: str | None,
    scale: Scale,
    out: Path,
    known: dict[str, str | datasets.Missing] | None = None,
    *,
    progress: Console | None = None,
) -> dict[str, str]:
    """The location of each data set that the exhibit needs and that is available.

    At scale smoke, which only tests that a table runs, generated noise images replace missing data sets.

    Args:
        exhibit: the table or figure.
        rows, data, scale, out: the command's arguments.
        known: what earlier exhibits found, by the name of the data set; a set is read only once, and added to it.
        progress: where to say which set is read, which can take long; None says nothing.

    Raises:
        ValueError: no needed data set is available.
    """
    places: dict[str, str] = {}
    missing: dict[str, list[str]] = {}  # names by the reason
    known = {} if known is None else known
    for name in dict.fromkeys(part.data for part in exhibit.parts if any(wanted(each, rows) for each in part.names)):
        if name not in known:
            if progress is not None:
                say(progress, f"reading the images of {name}")
            known[name] = _find(name, data, scale, out)
        place = known[name]
        if isinstance(place, str):
            places[name] = place
        else:
            missing.setdefault(place.reason, []).append(name)
    if not places:
        reasons = "; ".join(f"{' or '.join(lacking)}: {reason}" for reason, lacking in missing.items())
        raise ValueError(f"{exhibit.name} needs {reasons}")
    return places


def _find(name: str, data: str | None, scale: Scale, out: Path) -> str | datasets.Missing:
    """The location of a data set, or why it is not available."""
    try:
        return at_scale(name, datasets.place(name, data), scale, out)
    except datasets.Missing as error:
        return at_scale(name, None, scale, out) if error.replaceable and scale.training_images is not None else error

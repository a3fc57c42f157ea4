"""Five papers' tables and figures: a YAML file for each paper, and what their parts are in ``exhibits``."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from toughen.papers.published.exhibits import (
    STATED,
    Column,
    Exhibit,
    Figure,
    Line,
    Panel,
    Plot,
    Row,
    Setting,
    Settings,
    Table,
)
from toughen.runs.json_types import matches
from toughen.utils import strict_yaml

FILES = ("pap", "rmgm", "nuat", "efgsm", "dat")  # in the order in which they are listed
T = TypeVar("T")


def read_paper(path: Path) -> tuple[str, tuple[Exhibit, ...]]:
    """A paper's short name, and its tables and figures.

    Raises:
        ValueError: the file says something that no table or figure has, or lacks something; the message says where.
    """
    content = strict_yaml.read(path.read_text(encoding="utf-8"), path.name)
    if not isinstance(content, dict) or content.keys() != {"paper", "citation", "exhibits"}:
        raise ValueError(f"{path.name} must have paper, citation and exhibits, and nothing else")
    named = _mapping(content["exhibits"], f"{path.name}: exhibits")
    return str(content["paper"]), tuple(_exhibit(name, given, f"{path.name}: {name}") for name, given in named.items())


def _exhibit(name: str, given: Any, where: str) -> Exhibit:
    given = {"name": name, **_mapping(given, where)}
    if not given.get("source"):
        raise ValueError(f"{where}: source is missing: say where in the paper it stands")
    if "panels" in given:
        headline = _mapping(given.pop("headline", None), f"{where}: headline")
        given["headline"] = (headline.get("row", ""), headline.get("column", ""))
        given["panels"] = _each(given["panels"], _panel, f"{where}: panels")
        return _check_headline(_build(Table, given, where), where)
    if "plots" in given:
        given["plots"] = _each(given["plots"], _plot, f"{where}: plots")
        return _build(Figure, given, where)
    given["eps"] = tuple(_mapping(given.get("eps", {}), where).items())
    given["entries"] = tuple(
        _build(Setting, {"of": of, "name": name, **_mapping(one, where)}, f"{where}: {of}, {name}")
        for of, named in _mapping(given.get("entries"), f"{where}: entries").items()
        for name, one in _mapping(named, f"{where}: {of}").items()
    )
    return _build(Settings, given, where)


def _panel(given: Any, where: str) -> Panel:
    given = dict(_mapping(given, where))
    columns = _mapping(given.get("columns"), f"{where}: columns")
    given["columns"] = tuple(_named(Column, name, one, "of", where) for name, one in columns.items())
    rows = _mapping(given.get("rows"), f"{where}: rows")
    given["rows"] = tuple(_named(Row, name, one, "run", where) for name, one in rows.items())
    panel = _build(Panel, given, where)
    for row in panel.rows:
        _check_row(panel, row, f"{where}, row {row.name}")
    if panel.unit not in (*rows, "") or (not panel.unit and any(column.timed for column in panel.columns)):
        raise ValueError(f"{where}: unit must be the name of the row whose times are 1, not {panel.unit!r}")
    return panel


def _check_row(panel: Panel, row: Row, where: str) -> None:
    figures = row.published.split()
    if figures and len(figures) != len(panel.columns):
        raise ValueError(f"{where}: {len(figures)} published figures for {len(panel.columns)} columns ('-' for none)")
    for figure, column in zip(figures, panel.columns, strict=False):
        if figure != "-" and column.of != STATED:
            try:
                float(figure)
            except ValueError:
                raise ValueError(f"{where}: {figure!r} under {column.name} is no figure") from None
    if row.against and row.against not in [each.name for each in panel.rows]:
        raise ValueError(f"{where}: there is no row {row.against!r} to be against")


def _check_headline(table: Table, where: str) -> Table:
    row, column = table.headline
    for panel in table.panels:
        if row in [each.name for each in panel.rows] and column in [each.name for each in panel.columns]:
            return table
    raise ValueError(f"{where}: headline: no panel has a row {row!r} and a column {column!r}")


def _plot(given: Any, where: str) -> Plot:
    given = dict(_mapping(given, where))
    lines = _mapping(given.get("lines"), f"{where}: lines")
    return _build(
        Plot, given | {"lines": tuple(_named(Line, name, one, "run", where) for name, one in lines.items())}, where
    )


def _named(kind: type[T], name: str, given: Any, only: str, where: str) -> T:
    """A part by its name; a text alone is its field ``only``."""
    given = {only: given} if isinstance(given, str) else _mapping(given, f"{where}: {name}")
    return _build(kind, {"name": name, **given}, f"{where}: {name}")


def _each(given: Any, make: Callable[[Any, str], T], where: str) -> tuple[T, ...]:
    if not isinstance(given, list):
        raise ValueError(f"{where} must be a list")
    return tuple(make(one, f"{where} {number}") for number, one in enumerate(given, 1))


def _mapping(given: Any, where: str) -> dict[str, Any]:
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        raise ValueError(f"{where} must be names with values (a number as a name needs quotes)")
    return given


def _build(kind: type[T], given: dict[str, Any], where: str) -> T:
    """An instance of a data class, its fields checked: none unknown, none missing, each of its type."""
    hints = get_type_hints(kind)
    needed = {each.name for each in fields(kind) if each.default is MISSING}  # type: ignore[arg-type]
    if wrong := sorted(given.keys() - hints.keys()):
        raise ValueError(f"{where}: unknown: {', '.join(wrong)}; there are {', '.join(hints)}")
    if lacking := sorted(needed - given.keys()):
        raise ValueError(f"{where}: missing: {', '.join(lacking)}")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    for name, value in given.items():
        if not _fits(value, hints[name]):
            raise ValueError(f"{where}: {name} is {value!r}: not of its type (a number as it is printed needs quotes)")
    return kind(**values)


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(value, tuple):
        return True  # was made and checked here
    if get_origin(hint) is tuple and isinstance(value, list):
        return all(matches(each, get_args(hint)[0]) for each in value)
    return matches(value, hint)


PAPERS: dict[str, tuple[Exhibit, ...]] = dict(read_paper(Path(__file__).parent / f"{name}.yaml") for name in FILES)
EXHIBITS: dict[str, Exhibit] = {each.name: each for exhibits in PAPERS.values() for each in exhibits}


def find(name: str) -> Exhibit:
    """A table or figure by its identifier.

    Raises:
        ValueError: there is none of this name.
    """
    if name in EXHIBITS:
        return EXHIBITS[name]
    close = difflib.get_close_matches(name.lower(), EXHIBITS, n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise ValueError(f"there is no table or figure {name!r}: {hint}`toughen reproduce --list` names all")

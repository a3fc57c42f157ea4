"""The tables and figures of five papers: reads a YAML file for each paper into the classes of ``exhibits``."""

from __future__ import annotations

import difflib
import re
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from toughen.papers.published.exhibits import STATED, Column, Exhibit, Figure, Line, Panel, Row, Settings, Table
from toughen.utils import strict_yaml
from toughen.utils.type_hints import matches

FILES = ("pap", "rmgm", "nuat", "efgsm", "dat")  # in the order in which they are listed
SHORT: dict[type, str] = {Column: "of", Row: "run", Line: "run"}
T = TypeVar("T")


def read_paper(path: Path) -> tuple[str, tuple[Exhibit, ...]]:
    """A paper's short name, and its tables and figures.

    Raises:
        ValueError: the file has an unknown, missing or wrong field; the message says where.
    """
    content = strict_yaml.read(path.read_text(encoding="utf-8"), path.name)
    if not isinstance(content, dict) or content.keys() != {"paper", "citation", "exhibits"}:
        raise ValueError(f"{path.name} must have paper, citation and exhibits, and nothing else")
    named = _mapping(content["exhibits"], f"{path.name}: exhibits")
    return str(content["paper"]), tuple(_exhibit(name, given, f"{path.name}: {name}") for name, given in named.items())


def _exhibit(name: str, given: Any, where: str) -> Exhibit:
    given = dict(_mapping(given, where))
    if not given.get("source"):
        raise ValueError(f"{where}: source is missing: give the place in the paper")
    if "plots" in given:
        return _build(Figure, name, given, where)
    if "panels" in given:
        headline = _mapping(given.pop("headline", None), f"{where}: headline")
        table = _build(Table, name, given | {"headline": [headline.get("row"), headline.get("column")]}, where)
        _check(table, where)
        return table
    given["eps"] = [list(pair) for pair in _mapping(given.get("eps", {}), where).items()]
    given["entries"] = [
        {"of": of, "name": each, **_mapping(one, f"{where}: {of}")}
        for of, entries in _mapping(given.get("entries"), f"{where}: entries").items()
        for each, one in _mapping(entries, f"{where}: {of}").items()
    ]
    return _build(Settings, name, given, where)


def _build(kind: type[T], name: str, given: Any, where: str) -> T:
    """An instance of a data class; unknown, missing and wrongly typed fields are errors.

    In the file, parts with names are a mapping from their names, and others are a list. If a part is a single text, it
    is the field in ``SHORT``.
    """
    given = {SHORT[kind]: given} if isinstance(given, str) and kind in SHORT else _mapping(given, where)
    hints = get_type_hints(kind)
    given = {"name": name, **given} if name and "name" in hints else given
    if unknown := sorted(given.keys() - hints.keys()):
        raise ValueError(f"{where}: unknown: {', '.join(unknown)}; there are {', '.join(hints)}")
    if lacking := [each.name for each in fields(kind) if each.default is MISSING and each.name not in given]:  # type: ignore[arg-type]
        raise ValueError(f"{where}: missing: {', '.join(lacking)}")
    return kind(**{each: _value(hints[each], value, f"{where}: {each}") for each, value in given.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    inner: Any = get_args(hint)
    several = get_origin(hint) is tuple and inner[-1] is Ellipsis
    parts = several and is_dataclass(inner[0])
    if parts and isinstance(value, dict):
        return tuple(_build(inner[0], name, each, f"{where}, {name}") for name, each in value.items())
    if parts and isinstance(value, list):
        return tuple(_build(inner[0], "", each, f"{where} {place}") for place, each in enumerate(value, 1))
    if several and isinstance(value, list):
        return tuple(_value(inner[0], each, where) for each in value)
    if several or not matches(value, hint):
        raise ValueError(f"{where} is {value!r}: not of its type (a number as it is printed needs quotes)")
    return tuple(value) if isinstance(value, list) else value


def _mapping(given: Any, where: str) -> dict[str, Any]:
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        raise ValueError(f"{where} must be names with values (a number as a name needs quotes)")
    return given


def _check(table: Table, where: str) -> None:
    """Check that a table has one figure for each column, and that the rows that it refers to exist."""
    for number, panel in enumerate(table.panels, 1):
        for row in panel.rows:
            _check_row(panel, row, f"{where}: panels {number}: rows, {row.name}")
        if panel.unit not in (*panel.names, "") or (not panel.unit and any(column.timed for column in panel.columns)):
            raise ValueError(f"{where}: panels {number}: unit must be the row whose times are 1, not {panel.unit!r}")
    row_name, column_name = table.headline
    if not any(
        row_name in each.names and column_name in [column.name for column in each.columns] for each in table.panels
    ):
        raise ValueError(f"{where}: headline: no panel has a row {row_name!r} and a column {column_name!r}")


def _check_row(panel: Panel, row: Row, where: str) -> None:
    figures = row.published.split()
    if figures and len(figures) != len(panel.columns):
        raise ValueError(f"{where}: {len(figures)} published figures for {len(panel.columns)} columns ('-' for none)")
    for figure, column in zip(figures, panel.columns, strict=False):
        if figure != "-" and column.of != STATED and not re.fullmatch(r"\d+(\.\d+)?", figure):
            raise ValueError(f"{where}: {figure!r} under {column.name} is not a number")
    if row.against not in (*panel.names, ""):
        raise ValueError(f"{where}: there is no row {row.against!r} for the field against")


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
    raise ValueError(f"there is no table or figure {name!r}: {hint}`toughen reproduce --list` lists all")

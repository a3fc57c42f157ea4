"""Whether settings that were written at different times decide the same run."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from toughen.training.recipe import Recipe

KEPT = "keep_at"
NEITHER = object()  # equal to nothing


def agree(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two runs' settings say the same; what only one of them names must be at its default.

    So a setting that toughen has got since then is no difference, unless it is used.
    """
    return _agree(before, now, recipe_defaults())


def serves(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a run with the settings before is one with those now: it may have kept the weights of more moments."""
    held = before.get(KEPT, [])
    whole = isinstance(held, list) and all(moment in held for moment in now.get(KEPT, []))
    return whole and agree({**before, KEPT: []}, {**now, KEPT: []})


def _agree(before: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any]) -> bool:
    for name in before.keys() | now.keys():
        default = defaults.get(name, NEITHER)
        first, second = before.get(name, default), now.get(name, default)
        if _names_class(first) and _names_class(second):
            kind = first["class_path"]
            if kind != second["class_path"] or not _agree(
                first.get("init_args", {}), second.get("init_args", {}), defaults_of(kind)
            ):
                return False
        elif _are_runs(first) and _are_runs(second):  # the sources of an ensemble
            if len(first) != len(second) or not all(map(agree, first, second)):
                return False
        elif _plain(first) != _plain(second):
            return False
    return True


def _are_runs(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) for each in value)


def _names_class(value: Any) -> bool:
    return isinstance(value, Mapping) and "class_path" in value


def _plain(value: Any) -> Any:
    """A value as a file would give it back."""
    return list(value) if isinstance(value, tuple) else value


def recipe_defaults() -> dict[str, Any]:
    """What a recipe's settings are where nothing is said of them."""
    found = {}
    for each in fields(Recipe):
        if each.default is not MISSING:
            found[each.name] = each.default
        elif each.default_factory is not MISSING:
            found[each.name] = each.default_factory()
    return found


def defaults_of(kind: str) -> dict[str, Any]:
    """The defaults of a class, by the names of its arguments.

    Args:
        kind: the class, as an import path.
    """
    module, name = kind.rsplit(".", 1)
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not each.empty}

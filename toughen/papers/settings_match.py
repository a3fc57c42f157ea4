"""Decides whether settings that were written by different versions of toughen describe the same run."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any

from toughen.papers.run_spec import KEPT
from toughen.training.recipe import Recipe
from toughen.utils import configurable

NEITHER = object()  # equal to nothing


def agree(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two runs' settings are equal, if missing settings count as their defaults.

    So a setting that is newer than one of the runs is not a difference, unless it is used.
    """
    return changed(before, recipe_defaults()) == changed(now, recipe_defaults())


def serves(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a run with the settings ``before`` can be used for ``now``; it may have kept weights of more moments."""
    held = before.get(KEPT, [])
    whole = isinstance(held, list) and all(moment in held for moment in now.get(KEPT, []))
    return whole and agree({**before, KEPT: []}, {**now, KEPT: []})


def changed(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that differ from their defaults, in the form that a file has them."""
    values: dict[str, Any] = {}
    for name, value in settings.items():
        value = list(value) if isinstance(value, tuple) else value
        if isinstance(value, Mapping) and "class_path" in value:
            kind = value["class_path"]
            values[name] = [kind, changed(value.get("init_args", {}), defaults_of(kind))]
        elif isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
            values[name] = [changed(each, recipe_defaults()) for each in value]  # the sources of an ensemble
        elif value != defaults.get(name, NEITHER):
            values[name] = value
    return values


@cache
def recipe_defaults() -> dict[str, Any]:
    """The defaults of a recipe's settings."""
    defaults = {each.name: each.default for each in fields(Recipe) if each.default is not MISSING}
    factories = {each.name: each.default_factory() for each in fields(Recipe) if each.default_factory is not MISSING}
    return _plain(defaults | factories)


@cache
def defaults_of(kind: str) -> dict[str, Any]:
    """The defaults of a class, by the names of its arguments; {} if the class no longer exists.

    Args:
        kind: the class, as an import path.
    """
    module, _, name = kind.rpartition(".")
    try:
        return _plain(configurable.defaults_of(getattr(importlib.import_module(module), name)))
    except (ImportError, AttributeError, ValueError):
        return {}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

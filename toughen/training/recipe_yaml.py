"""A recipe as YAML, as a run's config.yaml has it, and its settings by dotted name for a comparison."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from toughen.training.recipe import Recipe
from toughen.utils import strict_yaml
from toughen.utils.configurable import hints_of, import_path, nested_defaults, settings_of_part
from toughen.utils.units import Fraction


def recipe_yaml(recipe: Recipe) -> str:
    """A recipe as YAML that ``toughen train`` takes.

    What is None by default is left out where it is None. A value that no text can hold, such as a net that was made in
    Python, is written as the path of its class.
    """
    settings = {each.name: getattr(recipe, each.name) for each in fields(recipe)}
    if recipe.eps is None and recipe.threat is not None:  # the method says the threat, and the norm may not contradict
        settings["norm"] = recipe.threat.norm
    return strict_yaml.write(_given(Recipe, settings))


def _given(kind: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a class, without those that are None by default."""
    open_ones = {each.name for each in inspect.signature(kind).parameters.values() if each.default is None}
    given = {name: value for name, value in settings.items() if value is not None or name not in open_ones}
    floats = {name for name, hint in hints_of(kind).items() if "Fraction" not in str(hint)}  # which take no 8/255
    return {name: _plain(value, as_text=name not in floats) for name, value in given.items()}


def _plain(value: Any, *, as_text: bool = True) -> Any:
    if (settings := settings_of_part(value)) is not None:
        given = _given(type(value), settings)
        return {"class_path": import_path(type(value))} | ({"init_args": given} if given else {})
    if isinstance(value, Mapping):
        return {str(name): _plain(each, as_text=as_text) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, as_text=as_text) for each in value]
    if isinstance(value, Fraction):
        return value.text if as_text and "/" in value.text else float(value)
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Integral):  # numpy's, too
        return int(value)
    if isinstance(value, float | Real):
        return float(value)
    return str.__str__(value) if isinstance(value, str) else import_path(type(value))


def settings_of(recipe: Recipe) -> dict[str, str]:
    """A recipe's settings as text, nested ones under dotted names."""
    text = recipe_yaml(recipe)
    return _flat(strict_yaml.read(text, "the recipe"))


def settings_in(config: Path) -> dict[str, str]:
    """The settings in a run's config.yaml, as ``settings_of`` gives them.

    Raises:
        ValueError: it is no recipe.
    """
    with suppress(ValueError):
        settings = strict_yaml.read(config.read_text(encoding="utf-8", errors="surrogateescape"), config.name)
        if isinstance(settings, dict):
            return _flat(settings)
    raise ValueError(f"{config} is damaged: restore it from a copy, or choose another --out")


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(value, dict):
        return {prefix: str(value)}
    return {name: v for key, part in value.items() for name, v in _flat(part, f"{prefix}.{key}".lstrip(".")).items()}


def changes(before: Mapping[str, str], recipe: Recipe) -> dict[str, tuple[str, str]]:
    """The settings that differ from a recipe's, with both values, sorted by name.

    A setting that is missing on one side has its default there: a run may be older than a setting, and what a method
    of a user's own hands on to its base is in config.yaml only where it was given. 1 and 1.0 are the same.
    """
    now = settings_of(recipe)
    defaults = {name: str(_plain(default)) for name, default in nested_defaults(Recipe, vars(recipe)).items()}
    whole = {name: "None" for name in before.keys() | now.keys()} | defaults
    pairs = {name: (before.get(name, whole[name]), now.get(name, whole[name])) for name in sorted(whole)}
    return {name: (was, given) for name, (was, given) in pairs.items() if _meaning(was) != _meaning(given)}


def _meaning(setting: str) -> float | str:
    try:
        return Fraction(setting)
    except ValueError:
        return setting

"""A recipe's settings beneath those of a command line: what another part, eps or norm replaces is left out."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from toughen.config.settings import PARTS, last_part
from toughen.utils.units import Fraction, scale_radius

LENGTHS = {"step_size", "start_size", "sigma", "limit"}  # settings of methods in the units of eps


def under(recipe: dict[str, Any], options: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """A recipe without the settings that a command line replaces, and with defaults for missing parts.

    A replaced part is removed as a whole: jsonargparse would pass its settings, defaults among them, to the class that
    replaces it, wherever the names agree.

    Args:
        recipe: settings by name; not changed.
        options: the command line's, as (dotted name, value).
    """
    remaining = copy.deepcopy(recipe)
    for path, value in options:
        *above, name = path.split(".")
        node: Any = remaining
        for step in above:
            node = node.get(step) if isinstance(node, dict) else None
            node = node.get("init_args") if isinstance(node, dict) else None
        part = node.get(name) if isinstance(node, dict) else None
        if isinstance(part, dict) and not _same_class(str(part.get("class_path", "")), str(value)):
            del node[name]
    given = dict(options)
    if given.keys() & {"eps", "eps_factor"} and "eps" in remaining:
        _forget(remaining.get("method"), "eps", _eps_in_training(remaining["eps"], remaining.get("eps_factor", 1.0)))
    if "norm" in given and "norm" in remaining:
        _forget(remaining.get("method"), "norm", str(remaining["norm"]))
    if given.get("norm", "null") not in ("null", recipe.get("norm", "linf")):  # lengths differ by orders of magnitude
        _drop_lengths(remaining.get("method"))
    if given.get("model", remaining.get("model")) != remaining.get("model"):
        remaining.pop("model_settings", None)
    return {**{name: kind for name, kind in PARTS.items() if name not in given}, **remaining}


def kept_lengths(recipe: dict[str, Any], options: Sequence[tuple[str, str]]) -> str:
    """A message if step sizes and starts of a recipe stay as they are at an eps that is not the recipe's; "" otherwise.

    Args:
        recipe: settings by name.
        options: the command line's, as (dotted name, value).
    """
    given = dict(options)
    eps, own = given.get("eps", "null"), recipe.get("eps")
    if eps == "null" or own is None or Fraction(eps) == Fraction(own):
        return ""
    kept = [
        (path, value) for path, value in _lengths("method", under(recipe, options).get("method")) if path not in given
    ]
    if not kept:
        return ""
    lengths = " and ".join(dict.fromkeys(f"{path.rpartition('.')[2]} {value}" for path, value in kept))
    flags = " and ".join(f"--{path}" for path, _ in kept)
    return f"{lengths}: as in the recipe for eps {own}, also at eps {eps} ({flags})"


def _lengths(path: str, part: Any) -> Iterator[tuple[str, Any]]:
    """Step sizes and starts of a part and of all within it, by the dotted name of the option that sets them."""
    if not isinstance(part, dict):
        return
    for name, value in (part.get("init_args") or {}).items():
        if name in LENGTHS and value is not None:
            yield f"{path}.{name}", value
        yield from _lengths(f"{path}.{name}", value)


def _drop_lengths(part: Any) -> None:
    """Drop step sizes and starts from a part and from all within it."""
    if isinstance(part, dict):
        for name in LENGTHS & part.keys():
            del part[name]
        for inner in part.values():
            _drop_lengths(inner)


def _eps_in_training(eps: Any, factor: Any) -> str:
    """A method's eps as a run's config.yaml has it."""
    if factor == 1 or not isinstance(factor, int | float) or not isinstance(eps, int | float | str):
        return str(eps)
    return f"{scale_radius(Fraction(eps), factor)}"


def _forget(part: Any, name: str, value: str) -> None:
    """Drop a setting that has this value from a part and from all within it, as a run's config.yaml has it."""
    if isinstance(part, dict):
        if str(part.get(name)) == value:
            del part[name]
        for inner in part.values():
            _forget(inner, name, value)


def _same_class(one: str, other: str) -> bool:
    """Whether two names mean the same class: toughen's own go by their last part, a user's by the whole path."""
    own = [path for path in (one, other) if "." in path and not path.startswith("toughen.")]
    return one == other if own else last_part(one) == last_part(other)

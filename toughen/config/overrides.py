"""A recipe's settings beneath those of a command line: what another part, eps or norm replaces is left out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from toughen.config.settings import PARTS, last_part
from toughen.utils.units import Fraction, scale_radius

LENGTHS = ("step_size", "start_size", "sigma", "limit")  # settings of methods in the units of eps


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
    _scale_lengths(remaining.get("method"), _length_factor(recipe, given))
    if given.get("model", remaining.get("model")) != remaining.get("model"):
        remaining.pop("model_settings", None)
    return {**{name: kind for name, kind in PARTS.items() if name not in given}, **remaining}


def _length_factor(recipe: dict[str, Any], given: dict[str, str]) -> float | None:
    """What lengths that a recipe wrote for its eps are multiplied by for another; None where the norm is another."""
    if given.get("norm", "null") not in ("null", recipe.get("norm", "linf")):
        return None
    try:
        before, after = (
            Fraction(str(known["eps"])) * float(known.get("eps_factor", 1.0)) for known in (recipe, {**recipe, **given})
        )
    except (KeyError, ValueError, TypeError):  # none, or one that is refused later
        return 1.0
    return after / before if before > 0 and after > 0 else 1.0


def _scale_lengths(part: Any, factor: float | None) -> None:
    """Multiply step sizes and starts of a part, and of all within it, by a factor; None drops them."""
    if not isinstance(part, dict) or factor == 1:
        return
    for name, value in list(part.items()):
        if name not in LENGTHS:
            _scale_lengths(value, factor)
        elif factor is None:
            del part[name]
        elif isinstance(value, int | float | str) and str(value) != "null":
            part[name] = str(scale_radius(Fraction(value), factor))


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

"""A user's own callbacks, by the import paths that the command line or the user's recipe names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from toughen.training.callbacks.base import Callback
from toughen.utils.plugins import describe_error, module


def imported(paths: str | Sequence[str] | None) -> list[Callback]:
    """A callback of each class, made without arguments.

    Args:
        paths: one or more as ``package.module.MyCallback``; never out of a file of a run directory.

    Raises:
        ValueError: one cannot be imported or made, or is no callback.
    """
    return [_made(path) for path in ([paths] if isinstance(paths, str) else paths or ())]


def by_name(callbacks: Sequence[Callback]) -> dict[str, Callback]:
    """Callbacks under the names by which a checkpoint keeps their state: their classes', a repeated one numbered."""
    names = [f"{type(each).__module__}.{type(each).__qualname__}" for each in callbacks]
    names = [f"{name} {names[:place].count(name) + 1}" if name in names[:place] else name
             for place, name in enumerate(names)]  # fmt: skip
    return dict(zip(names, callbacks, strict=True))


def _made(path: str) -> Callback:
    place, _, name = path.rpartition(".")
    if not place or not all(part.isidentifier() for part in path.split(".")):
        raise ValueError(f"callback {path!r} is no import path: write package.module.MyCallback")
    holder = module(place, f"callback {path!r}")
    if not hasattr(holder, name):
        near = difflib.get_close_matches(name, vars(holder), n=1)
        hint = f": did you mean {near[0]}?" if near else ""
        raise ValueError(f"callback {path!r} cannot be found: {place} has no {name}{hint}")
    kind = getattr(holder, name)
    if not (isinstance(kind, type) and issubclass(kind, Callback)):
        raise ValueError(f"callback {path!r} is no subclass of toughen.training.Callback")
    try:
        return kind()
    except Exception as error:  # the user's own code may raise anything
        raise ValueError(f"callback {path!r} cannot be made: {describe_error(error)}") from error

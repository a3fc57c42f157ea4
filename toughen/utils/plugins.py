"""Code that toughen did not write: importing it, and saying where it failed. It may raise anything."""

from __future__ import annotations

import difflib
import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any


def module(name: str, what: str) -> ModuleType:
    """A user's own module.

    Args:
        name: its import path.
        what: what errors call that which is wanted of it.

    Raises:
        ValueError: it cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and not f"{name}.".startswith(f"{error.name}."):
            raise ValueError(
                f"{what} cannot be imported: {name} imports {error.name}, which is neither installed nor on PYTHONPATH"
            ) from error
        raise ValueError(f"{what} cannot be imported: {error}; is its folder on PYTHONPATH?") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"{what} cannot be imported: {describe_error(error)}") from error


def import_object(path: str, kind: str) -> Any:
    """What a user's own module holds at ``package.module.Class``.

    Args:
        path: where.
        kind: what errors call it, such as "callback".

    Raises:
        ValueError: it cannot be imported, or there is no such thing.
    """
    place, _, name = path.rpartition(".")
    if not place or not all(part.isidentifier() for part in path.split(".")):
        raise ValueError(f"{kind} {path!r} is not an import path: write package.module.NAME")
    holder = module(place, f"{kind} {path!r}")
    if not hasattr(holder, name):
        raise ValueError(f"{kind} {path!r} cannot be found: {place} has no {name}{did_you_mean(name, holder)}")
    return getattr(holder, name)


def did_you_mean(name: str, holder: ModuleType) -> str:
    """The end of a message: which name of a module's is similar to one that it does not have; "" for none."""
    near = difflib.get_close_matches(name, vars(holder), n=1)
    return f": did you mean {near[0]}?" if near else ""


def describe_error(error: BaseException) -> str:
    """Where a user's own code failed, and how; where it called what is installed, the line of the call."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"at {error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    where = traceback.extract_tb(error.__traceback__)[-1]
    place = own_place(error)[2:-1] or f"{where.filename}, line {where.lineno}"
    return f"at {place}: {type(error).__name__}: {error}"


def own_place(error: BaseException) -> str:
    """Where a user's own code raised an error or called what raised it, in parentheses; "" if no such code ran.

    Installed packages do not count.
    """
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if _is_own(frame.f_globals.get("__name__", ""), file):
            place = f" ({file}, line {line})"
    return place


def is_users_own(module: ModuleType) -> bool:
    """Whether a module is a file of the user's: not toughen's, not Python's, and not installed."""
    return _is_own(module.__name__, getattr(module, "__file__", None) or "")


def _is_own(name: str, file: str) -> bool:
    installed = not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)
    package = name.partition(".")[0]
    return package not in ("toughen", *sys.stdlib_module_names) and not installed and Path(file).is_file()

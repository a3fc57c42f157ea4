"""Code that toughen did not write: importing it, and saying where it failed. It may raise anything."""

from __future__ import annotations

import importlib
import traceback
from types import ModuleType


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
    except ImportError as error:
        raise ValueError(f"{what} cannot be imported: {error}; is its folder on PYTHONPATH?") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"{what} cannot be imported: {describe_error(error)}") from error


def describe_error(error: BaseException) -> str:
    """Where a user's own code failed, and how."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"at {error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"at {where.filename}, line {where.lineno}: {type(error).__name__}: {error}"

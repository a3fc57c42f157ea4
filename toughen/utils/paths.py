"""Paths: whether their names are text, and which existing folder was meant by one that does not exist."""

from __future__ import annotations

import difflib
import os
from pathlib import Path


def expanded(path: Path) -> Path:
    """A path with ~ expanded to the home folder."""
    return Path(os.path.expanduser(path))


def meant(path: Path) -> Path | None:
    """The existing folder with the closest name; None if there is none."""
    try:
        return _meant(expanded(path))
    except OSError:  # of a name that is too long, or a folder that may not be read
        return None


def _meant(path: Path) -> Path | None:
    missing = path
    while not missing.parent.is_dir():
        if missing.parent == missing:
            return None
        missing = missing.parent
    beside = [entry.name for entry in missing.parent.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    for name in difflib.get_close_matches(missing.name, beside, n=3):
        candidate = missing.parent / name / path.relative_to(missing)
        if candidate.is_dir():
            return candidate
    return None


def did_you_mean(path: Path) -> str:
    """For a message: the folder that may have been meant, "" for none."""
    near = meant(path)
    return f"did you mean {near}? Else " if near else ""


def is_text(name: str) -> bool:
    """Whether a path or a name can be written into other files: one whose bytes are not UTF-8 cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True

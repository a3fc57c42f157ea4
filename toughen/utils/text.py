"""Names of files that are no text."""

from __future__ import annotations


def is_text(name: str) -> bool:
    """Whether a path or a name can be written into other files: one whose bytes are not UTF-8 cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True

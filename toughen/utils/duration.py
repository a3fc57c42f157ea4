"""Times as people write them."""

from __future__ import annotations

import re

UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_NUMBER = r"([0-9]{1,9}(?:\.[0-9]{1,18})?)"  # more hours than that, as seconds, are soon no number of steps
_FORM = re.compile(f"(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?")


def seconds(text: str) -> float:
    """A duration such as 90s, 5m or 1h30m, in seconds.

    Raises:
        ValueError: it is written in another way, or is none.
    """
    match = _FORM.fullmatch(text.strip())
    given = match.groups() if match else ()
    total = sum(float(part) * unit for part, unit in zip(given, UNITS.values(), strict=False) if part)
    if not total:
        raise ValueError(f"{text!r} is not a duration: write one such as 90s, 5m or 1h30m")
    return total


def spell(duration: float) -> str:
    """A duration in seconds as ``seconds`` reads it, rounded up to whole seconds."""
    whole = int(-(-duration // 1))
    parts = {"h": whole // 3600, "m": whole % 3600 // 60, "s": whole % 60}
    return "".join(f"{count}{unit}" for unit, count in parts.items() if count) or "0s"

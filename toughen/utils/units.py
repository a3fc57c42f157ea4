"""Quantities as people write them: fractions such as 8/255, durations such as 5m, sizes such as 2GB."""

from __future__ import annotations

import math
import re
from fractions import Fraction as ExactFraction

CLOSE = 1e-9  # the largest relative difference of two radii that count as equal: one may be a rounded product
DURATION_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_NUMBER = r"([0-9]{1,9}(?:\.[0-9]{1,18})?)"  # more hours than that, as seconds, are soon no number of steps
_DURATION = re.compile(f"(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?")
SIZE_UNITS = {
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip
# ASCII, as other letters are an I or a K, too, where case is ignored
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*([KMGT]I?B)", re.ASCII | re.IGNORECASE)


class Fraction(float):
    """A number that may be written as a fraction and remembers how: ``Fraction("8/255")``.

    Raises:
        ValueError: the text is neither a number nor one number divided by another.
    """

    text: str

    def __new__(cls, value: str | float) -> Fraction:
        text = str(value).strip()
        parts = text.split("/")
        try:
            number = float(parts[0]) / float(parts[1]) if len(parts) == 2 else float(text)
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"{text!r} is not a number: write 0.03 or 8/255") from None
        self = super().__new__(cls, number)
        self.text = text
        return self

    def __reduce__(self) -> tuple[type[Fraction], tuple[str]]:  # copies keep the text
        return Fraction, (self.text,)

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__


def scale_radius(eps: Fraction | float | int, factor: float | int) -> Fraction | float | int:
    """A radius times a factor; a factor of 1 leaves it as it was written.

    Raises:
        ValueError: the factor is not a number above 0.
    """
    if not 0 < factor < math.inf:
        raise ValueError(f"eps_factor is {factor}: it must be a number above 0, such as 1.1")
    return eps if factor == 1 else Fraction(f"{float(eps) * factor:.12g}")


def format_radius(eps: float) -> str:
    """A radius as people write it: 8/255 where that is shorter than its decimals."""
    plain, parts = f"{eps:.4g}", eps * 255
    if len(plain) > 4 and 0 < round(parts) < 256 and abs(parts - round(parts)) < 1e-4:
        return f"{round(parts)}/255"
    return plain


def parse_duration(text: str) -> float:
    """A duration such as 90s, 5m or 1h30m, in seconds.

    Raises:
        ValueError: it is written in another way, or is none.
    """
    match = _DURATION.fullmatch(text.strip())
    given = match.groups() if match else ()
    total = sum(float(part) * unit for part, unit in zip(given, DURATION_UNITS.values(), strict=False) if part)
    if not total:
        raise ValueError(f"{text!r} is not a duration: write one such as 90s, 5m or 1h30m")
    return total


def format_duration(seconds: float) -> str:
    """A duration in seconds as ``parse_duration`` reads it, rounded up to whole seconds."""
    whole = int(-(-seconds // 1))
    parts = {"h": whole // 3600, "m": whole % 3600 // 60, "s": whole % 60}
    return "".join(f"{count}{unit}" for unit, count in parts.items() if count) or "0s"


def parse_size(text: str) -> int:
    """An amount such as 512MB, 2GB or 1.5GiB, in bytes.

    Raises:
        ValueError: it is written in another way, or is none.
    """
    match = _SIZE.fullmatch(text.strip())
    amount = int(ExactFraction(match[1]) * SIZE_UNITS[match[2].upper()]) if match else 0
    if not amount:
        raise ValueError(f"{text!r} is not an amount of memory: write one such as 512MB, 2GB or 1.5GiB")
    return amount


def format_size(amount: float | int) -> str:
    """An amount in bytes, to three digits, as ``parse_size`` reads it."""
    unit = next((unit for unit in ("TB", "GB", "MB") if amount >= 0.9995 * SIZE_UNITS[unit]), "KB")
    share = amount / SIZE_UNITS[unit]
    return f"{share:.0f}{unit}" if share >= 999.5 else f"{share:.3g}{unit}"

"""Amounts of memory as people write them, and how much of it there is."""

from __future__ import annotations

import os
import re
from fractions import Fraction
from pathlib import Path

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
# ASCII, as other letters are an I or a K, too, where case is ignored
_FORM = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*([KMGT]I?B)", re.ASCII | re.IGNORECASE)
_CONTAINER = Path("/sys/fs/cgroup/memory.max")


def number(text: str) -> int:
    """An amount such as 512MB, 2GB or 1.5GiB, in bytes.

    Raises:
        ValueError: it is written in another way, or is none.
    """
    match = _FORM.fullmatch(text.strip())
    amount = int(Fraction(match[1]) * UNITS[match[2].upper()]) if match else 0
    if not amount:
        raise ValueError(f"{text!r} is not an amount of memory: write one such as 512MB, 2GB or 1.5GiB")
    return amount


def spell(amount: float | int) -> str:
    """An amount in bytes, to three digits, as ``number`` reads it."""
    unit = next((unit for unit in ("TB", "GB", "MB") if amount >= 0.9995 * UNITS[unit]), "KB")
    share = amount / UNITS[unit]
    return f"{share:.0f}{unit}" if share >= 999.5 else f"{share:.3g}{unit}"


def available() -> int:
    """Bytes that programs may still take, as the system says, and no more than a container's limit."""
    free = _meminfo("MemAvailable")
    if free is None and hasattr(os, "sysconf"):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = 2**63 - 1 if free is None else free
    try:
        return min(free, int(_CONTAINER.read_text()))
    except (OSError, ValueError):  # no container, or one without a limit
        return free


def _meminfo(name: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(name)), None)

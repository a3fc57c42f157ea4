"""How much memory there is."""

from __future__ import annotations

import os
from pathlib import Path

_CONTAINER = Path("/sys/fs/cgroup/memory.max")


def available_memory() -> int:
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

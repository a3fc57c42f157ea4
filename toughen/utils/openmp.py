"""The cores that this process may use, and how OpenMP, which runs PyTorch's operations on them, waits."""

from __future__ import annotations

import os
from collections.abc import Collection

SPIN_COUNT = "10000"
CONFIGURING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def limit_spinning() -> None:
    """Let threads that wait for others free their cores soon, unless the environment says how they wait.

    An operation ends when all threads have done their parts. Those that are done first wait in a loop: by default of
    GNU OpenMP, which PyTorch has on Linux, 300,000 times round it. Where another program needs a core, the loops take
    the time from the thread that they wait for, and training gets ten or more times slower.

    Works before PyTorch is imported; this process and those that it starts have the setting.
    """
    if not any(name in os.environ for name in CONFIGURING):
        os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT


def usable_cores() -> Collection[int]:
    """The numbers of the cores that this process may use; where the system does not say, of all."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)

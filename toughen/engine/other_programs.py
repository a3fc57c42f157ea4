"""How many of the cores other programs use, which makes training on all cores slow."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from toughen.utils.openmp import usable_cores

STAT = Path("/proc/stat")
WORKING = (1, 2, 3, 6, 7)  # fields of a core's line: user, nice, system, irq, softirq; not idle, iowait and steal
LEAST = 10  # seconds between two readings, so that a short load does not count
TOLERANCE = 0.5  # cores


@dataclass(frozen=True)
class Reading:
    """Seconds so far: on the clock, of work on the usable cores, and of this process's own work."""

    clock: float
    work: float
    own: float


class OtherPrograms:
    """Observes what other processes, also those that this one started, use of the cores that this process may use."""

    def __init__(self) -> None:
        self.last = read()

    def advice(self) -> str:
        """Advice where others needed the cores since the last call; "" where not, or where that is not known."""
        now, last = read(), self.last
        if now is None or last is None or now.clock - last.clock < LEAST:
            return ""
        self.last = now
        return advice(used_by_others(last, now), torch.get_num_threads(), len(usable_cores()))


def used_by_others(first: Reading, second: Reading) -> float:
    """The mean number of cores that others used between two readings."""
    return max(0.0, (second.work - first.work - (second.own - first.own)) / (second.clock - first.clock))


def advice(others: float, threads: int, cores: int) -> str:
    """What to do where threads of this process wait for cores.

    Args:
        others: how many cores others use.
        threads: how many threads this process computes on.
        cores: how many cores it may use.
    """
    if threads < 2 or others + threads <= cores + TOLERANCE:
        return ""
    fewer = max(1, min(threads - 1, round(cores - others)))
    return (
        f"other processes use {others:.1f} of {cores} cores, and threads wait for each other, which can make training "
        f"many times slower: end them, or stop and continue with OMP_NUM_THREADS={fewer} and --resume"
    )


def read() -> Reading | None:
    """The present reading; None where the system does not give it."""
    try:
        seconds = work(STAT.read_text(encoding="ascii"), usable_cores()) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
    return Reading(time.monotonic(), seconds, time.process_time())


def work(stat: str, cores: Collection[int]) -> int:
    """The work of some cores so far, in clock ticks, from the content of /proc/stat (proc_stat(5))."""
    lines = (line.split() for line in stat.splitlines() if line.startswith("cpu"))
    return sum(int(line[field]) for line in lines if line[0][3:].isdigit() and int(line[0][3:]) in cores
               for field in WORKING)  # fmt: skip

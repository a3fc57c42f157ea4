"""Time functions alternately in one process: medians and spread, in seconds and relative to a unit."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

WARM = 2  # rounds that are not counted


def clock(run: Callable[[], object], device: str) -> float:
    """Seconds of one call."""
    wait(device)
    started = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - started


def wait(device: str) -> None:
    """Wait until a GPU has finished its work."""
    if device != "cpu":
        torch.cuda.synchronize()


def take_turns(
    runs: Mapping[str, Callable[[], object]], device: str, rounds: int, steps: int = 1
) -> dict[str, list[float]]:
    """Seconds of a call in each round; other work on the machine affects all functions of a round alike.

    Args:
        runs: the functions.
        device: where they run.
        rounds: how many are counted, after ``WARM`` warm-up rounds.
        steps: calls of each in a round; their mean counts, because the steps of some methods alternate.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for number in range(rounds + WARM):
        first = number % len(names)  # the order rotates, so that the predecessor changes
        for name in names[first:] + names[:first]:
            taken = [clock(runs[name], device) for _ in range(steps)]
            if number >= WARM:
                seconds[name].append(statistics.fmean(taken))
    return seconds


def figures(taken: list[float], unit: list[float]) -> dict[str, float]:
    """Median and spread, in seconds and in units of the same round."""
    units = [own / other for own, other in zip(taken, unit, strict=True)]
    return {
        "seconds": statistics.median(taken),
        "fastest": min(taken),
        "slowest": max(taken),
        "units": statistics.median(units),
        "units_lowest": min(units),
        "units_highest": max(units),
    }


def ratio(a: list[float], b: list[float]) -> list[float]:
    """Median, lowest and highest of a round's ratios."""
    ratios = [one / other for one, other in zip(a, b, strict=True)]
    return [statistics.median(ratios), min(ratios), max(ratios)]

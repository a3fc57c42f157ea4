"""Run the property tests with random input for a given time: ``python tools/fuzz.py --minutes 10 --seed 0``.

All properties of ``tests/*/test_*_properties.py`` take turns, each round with the next seed, until the time is over.
Prints a line for each: inputs tried, seconds, and the seeds under which it failed, with the smallest failing input.
``--only WORD`` takes those with this word in their names. ``--seed N --rounds 1`` shows a failure again by its seed.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from itertools import count
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TIMES = 5  # as many inputs in a round as the suite tries


@dataclass
class Tried:
    """The result of one property.

    Attributes:
        inputs: how many were tried.
        seconds: what that took.
        failures: by seed, what was wrong.
    """

    inputs: int = 0
    seconds: float = 0.0
    failures: dict[int, str] = field(default_factory=dict)


def properties(word: str) -> dict[str, Any]:
    """All properties that have this word in their names, with shapes and types checked as in the suite."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    from jaxtyping import install_import_hook

    with install_import_hook("toughen", "beartype.beartype"):
        for path in sorted((ROOT / "tests").glob("*/test_*_properties.py")):
            sys.path.insert(0, str(path.parent))
            importlib.import_module(path.stem)
    return {name: each for name, each in importlib.import_module("properties").PROPERTIES.items() if word in name}


def explore(each: Any, seed: int, tried: Tried) -> None:
    """Try a property with the inputs of a seed; a failure is kept, not raised."""
    import hypothesis
    from properties import SETTINGS

    @wraps(each.test)
    def counted(**given: Any) -> None:
        tried.inputs += 1
        each.test(**given)

    test: Callable[[], None] = hypothesis.given(**each.given)(counted)
    test = hypothesis.seed(seed)(hypothesis.settings(SETTINGS, max_examples=TIMES * each.examples)(test))
    started = time.monotonic()
    try:
        test()
    except Exception as error:  # whatever is wrong, the others go on
        several = error.exceptions if isinstance(error, ExceptionGroup) else (error,)
        tried.failures[seed] = "".join(line for each in several for line in traceback.format_exception_only(each))
    tried.seconds += time.monotonic() - started


def table(results: dict[str, Tried], first: int) -> str:
    """The results of all properties, as Markdown."""
    lines = ["| property | inputs | seconds | failed under seeds |", "|---|---:|---:|---|"]
    for name, tried in results.items():
        failed = ", ".join(map(str, tried.failures)) or "none"
        lines.append(
            f"| {name.replace('.test_', ': ').replace('_', ' ')} | {tried.inputs:,} | {tried.seconds:.0f} | {failed} |"
        )
    inputs, failures = (
        sum(each.inputs for each in results.values()),
        sum(len(each.failures) for each in results.values()),
    )
    return "\n".join([*lines, "", f"{inputs:,} inputs, {failures} failures; the first seed is {first}"])


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    parser.add_argument("--rounds", type=int, help="at most so many")
    parser.add_argument("--only", default="", metavar="WORD")
    given = parser.parse_args(words)
    chosen = properties(given.only)
    if not chosen:
        parser.error(f"no property has {given.only!r} in its name")
    warnings.simplefilter("error")  # as in the suite
    results = {name: Tried() for name in chosen}
    ends, done = time.monotonic() + 60 * given.minutes, 0
    for seed in count(given.seed):
        for name, each in chosen.items():
            if time.monotonic() < ends:
                explore(each, seed, results[name])
        done += 1
        if time.monotonic() >= ends or done == given.rounds:
            break
    print(table(results, given.seed))
    print(f"seeds {given.seed} to {given.seed + done - 1}, the last round perhaps in part")
    for name, tried in results.items():
        for seed, text in tried.failures.items():
            print(f"\n{name}, seed {seed}:\n{text}")
    return int(any(tried.failures for tried in results.values()))


if __name__ == "__main__":
    sys.exit(main())

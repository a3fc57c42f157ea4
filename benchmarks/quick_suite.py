"""How long `toughen evaluate RUN` takes with the quick suite's cheap checks, and with the same checks in full.

python benchmarks/quick_suite.py RUN [--limit N] [--rounds 3]

Both are the command as a user gives it, each in a new process, in turns. "cheap" is the quick suite, whose checks cost
no more than its attacks or 20 seconds. "whole" names the same attacks, which cuts nothing. Seconds are of the whole
command: imports, images and net, attacks, checks. Writes benchmarks/results/quick-suite.json, a line for each run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch
from turns import clock

from toughen.engine.device import provenance
from toughen.evaluation.suite import QUICK_IMAGES, SUITES
from toughen.runs.files import read_json, write_json

OUT = Path(__file__).parent / "results" / "quick-suite.json"
WORDS = {"cheap": ["--suite", "quick"], "whole": ["--attacks", *SUITES["quick"]]}
SAME = ("clean_accuracy", "robust_accuracy", "attacks", "verdict")


def evaluated(run: Path, words: list[str], limit: int) -> tuple[float, dict[str, Any]]:
    """Seconds of one command, and what it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "toughen", "evaluate", str(run), "--limit", str(limit), "--out", folder]
        seconds = clock(lambda: subprocess.run([*command, "--details", "false", *words], check=True), "cpu")
        return seconds, read_json(Path(folder) / "evaluation.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run directory")
    parser.add_argument("--limit", type=int, default=QUICK_IMAGES, help="a balanced sample of so many images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, default=OUT)
    known = parser.parse_args()
    taken: dict[str, list[float]] = {name: [] for name in WORDS}
    results: dict[str, dict[str, Any]] = {}
    for _ in range(known.rounds):
        for name, words in WORDS.items():
            seconds, results[name] = evaluated(known.run, words, known.limit)
            taken[name].append(seconds)
    file: dict[str, Any] = read_json(known.write) if known.write.exists() else {}
    file[known.run.name] = {
        "model": read_json(known.run / "model.json"),
        "images": known.limit,
        "seconds": {name: {"median": median(each), "each": each} for name, each in taken.items()},
        "results": {name: {key: result[key] for key in SAME} for name, result in results.items()},
        "checks": {name: [check["passed"] for check in result["checks"]] for name, result in results.items()},
        "about": provenance(torch.device("cpu")),
    }
    write_json(known.write, file)
    for name, each in taken.items():
        spread = f"{min(each):.0f} to {max(each):.0f}"
        print(f"{name}: {median(each):.0f} s ({spread}), verdict {results[name]['verdict']}")


if __name__ == "__main__":
    main()

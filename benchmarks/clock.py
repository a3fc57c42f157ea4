"""Seconds of a training step of every method in the table of methods, interleaved on an otherwise idle machine.

python benchmarks/clock.py --data DIR [--write benchmarks/results/methods-mnist-clock.json]

Each round takes some steps of every method in turn, so that other work on the machine affects all of them alike. A step
is everything from the batch to the optimizer. The plain training step of the same round is the baseline of the ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from methods import BASE, EPS, NATURAL, ROWS, SOURCES
from trainers import endless, ready

from toughen.engine.device import provenance
from toughen.runs.files import write_json
from toughen.training.trainer import Trainer

ROUNDS, STEPS = 7, 8
MIXED = ("DAT",)  # a mixture of two other rows' steps
MORE = {"PAP replay": "--method PAP --method.lam 0.5 --method.steps 10 --method.schedule replay"}  # a step of its cycle


def prepared(row: str, data: str, sources: Path) -> Trainer:
    """A trainer of a row of the table, as at the start of its run."""
    names = ",".join(f'"{sources / name}"' for name in SOURCES)
    words = {**ROWS, **MORE}[row].replace("{sources}", f"[{names}]").split()
    eps = [] if row in NATURAL else ["--eps", EPS]
    return ready([*BASE.split(), *words, *eps, "--data", data, "--watch", "off"])


def measure(trainers: dict[str, Trainer]) -> dict[str, list[list[float]]]:
    """Seconds of each step, by row and round; the first round is a warm-up and is not counted."""
    batches = {row: endless(trainer) for row, trainer in trainers.items()}
    seconds: dict[str, list[list[float]]] = {row: [] for row in trainers}
    for number in range(ROUNDS + 1):
        for row, trainer in trainers.items():
            taken = []
            for _ in range(STEPS):
                started = time.perf_counter()
                trainer.step(*next(batches[row]))
                taken.append(time.perf_counter() - started)
                trainer.state.step += 1
            if number:
                seconds[row].append(taken)
        print(f"round {number} of {ROUNDS}", flush=True)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--sources", type=Path, default=Path("runs/methods/sources"), help="EAT's trained sources")
    parser.add_argument("--write", type=Path, default=Path("benchmarks/results/methods-mnist-clock.json"))
    known = parser.parse_args()
    trainers = {row: prepared(row, known.data, known.sources) for row in (*ROWS, *MORE) if row not in MIXED}
    seconds = measure(trainers)
    base = [statistics.median(taken) for taken in seconds["Standard"]]
    rows: dict[str, Any] = {}
    for row, rounds in seconds.items():
        medians = [statistics.median(taken) for taken in rounds]
        ratios = [median / other for median, other in zip(medians, base, strict=True)]
        rows[row] = {
            "seconds_per_step": statistics.median(medians),
            "spread": [min(medians), max(medians)],
            "seconds_per_epoch": statistics.median(medians) * trainers[row].state.steps_per_epoch,
            "times_standard": statistics.median(ratios),
            "times_standard_spread": [min(ratios), max(ratios)],
        }
        print(
            f"{row:12s} {1000 * rows[row]['seconds_per_step']:8.1f} ms  {rows[row]['times_standard']:6.2f} x Standard"
        )
    about = {"base": BASE, "eps": EPS, "rounds": ROUNDS, "steps": STEPS, "provenance": provenance(torch.device("cpu"))}
    write_json(known.write, {**about, "rows": rows})


if __name__ == "__main__":
    main()

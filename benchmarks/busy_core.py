"""Training steps on two cores, alone and beside a program that keeps one of them busy.

python benchmarks/busy_core.py [--rounds 5]

Compares GNU OpenMP's default, the setting of the command line (toughen/utils/openmp.py), and one thread. Each
measurement is a process of its own, as the setting is read when PyTorch is imported; the settings take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import torch
from trainers import endless, ready

from toughen.engine.device import provenance
from toughen.runs.files import write_json
from toughen.utils.openmp import CONFIGURING, SPIN_COUNT

SETTINGS = {"default": {}, "toughen": {"GOMP_SPINCOUNT": SPIN_COUNT}, "one thread": {"OMP_NUM_THREADS": "1"}}
NETS = {
    "small net": "--model fbf-mnist-cnn",
    "efgsm-cnn": "--model efgsm-cnn",
    "ResNet-18": "--model resnet18 --model_settings.width 16",
}
WORDS = "--method PGDAT --method.steps 2 --data mnist-5k --eps 0.3 --batch_size 64"
SECONDS = 3  # of steps of each net in a process
WARM = 2  # steps that are not counted


def seconds_per_step(net: str) -> float:
    """The mean time of a step, of at least one."""
    trainer = ready(f"{WORDS} {NETS[net]}".split())
    batches = endless(trainer)
    for _ in range(WARM):
        trainer.step(*next(batches))
    started, steps = time.perf_counter(), 0
    while not steps or time.perf_counter() - started < SECONDS:
        trainer.step(*next(batches))
        steps += 1
    return (time.perf_counter() - started) / steps


def in_a_process(setting: dict[str, str]) -> dict[str, float]:
    """The times of all nets with this setting."""
    given = {name: value for name, value in os.environ.items() if name not in (*CONFIGURING, "OMP_NUM_THREADS")}
    command = [sys.executable, __file__, "--inside"]
    ended = subprocess.run(command, env=given | setting, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(ended.stdout)
    return found


@contextmanager
def busy_core(busy: bool) -> Iterator[None]:
    """Within the block another session, as of another program, keeps one core busy."""
    if not busy:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", type=Path, default=Path(__file__).parent / "results" / "busy-core.json")
    parser.add_argument("--inside", action="store_true", help="measure in this process and print the times")
    known = parser.parse_args()
    if known.inside:
        print(json.dumps({net: seconds_per_step(net) for net in NETS}))
        return
    taken: dict[tuple[str, str, str], list[float]] = {}
    for _, (place, busy), name in product(range(known.rounds), (("alone", False), ("busy", True)), SETTINGS):
        with busy_core(busy):
            for net, seconds in in_a_process(SETTINGS[name]).items():
                taken.setdefault((net, place, name), []).append(seconds)
    rows: list[dict[str, Any]] = []  # a row for each net and place
    for net, place in product(NETS, ("alone", "busy")):
        times = {name: taken[net, place, name] for name in SETTINGS}
        row: dict[str, Any] = {"net": net, "place": place, "seconds": times}
        for name in list(SETTINGS)[1:]:
            ratios = sorted(theirs / ours for theirs, ours in zip(times["default"], times[name], strict=True))
            row[f"{name}: times as fast"] = [statistics.median(ratios), ratios[0], ratios[-1]]
        rows.append(row)
        medians = (f"{1000 * statistics.median(each):.1f} ms {name}" for name, each in times.items())
        print(f"{net}, {place}: {', '.join(medians)}")
    write_json(known.write, {"words": WORDS, "rows": rows, "provenance": provenance(torch.device("cpu"))})


if __name__ == "__main__":
    main()

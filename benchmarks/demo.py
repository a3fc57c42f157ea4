"""Accuracies of the robust model of `toughen demo` over seeds and CPU kernels.

python benchmarks/demo.py [--minutes 30]
python benchmarks/demo.py --without-parts --write benchmarks/results/demo-parts.json

Each run is `toughen train demo --seed S`, then the demo's own evaluation, with the processor's kernels and with those
of one that has AVX2 alone. Runs that are done are not done again; the file is written after each. Seconds are those of
the training's epochs and of what comes at their ends; they mean something where nothing else runs. With
--without-parts the recipe's parts are left out one at a time, over three seeds with the processor's own kernels.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from pathlib import Path
from statistics import median
from typing import Any

from time_limit import KERNELS, OutOfTime, TimeLimit, environment

from toughen.cli.demo import ATTACKS, EPS
from toughen.runs.files import read_json, write_json

SEEDS = range(5)
PARTS = {  # of the recipe -> what leaves it out
    "start as large as eps": "--method.start_size 0.15",
    "nuclear norm in every batch": "--method.alternate true",
    "averaged weights": "--averaging null",
    "shifts": "--crop 0",
}


def figures(folder: Path) -> dict[str, Any]:
    """The figures of a run."""
    found = read_json(folder / "evaluation.json")
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    fgsm = found["attacks"]["fgsm"]["robust_accuracy"]
    return {
        "clean": found["clean_accuracy"],
        "fgsm": fgsm,
        "robust": found["robust_accuracy"],
        "gap": fgsm - found["robust_accuracy"],
        "verdict": found["verdict"],
        "seconds": sum(epoch["seconds"] + epoch["validation_seconds"] for epoch in epochs),
        "events": [event["text"] for epoch in epochs for event in epoch["events"]],
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "provenance": read_json(folder / "provenance.json"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demos"), help="where the runs go")
    parser.add_argument("--write", type=Path, default=Path("benchmarks/results/demo.json"))
    parser.add_argument("--without-parts", action="store_true", help="leave out each part of the recipe")
    parser.add_argument("--kernels", nargs="+", choices=list(KERNELS), default=list(KERNELS), help="default: all")
    parser.add_argument("--minutes", type=float, help="end within this time; what is under way is gone on with")
    known = parser.parse_args()
    time_limit = TimeLimit(known.minutes)
    found: dict[str, Any] = read_json(known.write) if known.write.exists() else {}
    runs = [(f"seed-{seed} {kernels}", seed, kernels, "") for seed, kernels in itertools.product(SEEDS, known.kernels)]
    if known.without_parts:
        runs = [
            (f"without {part}, seed-{seed}", seed, "native", more) for part, more in PARTS.items() for seed in SEEDS[:3]
        ]
    for name, seed, kernels, more in runs:
        if name in found:
            continue
        folder = known.out / name.replace(" ", "-").replace(",", "")
        try:
            with environment(KERNELS[kernels]):
                time_limit.toughen(
                    "train", "demo", "--seed", str(seed), *more.split(), "--out", str(folder), "--resume"
                )
                time_limit.toughen("evaluate", str(folder), "--eps", str(EPS), "--attacks", *ATTACKS)
        except OutOfTime:
            break
        found[name] = figures(folder)
        known.write.parent.mkdir(parents=True, exist_ok=True)
        write_json(known.write, found)
    for name, values in found.items():
        print(name, *(f"{key} {100 * values[key]:.1f} %" for key in ("clean", "fgsm", "robust")), values["verdict"])
    if robust := [values["robust"] for values in found.values()]:
        print(f"robust: median {100 * median(robust):.1f} %, {100 * min(robust):.1f} to {100 * max(robust):.1f} %")


if __name__ == "__main__":
    main()

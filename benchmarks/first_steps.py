"""The first steps of a recipe: is the loss falling, how many passes does a step make, how long does it take?

python benchmarks/first_steps.py nuat-cifar10 --data DIR --steps 300 [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from toughen.cli import parse_train
from toughen.device import provenance
from toughen.files import write_json
from toughen.passes import Passes
from toughen.training.run import build

WINDOW = 50  # steps that a printed loss is the mean of


def first_steps(arguments: list[str], steps: int) -> dict[str, Any]:
    """Train for some steps of the whole plan, without a run directory, and measure."""
    recipe, _, _, _ = parse_train(arguments)
    trainer, _ = build(recipe, Path("."))
    trainer.model.train()
    losses, seconds, passes = [], [], set()
    for x, y, batch in islice(trainer.epoch_batches(0), steps):
        started = time.perf_counter()
        with Passes(trainer.model, trainer.method.companions(), trainer.image, trainer.costs) as counted:
            step = trainer.step(x, y, batch)
        losses.append(float(step.loss.detach()))  # waits for the device
        seconds.append(time.perf_counter() - started)
        passes.add(counted.total / len(y))
        trainer.state.step += 1
        if len(losses) % WINDOW == 0:
            print(f"step {len(losses):4d}  loss {statistics.fmean(losses[-WINDOW:]):.4f}", flush=True)
    return {
        "command": arguments,
        "steps": len(losses),
        "loss_by_50_steps": [round(statistics.fmean(losses[i : i + WINDOW]), 4) for i in range(0, steps, WINDOW)],
        "passes_per_image": sorted(passes),
        "seconds_per_step": {
            "median": statistics.median(seconds),
            "quartiles": statistics.quantiles(seconds, n=4)[::2],
        },
        "precision": trainer.precision,
        "seed": recipe.seed,
        "provenance": provenance(trainer.device),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--json", type=Path)
    known, rest = parser.parse_known_args()
    found = first_steps([known.recipe, *rest], known.steps)
    print(json.dumps({name: found[name] for name in ("passes_per_image", "seconds_per_step")}, indent=1))
    if known.json:
        write_json(known.json, found)


if __name__ == "__main__":
    torch.backends.cudnn.benchmark = True
    main()

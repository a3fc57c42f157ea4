"""`toughen demo`: a standard and a robust classifier on the embedded images, both attacked, in one table."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

from toughen import cli, listing
from toughen.evaluation import evaluate_run
from toughen.training.run import train

ATTACKS = ("fgsm", "pgd-100x5@0.01")
STANDARD = (
    "standard-mnist --data mnist-5k --model fbf-mnist-cnn --epochs 20 --batch_size 64 --optimizer.lr 0.05 "
    "--crop 2 --validation 400 --precision fp32"
)
RUNS = {"standard": STANDARD.split(), "robust": ["demo"]}


def demo(out: Path) -> int:
    """Train both (or go on with them), evaluate both at eps 0.3, and print what came out."""
    console, progress = Console(), Console(stderr=True)
    started = time.perf_counter()
    for name, arguments in RUNS.items():
        progress.print(f"\n$ toughen train {' '.join(arguments)} --out {out / name}", highlight=False, soft_wrap=True)
        recipe, config, _, _ = cli.parse_train(arguments)
        train(recipe, out / name, config=config, resume=True)
    for name in RUNS:
        command = f"toughen evaluate {out / name} --eps 0.3 --attacks {' '.join(ATTACKS)}"
        progress.print(f"\n$ {command}", highlight=False, soft_wrap=True)
        evaluate_run(out / name, eps=0.3, attacks=ATTACKS, console=progress)
    console.print()
    listing.print_comparison(console, [out / name for name in RUNS])
    seconds = time.perf_counter() - started
    console.print(f"\n{seconds:.0f} seconds in all. Each folder holds weights, metrics, results.", highlight=False)
    for name in RUNS:
        console.print(f"  {out / name}", highlight=False)
    return 0

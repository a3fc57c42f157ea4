"""How the cost of a training step grows: with the batch, the image, the classes, the data set, and the processes.

python benchmarks/scaling.py                                        every axis but the processes
python benchmarks/scaling.py --axes batch size --method "--method PGDAT" --device cuda
python benchmarks/scaling.py --axes processes --processes 1 2       launches torchrun

The points of an axis take turns in one process, on images made up for them, so that only one thing changes; what is
compared is a step, from the batch to the optimizer. The number of images must not matter at all. Processes are
runs of their own, launched in turns by torchrun on a small data set, all with the same global batch; their figure is
seconds_per_step of the last epoch in metrics.jsonl. The file is written after each axis; one that is there already is
left out.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from trainers import endless, made_up, ready
from turns import WARM, ratio, take_turns

from toughen.engine.device import provenance
from toughen.engine.memory import keep_freed_memory
from toughen.runs.files import read_json, write_json
from toughen.training.trainer import Trainer

BASE = "--eps 8/255 --watch off --validation 0 --epochs 1000 --optimizer.lr 0.01 --averaging null"
FIXED = {"batch": 64, "size": 32, "classes": 10, "images": 2000}  # what does not change on the other axes
POINTS = {
    "batch": [16, 32, 64, 128, 256],
    "size": [16, 32, 64],
    "classes": [10, 100, 1000],
    "images": [1000, 10_000, 50_000],
}
SMOKE = {"batch": [4, 8], "size": [16, 24], "classes": [2, 10], "images": [100, 200]}
MEANS = {"batch": "images in a batch", "size": "pixels a side", "classes": "classes", "images": "training images"}
MEANS["processes"] = "processes"


def trainer_at(axis: str, point: int, arguments: argparse.Namespace) -> Trainer:
    """A trainer that differs from the other points of its axis only in this quantity."""
    at = {**FIXED, **({"batch": 8, "size": 16} if arguments.smoke else {}), axis: point}
    data = made_up(max(at["images"], 2 * at["batch"], at["classes"]), at["size"], at["classes"])
    words = [*BASE.split(), *shlex.split(arguments.method), "--model", arguments.model, "--data", data.name]
    words += ["--batch_size", str(at["batch"]), "--precision", arguments.precision, "--device", arguments.device]
    return ready(words, data)


def stepping(trainer: Trainer) -> Callable[[], None]:
    """A function that makes a batch and a training step."""
    batches = endless(trainer)

    def run() -> None:
        trainer.step(*next(batches))
        trainer.state.step += 1

    return run


def axis(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Time the points of one axis alternately."""
    points = (SMOKE if arguments.smoke else POINTS)[name]
    trainers = {str(point): trainer_at(name, point, arguments) for point in points}
    runs = {point: stepping(trainer) for point, trainer in trainers.items()}
    seconds = take_turns(runs, arguments.device, arguments.rounds, arguments.steps)
    first = str(points[0])
    return {
        point: {
            **spread(taken),
            "times_first": ratio(taken, seconds[first]),
            "forward_operations": trainers[point].forward_flops * trainers[point].recipe.batch_size,
            "seconds_per_image": statistics.median(taken) / trainers[point].recipe.batch_size,
        }
        for point, taken in seconds.items()
    }


def spread(taken: list[float]) -> dict[str, float]:
    return {"seconds": statistics.median(taken), "fastest": min(taken), "slowest": max(taken)}


def processes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs with so many processes each, in turns; the first round warms up the file cache."""
    seconds: dict[int, list[float]] = {count: [] for count in arguments.processes}
    rounds = 1 if arguments.smoke else arguments.launches
    for number in range(rounds + (0 if arguments.smoke else 1)):
        for count in arguments.processes:
            taken = launched(count, arguments)
            if number or arguments.smoke:
                seconds[count].append(taken)
            print(f"{count} processes: {1000 * taken:.1f} ms a step", flush=True)
    first = seconds[arguments.processes[0]]
    return {
        str(count): {**spread(taken), "times_first": ratio(taken, first), "threads_each": threads(count)}
        for count, taken in seconds.items()
    }


def threads(count: int) -> int:
    """Threads of each of so many processes."""
    return max(1, int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)) // count)


def launched(count: int, arguments: argparse.Namespace) -> float:
    """Seconds of a step of a run with so many processes."""
    words = ["--eps", "0.1", "--watch", "off", "--model", arguments.model, "--epochs", "2"]
    words += [*shlex.split(arguments.method), "--data", arguments.data, "--batch_size", str(FIXED["batch"])]
    words += ["--precision", arguments.precision, "--device", arguments.device]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        subprocess.run(
            [*launcher, "-m", "toughen", "train", *words, "--out", str(out)],
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads(count))},
            stdout=subprocess.DEVNULL,
        )
        lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return float(json.loads(lines[-1])["seconds_per_step"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", nargs="+", default=list(POINTS), choices=[*POINTS, "processes"])
    parser.add_argument("--method", default="--method NuAT --method.lam 4", help="a method and its settings")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2, help="steps a round; methods that alternate need two")
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--launches", type=int, default=3, help="runs for each number of processes, after a first one")
    parser.add_argument("--data", default="mnist-5k", help="what the runs of processes train on")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it works")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "scaling.json")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    torch.backends.cudnn.benchmark = True
    about = {"method": arguments.method, "model": arguments.model, "fixed": FIXED, "rounds": arguments.rounds}
    about |= {"steps": arguments.steps, "warm_up_rounds": WARM, "launches": arguments.launches, "seed": 0}
    about |= {"data_of_processes": Path(arguments.data).name, **provenance(torch.device(arguments.device))}
    known = read_json(arguments.out) if arguments.out.exists() else {}
    for name in arguments.axes:
        key = f"{arguments.model}, {shlex.split(arguments.method)[1]}, {about['processor']}: {name}"
        if key in known:
            continue
        points = processes(arguments) if name == "processes" else axis(name, arguments)
        known[key] = {"axis": name, "what": MEANS[name], "points": points, "about": about}
        write_json(arguments.out, known)
        for point, line in points.items():
            print(f"{point:>7s} {MEANS[name]}: {1000 * line['seconds']:8.1f} ms a step, {line['times_first'][0]:.2f} x")


if __name__ == "__main__":
    main()

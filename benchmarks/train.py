"""Time to robustness: accuracy under attack against seconds of training, with equal settings for all methods.

python benchmarks/train.py --data DIR --epochs 30 --seeds 0 1 2
python benchmarks/train.py --data DIR --time-budget 10m --methods NuAT GAT PGDAT --device cuda --minutes 9

The same net, images, batch, optimizer, schedule and length for all; only the method differs, with ten steps where one
iterates. Each run is a normal run directory under --runs; its curve is what validation found after each epoch, on
held-out training images, against the seconds of training alone. The weights that a run keeps are then attacked on test
images. Seeds come in the outer loop, so that whatever else the machine does meets all methods. Stopped anywhere, by
Ctrl-C or by --minutes, the same command goes on; the file is written after each run.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
from pathlib import Path
from typing import Any

from step import METHODS
from time_limit import OutOfTime, TimeLimit, flags

from toughen.runs.files import read_json, write_json

BASE = (
    "--model resnet18 --batch_size 128 --optimizer SGD --optimizer.lr 0.1 --optimizer.momentum 0.9"
    " --optimizer.weight_decay 5e-4 --schedule Cyclic --schedule.peak 0.4 --watch warn"
)
SMOKE = "--model fbf-mnist-cnn --batch_size 100 --optimizer SGD --optimizer.lr 0.05 --schedule Cyclic --watch warn"
DEFAULT = ["Standard", "FBF", "NFGSM", "GAT", "NuAT", "PGDAT", "TRADES"]
TARGETS = [0.2, 0.3, 0.4, 0.45]  # accuracies under validation's PGD, to be reached


def place(method: str, seed: int, arguments: argparse.Namespace) -> Path:
    """The run directory."""
    return Path(arguments.runs) / f"{method.lower()}-{seed}"


def settings(method: str, arguments: argparse.Namespace) -> str:
    """The options of a method."""
    return " ".join([METHODS[method], *(words for name, words in arguments.flags if name == method)])


def train(method: str, seed: int, time_limit: TimeLimit, arguments: argparse.Namespace) -> None:
    """One run, or what is left of it, and its evaluation.

    Raises:
        OutOfTime: the time is up.
    """
    folder = place(method, seed, arguments)
    if (folder / "evaluation.json").exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    words = [*shlex.split(arguments.base), *shlex.split(settings(method, arguments))]
    words += [] if method == "Standard" else ["--eps", arguments.eps]
    length = {"time_budget": arguments.time_budget} if arguments.time_budget else {"epochs": arguments.epochs}
    words += flags({"data": arguments.data, "seed": seed, "device": arguments.device, **length, "out": folder})
    time_limit.toughen("train", "--averaging", "null", "--validation_every", "1", *words, "--resume")
    asked = flags({"data": arguments.data, "eps": arguments.eps, "device": arguments.device, "limit": arguments.limit})
    time_limit.toughen("evaluate", str(folder), *asked, "--verdict", "false", "--attacks", *arguments.attacks)


def figures(folder: Path) -> dict[str, Any] | None:
    """The figures of a run; None until it is complete."""
    if not (folder / "evaluation.json").exists():
        return None
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    found, seconds, curve = read_json(folder / "evaluation.json"), 0.0, []
    for epoch in epochs:
        seconds += epoch["seconds"]
        curve.append({"seconds": round(seconds, 3), "step": epoch["step"], **epoch["validation"]})
    return {
        "curve": curve,
        "seconds": round(seconds, 3),
        "seconds_per_step": statistics.median(epoch["seconds_per_step"] for epoch in epochs),
        "passes": sum(epoch["passes"] for epoch in epochs) / len(epochs),
        "epoch_kept": read_json(folder / "model.json")["epoch"],
        "clean": found["clean_accuracy"],
        "robust": found["robust_accuracy"],
        "attacks": {name: attack["robust_accuracy"] for name, attack in found["attacks"].items()},
        "images": found["images"],
        "events": [event["text"] for epoch in epochs for event in epoch["events"]],
        "provenance": read_json(folder / "provenance.json"),
    }


def reached(curve: list[dict[str, float]], target: float) -> float | None:
    """Seconds of training until PGD accuracy on held-out images first reached this value; None if it never did."""
    return next((point["seconds"] for point in curve if point.get("pgd", 0.0) >= target), None)


def middle(values: list[float]) -> list[float]:
    """Median, lowest and highest."""
    return [statistics.median(values), min(values), max(values)]


def summary(seeds: dict[str, dict[str, Any]], targets: list[float]) -> dict[str, Any]:
    """A method's figures over its seeds; a target counts as reached only where all seeds reach it."""
    found: dict[str, Any] = {
        name: middle([run[name] for run in seeds.values()]) for name in ("clean", "robust", "seconds")
    }
    times = {target: [reached(run["curve"], target) for run in seeds.values()] for target in targets}
    found["seconds_to"] = {
        str(target): middle([value for value in values if value is not None]) if None not in values else None
        for target, values in times.items()
    }
    return found


def collect(arguments: argparse.Namespace) -> dict[str, Any]:
    """The results of all runs that are complete."""
    methods: dict[str, Any] = {}
    for method in arguments.methods:
        seeds = {
            str(seed): found
            for seed in arguments.seeds
            if (found := figures(place(method, seed, arguments))) is not None
        }
        if seeds:
            methods[method] = {
                "settings": settings(method, arguments),
                "summary": summary(seeds, arguments.targets),
                "seeds": seeds,
            }
    about = {"base": arguments.base, "eps": arguments.eps, "data": Path(arguments.data).name}
    about |= {"epochs": arguments.epochs, "time_budget": arguments.time_budget, "targets": arguments.targets}
    return {"about": about, "methods": methods}


def draw(found: dict[str, Any], path: Path) -> None:
    """Plot the curves, a line for each method and seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5))
    axes = figure.add_subplot(xlabel="seconds of training", ylabel="accuracy under PGD on held-out images")
    for number, (method, row) in enumerate(found["methods"].items()):
        for seed, run in row["seeds"].items():
            points = [(point["seconds"], point["pgd"]) for point in run["curve"] if "pgd" in point]
            label = method if seed == next(iter(row["seeds"])) else None
            if points:
                axes.plot(*zip(*points, strict=True), color=f"C{number % 10}", label=label, marker=".")
    if axes.lines:
        axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", required=True)
    made.add_argument("--methods", nargs="+", default=DEFAULT, choices=[name for name in METHODS if name != "Ensemble"])
    made.add_argument("--seeds", nargs="+", type=int, default=[0])
    made.add_argument("--base", default=BASE, help="what all runs have in common, as flags of `toughen train`")
    made.add_argument(
        "--flags", nargs=2, action="append", default=[], metavar=("METHOD", "FLAGS"), help="more flags, of one method"
    )
    made.add_argument("--eps", default="8/255")
    made.add_argument("--epochs", type=int, default=30)
    made.add_argument("--time-budget", help="instead of epochs: as much training as fits into this for each method")
    made.add_argument("--attacks", nargs="+", default=["fgsm", "pgd-50", "apgd-t"])
    made.add_argument("--limit", type=int, help="test images that are attacked, a sample; all by default")
    made.add_argument("--targets", nargs="+", type=float, default=TARGETS, help="accuracies to be reached, 0..1")
    made.add_argument("--device", default="auto")
    made.add_argument("--minutes", type=float, help="stop after so many; the same command goes on")
    made.add_argument("--runs", type=Path, default=Path("runs/train"), help="where the runs lie")
    made.add_argument("--picture", type=Path, help="draw the curves into this file")
    made.add_argument("--smoke", action="store_true", help="a tiny net, to see that it works")
    made.add_argument("--write", type=Path, default=Path(__file__).parent / "results" / "train.json")
    return made


def main() -> None:
    arguments = parser().parse_args()
    if arguments.smoke:
        arguments.base = SMOKE
    arguments.write.parent.mkdir(parents=True, exist_ok=True)
    time_limit = TimeLimit(arguments.minutes)
    try:
        for seed in arguments.seeds:
            for method in arguments.methods:
                train(method, seed, time_limit, arguments)
                write_json(arguments.write, collect(arguments))
    except OutOfTime:
        print("the time is up: repeat the command to go on")
    found = collect(arguments)
    write_json(arguments.write, found)
    for method, row in found["methods"].items():
        (clean, *_), (robust, low, high), (seconds, *_) = (row["summary"][n] for n in ("clean", "robust", "seconds"))
        spread = f"[{100 * low:.1f}, {100 * high:.1f}]"
        print(f"{method:11s} {seconds:8.1f} s  clean {100 * clean:5.1f} %  robust {100 * robust:5.1f} % {spread}")
    if arguments.picture:
        draw(found, arguments.picture)


if __name__ == "__main__":
    main()

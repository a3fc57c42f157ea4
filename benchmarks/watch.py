"""Runs that collapse, without a watch, with one that only warns and with one that rescues.

python benchmarks/watch.py --fashion DIR              Fashion-MNIST, such as 6,000 of its images in class folders
python benchmarks/watch.py --fashion DIR --rows "NuAT, eps 0.3" --seeds 0 1

Each setting is trained by `toughen train` three times, with nothing else changed than --watch; the weights that a run
keeps are attacked on test images. The file is written after each run; what is there already, with the same settings, is
left out, and a run that was stopped goes on. `--watch warn` must end in the weights of `--watch off`, bit for bit.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from time_limit import OutOfTime, TimeLimit, flags

from toughen.runs import WEIGHTS
from toughen.runs.files import read_json, write_json

NET = "--model fbf-mnist-cnn --normalize false --validation_every 1"
LIVE, AVERAGED = "--averaging null", "--averaging 0.99"
ADAM = "--optimizer Adam --optimizer.lr 2e-3 --schedule Constant --batch_size 50"
SGD = "--optimizer SGD --optimizer.lr 0.1 --schedule Cyclic --schedule.peak 0.5 --batch_size 128"
FBF = "--optimizer Adam --optimizer.lr 5e-3 --schedule Cyclic --schedule.peak 0.4 --batch_size 100"  # as it is released
ROWS = {  # name -> (data, flags)
    "FGSM-AT, SGD, eps 0.3": ("fashion", f"--method FGSMAT --eps 0.3 --epochs 40 {SGD} {LIVE}"),
    "FGSM-AT, Adam, eps 0.3": ("fashion", f"--method FGSMAT --eps 0.3 --epochs 40 {ADAM} {LIVE}"),
    "FGSM-AT, Adam, eps 0.1": ("fashion", f"--method FGSMAT --eps 0.1 --epochs 30 {ADAM} {LIVE}"),
    "FBF, eps 0.3": ("fashion", f"--method FBF --method.step_size 0.375 --eps 0.3 --epochs 30 {FBF} {LIVE}"),
    "NuAT, eps 0.3": ("fashion", f"--method NuAT --eps 0.3 --epochs 30 {ADAM} {LIVE}"),
    "FGSM-AT, Adam, eps 0.3, digits": (
        "mnist-5k",
        f"--method FGSMAT --eps 0.3 --eps_warmup 0.1 --epochs 30 {ADAM} {LIVE}",
    ),
    "FGSM-AT, averaged, eps 0.1": ("fashion", f"--method FGSMAT --eps 0.1 --epochs 30 {ADAM} {AVERAGED}"),
}
MODES = ("off", "rescue", "warn")
ATTACKS = ["fgsm", "pgd-50x5"]
HERE = Path(__file__).parent


def run_of(row: str, mode: str, seed: int, arguments: argparse.Namespace) -> Path:
    """The run directory."""
    name = row.lower().replace(", ", "-").replace(" ", "-")
    return Path(arguments.runs) / f"{name}-{mode}-{seed}"


def train(row: str, mode: str, seed: int, time_limit: TimeLimit, arguments: argparse.Namespace) -> None:
    """One run, or what is left of it, and its evaluation.

    Raises:
        OutOfTime: the time is up.
    """
    folder, (name, words) = run_of(row, mode, seed, arguments), ROWS[row]
    folder.parent.mkdir(parents=True, exist_ok=True)
    data = arguments.fashion if name == "fashion" else name
    given = flags({"data": data, "watch": mode, "seed": seed, "out": folder})
    time_limit.toughen("train", *f"{NET} {words}".split(), *given, "--resume")
    if not (folder / "evaluation.json").exists():
        asked = flags({"data": data, "limit": arguments.limit})
        time_limit.toughen("evaluate", str(folder), *asked, "--verdict", "false", "--attacks", *ATTACKS)


def figures(folder: Path) -> dict[str, Any]:
    """The figures of a run."""
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    found = read_json(folder / "evaluation.json")
    return {
        "clean": found["clean_accuracy"],
        "fgsm": found["attacks"]["fgsm"]["robust_accuracy"],
        "robust": found["robust_accuracy"],
        "images": found["images"],
        "kept": read_json(folder / "model.json")["validation"],
        "epoch_kept": read_json(folder / "model.json")["epoch"],
        "last": epochs[-1]["validation"],
        "validation": [epoch["validation"] for epoch in epochs],
        "events": [event for epoch in epochs for event in epoch["events"]],
        "provenance": read_json(folder / "provenance.json"),
    }


def weights(row: str, mode: str, seed: int, arguments: argparse.Namespace) -> str:
    """A digest of the weights that a run kept."""
    return hashlib.sha256((run_of(row, mode, seed, arguments) / WEIGHTS).read_bytes()).hexdigest()


def show(rows: dict[str, dict[str, Any]]) -> None:
    """The table: accuracies on test images, without a watch and rescued."""
    table = Table("setting", "seed", "clean", "PGD", "rescued: clean", "PGD", "rescues", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows.values():
        if {"off", "rescue"} <= row["modes"].keys():
            off, rescued = row["modes"]["off"], row["modes"]["rescue"]
            shares = [f"{100 * run[key]:.1f}" for run in (off, rescued) for key in ("clean", "robust")]
            rescues = str(sum("rescue" in event for event in rescued["events"]))
            table.add_row(row["setting"], str(row["seed"]), *shares, rescues)
    Console(width=100).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion", required=True, metavar="DIR")
    parser.add_argument("--rows", nargs="+", metavar="NAME", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--limit", type=int, default=1000, help="test images that are attacked")
    parser.add_argument("--minutes", type=float, help="stop after so many; the same command goes on")
    parser.add_argument("--runs", type=Path, default=Path("runs/watch"), help="where the runs lie")
    parser.add_argument("--write", type=Path, default=HERE / "results" / "watch.json")
    arguments = parser.parse_args()
    rows = read_json(arguments.write) if arguments.write.exists() else {}
    time_limit = TimeLimit(arguments.minutes)
    try:
        for seed, mode, name in itertools.product(arguments.seeds, arguments.modes, arguments.rows):
            data, words = ROWS[name]
            about = {"setting": name, "data": data, "flags": f"{NET} {words}", "seed": seed}
            row = rows.setdefault(f"{name}, seed {seed}", {**about, "modes": {}})
            if {key: row[key] for key in about} != about:
                parser.error(f"{arguments.write} was made with other settings of {name}: remove it, or give another")
            if mode not in row["modes"]:
                train(name, mode, seed, time_limit, arguments)
                row["modes"][mode] = figures(run_of(name, mode, seed, arguments))
                row["modes"][mode]["weights"] = weights(name, mode, seed, arguments)
                write_json(arguments.write, rows)
            if len({row["modes"][each]["weights"] for each in ("off", "warn") if each in row["modes"]}) > 1:
                parser.error(f"{name}, seed {seed}: --watch warn ended in other weights than --watch off")
    except OutOfTime:
        print("the time is up: repeat the command to go on")
    show(rows)


if __name__ == "__main__":
    main()

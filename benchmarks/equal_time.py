"""Recipes trained for the same time on one core, then attacked with APGD-T.

python benchmarks/equal_time.py --data DIR [--hours 1] [--recipes nuat-wa-cifar10 nfgsm-cifar10] [--seeds 0 1 2]

The nets are narrow. First the steps of all recipes are timed in turns. From their times follow the epochs of each
recipe that fit into the hours, without validation. Averaged weights cover the same share of the run as in the recipe.
Each run is a normal run directory under --out. Stopped anywhere, by Ctrl-C or by --minutes, the same command goes on.
Two calls can run at once, with different seeds, once the first has timed the steps (times.json). Each writes all runs
that are complete. Without --out's folder the same command goes on from the file that --write names: its epochs hold,
and its runs are not done again.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from record import outcome
from time_limit import TimeLimit, environment, flags, until_out_of_time
from trainers import endless, ready
from turns import take_turns

from toughen.config.train import parse_train
from toughen.engine.device import provenance
from toughen.runs.files import read_json, sha256, write_json
from toughen.runs.locks import held

RECIPES = ("nuat-wa-cifar10", "gat-wa-cifar10", "liet-cifar10", "trades-wa-cifar10")
ATTACK = "apgd-t"
ROUNDS, STEPS = 5, 4


def net(width: int) -> list[str]:
    """The options that all runs have in common."""
    return ["--model_settings.width", str(width)]


def timed(recipes: Sequence[str], width: int, data: str) -> dict[str, Any]:
    """Seconds of an epoch of each recipe, on one core: the median of the rounds, the lowest and the highest."""
    torch.set_num_threads(1)
    runs, epochs = {}, {}
    for recipe in recipes:
        trainer = ready([recipe, *net(width), "--data", data, "--watch", "off"])
        batches = endless(trainer)

        def step(trainer: Any = trainer, batches: Any = batches) -> None:
            trainer.step(*next(batches))
            trainer.state.step += 1

        runs[recipe], epochs[recipe] = step, trainer.state.steps_per_epoch
    seconds = take_turns(runs, "cpu", ROUNDS, STEPS)
    return {
        recipe: {
            "seconds_per_epoch": round(statistics.median(taken) * epochs[recipe], 1),
            "spread": [round(edge * epochs[recipe], 1) for edge in (min(taken), max(taken))],
        }
        for recipe, taken in seconds.items()
    }


def length(recipe: str, data: str, budget: float, per_epoch: float) -> dict[str, Any]:
    """The epochs that fit into the budget, and the share of the averaged weights that each step keeps.

    Args:
        recipe: its name.
        data: the data set.
        budget: seconds of training.
        per_epoch: seconds of an epoch.
    """
    settings = parse_train([recipe, "--data", data])[0]
    epochs = max(1, int(budget / per_epoch))
    if settings.averaging is None:
        return {"epochs": epochs}
    # the average covers the same share of the run as in the recipe's own length
    return {"epochs": epochs, "averaging": round(1 - (1 - settings.averaging) * settings.epochs / epochs, 6)}


def place(out: Path, recipe: str, seed: int) -> Path:
    """The run directory."""
    return out / f"{recipe}-{seed}"


def run(recipe: str, seed: int, known: argparse.Namespace, per_epoch: float, time_limit: TimeLimit) -> None:
    """Train and attack; both are resumed if they were stopped.

    Raises:
        OutOfTime: the time is up.
    """
    folder = place(known.out, recipe, seed)
    words = [recipe, *net(known.width), *flags(length(recipe, known.data, 3600 * known.hours, per_epoch))]
    words += flags({"data": known.data, "seed": seed, "out": folder})
    time_limit.toughen("train", *words, "--resume")
    asked = flags({"data": known.data, "limit": known.limit, "attacks": ATTACK, "verdict": "false"})
    time_limit.toughen("evaluate", str(folder), *asked, "--details", "false")


def figures(folder: Path, limit: int) -> dict[str, Any] | None:
    """The figures of a run; None until it was attacked on this number of test images."""
    file = folder / "evaluation.json"
    if not file.exists() or read_json(file)["images"] != limit:
        return None
    return {
        **outcome(folder),  # seconds of training beside whatever ran
        "images": limit,
        "epoch_kept": read_json(folder / "model.json")["epoch"],
        "weights": sha256(folder / "model.safetensors"),
    }


def logged(known: argparse.Namespace) -> dict[str, Any]:
    """The file of results, with the times and runs so far; empty if there is none.

    Raises:
        ValueError: it is of other hours, of another width or attack, or of other images.
    """
    if not known.write.exists():
        return {}
    found: dict[str, Any] = read_json(known.write)
    asked = {"hours": known.hours, "width": known.width, "attack": ATTACK, "limit": known.limit}
    if others := [name for name, value in asked.items() if found[name] != value]:
        raise ValueError(f"{known.write} has other {', '.join(others)}: name another file with --write")
    return found


def collect(known: argparse.Namespace, times: dict[str, Any]) -> dict[str, Any]:
    """All runs that are complete, of these and of earlier calls."""
    before = logged(known).get("rows", {})
    rows = dict(before)
    for recipe, time in times["rows"].items():
        kept = length(recipe, known.data, 3600 * known.hours, time["seconds_per_epoch"])
        folders = sorted(known.out.glob(f"{recipe}-[0-9]*"))
        seeds = dict(before.get(recipe, {}).get("seeds", {}))
        seeds |= {each.name.rpartition("-")[2]: found for each in folders if (found := figures(each, known.limit))}
        rows[recipe] = {**time, **kept, "seeds": seeds}
        if seeds:
            robust = [float(line["robust"]) for line in seeds.values()]
            rows[recipe]["robust"] = [statistics.median(robust), min(robust), max(robust)]
    asked = {"hours": known.hours, "width": known.width, "attack": ATTACK, "limit": known.limit}
    return {**times, **asked, "rows": rows}


def step_times(known: argparse.Namespace, log: dict[str, Any]) -> dict[str, Any]:
    """The times of an epoch: of the earlier calls of this folder, else of the log, else measured now."""
    file = known.out / "times.json"
    if not file.exists() and log:
        kept = ("seconds_per_epoch", "spread")
        rows = {recipe: {name: row[name] for name in kept} for recipe, row in log["rows"].items()}
        write_json(file, {**{name: log[name] for name in ("rounds", "steps", "provenance")}, "rows": rows})
    elif not file.exists():
        rows = timed(known.recipes, known.width, known.data)
        write_json(
            file, {"rounds": ROUNDS, "steps": STEPS, "provenance": provenance(torch.device("cpu")), "rows": rows}
        )
    found: dict[str, Any] = read_json(file)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CIFAR-10: a folder of parquet shards, or a name of the hub")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--hours", type=float, default=1.0, help="of training, for each run")
    parser.add_argument("--width", type=int, default=16, help="channels of the net's first stage")
    parser.add_argument("--limit", type=int, default=1000, help="test images that are attacked")
    parser.add_argument("--minutes", type=float, help="stop within this time; a later call resumes")
    parser.add_argument("--out", type=Path, default=Path("runs/equal-time"), help="where the runs go")
    parser.add_argument("--write", type=Path, default=Path(__file__).parent / "results" / "equal-time-cifar10.json")
    known = parser.parse_args()
    known.out.mkdir(parents=True, exist_ok=True)
    time_limit = TimeLimit(known.minutes)
    try:
        log = logged(known)
    except ValueError as error:
        parser.error(str(error))
    times = step_times(known, log)
    if untimed := ", ".join(sorted(set(known.recipes) - times["rows"].keys())):
        parser.error(f"{untimed} was not timed beside the others: name all recipes, with another --out and --write")
    with until_out_of_time(), environment({"OMP_NUM_THREADS": "1"}):
        for seed, recipe in itertools.product(known.seeds, known.recipes):
            if str(seed) in log.get("rows", {}).get(recipe, {}).get("seeds", {}):
                continue
            run(recipe, seed, known, times["rows"][recipe]["seconds_per_epoch"], time_limit)
            with held(known.write.parent, lambda: None):  # by one call at a time
                write_json(known.write, collect(known, times))
    for recipe, row in collect(known, times)["rows"].items():
        for seed, line in row["seeds"].items():
            print(
                f"{recipe:16s} seed {seed}  clean {100 * line['clean']:4.1f} %  {ATTACK} {100 * line['robust']:4.1f} %"
            )


if __name__ == "__main__":
    main()

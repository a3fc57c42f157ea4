"""All that is to be measured on a GPU, in calls of a few minutes each: repeat the same command until it says "done".

python benchmarks/gpu.py --data DIR --out runs/gpu                                      goes on where it stopped
python benchmarks/gpu.py --data DIR --out runs/gpu --previous BEFORE --pack AFTER       from machine to machine
python benchmarks/gpu.py --data mnist-5k --out runs/gpu --device cpu --smoke            tiny, to see that it works

In this order: 50 steps of NuAT-WA on ResNet-18, which tell how long an epoch takes, and as many for each way to
compile the net; its whole run on CIFAR-10 in the fastest way (20 epochs instead of 100 where an epoch takes more than 5
seconds); AutoAttack standard on what it kept; steps of several methods against the released scripts' (step.py); short
runs of several methods on equal terms (train.py).

The state is --out: gpu.json with all figures, and run directories with their checkpoints. A machine that is gone takes
it along, so --pack writes what the next call needs into files of at most 15 MiB, up to --pack-mib altogether, and
--previous takes it from there: results first, then the long run's weights, then what unfinished runs need to go on, as
long as it fits; gpu.json names what did not, and such a run begins anew. A run must find its data under the same name.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import arithmetic
import state_archive
import torch
from time_limit import OutOfTime, TimeLimit, flags
from trainers import endless, ready
from turns import figures, take_turns

from toughen.core.cost import PassCounter
from toughen.engine.device import pick_device, provenance
from toughen.engine.memory import keep_freed_memory
from toughen.runs.files import read_json, write_json

RECIPE = ["nuat-wa-cifar10"]
SMALL = (
    "--method NuAT --method.lam 1 --eps 0.2 --model fbf-mnist-cnn --batch_size 100 --averaging 0.99 --watch rescue"
).split()
WINDOW, WINDOWS = 10, 5  # steps between two waits for the device; how many such windows are counted
LONG_EPOCH = 5.0  # seconds, above which the run is a short one
COMPILING = ("default",)
WHOLE, SHORT = 100, 20  # epochs
STEP_METHODS = ["Standard", "NuAT", "FBF", "GAT", "PGDAT", "TRADES", "NuAT2", "NFGSM", "PGI", "AWP"]
TRAIN_METHODS = ["FBF", "NuAT", "GAT", "PGDAT", "TRADES"]
METHOD_IMAGES = 1000  # test images that the short runs' nets are attacked on
LONG = "nuat-wa"  # the long run's directory
RUN_FILES: tuple[str, ...] = (
    "config.yaml",
    "metrics.jsonl",
    "model.json",
    "provenance.json",
    "evaluation.json",
    "examples.parquet",
)
RUN_FILES += ("training-images.safetensors", "evaluation-budget.json")


class Work:
    """The results so far, and the time that is left.

    Attributes:
        arguments: the command line.
        out: where the state lies.
        time_limit: the time of this call.
        found: the content of gpu.json.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.out, self.time_limit = arguments, arguments.out, TimeLimit(arguments.minutes)
        self.out.mkdir(parents=True, exist_ok=True)
        if arguments.previous is not None and not (self.out / "gpu.json").exists():
            state_archive.unpack(arguments.previous, self.out)
        path = self.out / "gpu.json"
        self.found: dict[str, Any] = read_json(path) if path.exists() else {"pieces": {}, "calls": []}
        place = pick_device(arguments.device)
        self.device = place.type
        self.found["about"] = {"data": Path(arguments.data).name, "smoke": arguments.smoke, **provenance(place)}

    @property
    def run(self) -> Path:
        """The run directory of the long run."""
        return Path(self.out) / "runs" / LONG

    @property
    def words(self) -> list[str]:
        """The long run's recipe, without its length."""
        words = SMALL if self.arguments.smoke else RECIPE
        return [*words, "--data", self.arguments.data, "--device", self.device]

    def piece(self, name: str) -> dict[str, Any]:
        """One piece's figures, filled as they come."""
        piece: dict[str, Any] = self.found["pieces"].setdefault(name, {})
        return piece

    def save(self) -> None:
        write_json(self.out / "gpu.json", self.found)


def first_steps(work: Work) -> None:
    """Time a step, count its passes, and compare its rate with the processor's highest rate."""
    trainer = ready(work.words)
    batches, losses = endless(trainer), list[float]()
    window = 2 if work.arguments.smoke else WINDOW

    def steps() -> None:
        losses.append(float(_steps(trainer, batches, window)[-1].loss.detach()))

    steps()
    peak = torch.cuda.max_memory_allocated() if work.device == "cuda" else None  # with images, net and all
    best = arithmetic.best(work.device, trainer.precision, small=work.arguments.smoke)
    runs: dict[str, Callable[[], object]] = {"steps": steps, **best}
    seconds = take_turns(runs, work.device, WINDOWS)
    each = [taken / window for taken in seconds["steps"]]
    with PassCounter(trainer.model, trainer.method.companions(), trainer.image, trainer.costs) as passes:
        seen = sum(len(step.logits) for step in _steps(trainer, batches, 2))
    rates = {name: arithmetic.counted(run) / statistics.median(seconds[name]) for name, run in best.items()}
    images = trainer.recipe.batch_size / statistics.median(each)
    operations = passes.total / seen * trainer.forward_flops * images
    work.piece("first steps").update(
        {
            "recipe": work.words[0] if not work.arguments.smoke else "smoke",
            "steps": window * WINDOWS,
            "step": figures(each, each),
            "seconds_per_epoch": statistics.median(each) * trainer.state.steps_per_epoch,
            "images_per_second": images,
            "losses": losses,
            "passes_per_image": passes.total / seen,
            "forward_operations": trainer.forward_flops,
            "operations_per_second": operations,
            "best_operations_per_second": rates,
            "share_of_arithmetic": operations / max(rates.values()),
            "peak_bytes": peak,
            "precision": trainer.precision,
            "seed": trainer.recipe.seed,
        }
    )


def compiled_steps(work: Work) -> None:
    """Time a step with each way to compile the net, the first steps separately."""
    piece = work.piece("compiled steps")
    for how in COMPILING[:1] if work.arguments.smoke else COMPILING:
        if how in piece:
            continue
        work.time_limit.check()
        piece[how] = {"failed": "the process did not live to tell"}
        work.save()
        try:
            piece[how] = _compiled(work, how)
        except RuntimeError as error:
            piece[how] = {"failed": str(error).splitlines()[0]}
        work.save()


def _compiled(work: Work, how: str) -> dict[str, Any]:
    trainer = ready([*work.words, "--compile", how])
    batches, window = endless(trainer), 2 if work.arguments.smoke else WINDOW
    started = time.perf_counter()
    losses = [float(step.loss.detach()) for step in _steps(trainer, batches, window)]
    first = time.perf_counter() - started
    runs: dict[str, Callable[[], object]] = {"steps": lambda: float(_steps(trainer, batches, window)[-1].loss.detach())}
    each = [taken / window for taken in take_turns(runs, work.device, WINDOWS)["steps"]]
    return {"step": figures(each, each), "first_steps_seconds": first, "losses": losses}


def _steps(trainer: Any, batches: Any, count: int) -> list[Any]:
    """So many steps, one after the other."""
    made = []
    for x, y, batch in islice(batches, count):
        made.append(trainer.step(x, y, batch))
        trainer.state.step += 1
    return made


def fastest(work: Work) -> tuple[str, float]:
    """How the net is best compiled here, "off" among the ways, and the seconds of an epoch then."""
    first = work.found["pieces"]["first steps"]
    plain = first["step"]["seconds"]
    ways = {
        how: found["step"]["seconds"]
        for how, found in work.piece("compiled steps").items()
        if how in COMPILING and "step" in found
    }
    how, seconds = min({"off": plain, **ways}.items(), key=lambda way: way[1])
    return how, first["seconds_per_epoch"] * seconds / plain


def best_rate(work: Work) -> float:
    """The highest measured rate, in operations a second."""
    return float(max(work.found["pieces"]["first steps"]["best_operations_per_second"].values()))


def training(work: Work) -> None:
    """Train the long run."""
    piece = work.piece("training")
    if "epochs" not in piece:
        piece["compile"], epoch = fastest(work)
        short = epoch > LONG_EPOCH
        piece["epochs"] = 2 if work.arguments.smoke else SHORT if short else WHOLE
        piece["why"] = f"an epoch was expected to take {epoch:.1f} s, the whole run is for {LONG_EPOCH:.0f} s or less"
        work.save()
    work.run.parent.mkdir(parents=True, exist_ok=True)
    try:
        length = ["--epochs", str(piece["epochs"]), "--compile", piece["compile"]]
        work.time_limit.toughen("train", *work.words, *length, "--out", str(work.run), "--resume")
    finally:
        piece.update(run_figures(work.run, best_rate(work)))


def run_figures(run: Path, best: float) -> dict[str, Any]:
    """What a run's epochs took so far."""
    path = run / "metrics.jsonl"
    if not path.exists():
        return {"epochs_done": 0}
    epochs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {
        "epochs_done": len(epochs),
        "seconds": sum(epoch["seconds"] for epoch in epochs),
        "validation_seconds": sum(epoch["validation_seconds"] for epoch in epochs),
        "seconds_per_epoch": spread([epoch["seconds"] for epoch in epochs]),
        "seconds_per_step": spread([epoch["seconds_per_step"] for epoch in epochs]),
        "images_per_second": spread([epoch["images_per_second"] for epoch in epochs]),
        "share_of_arithmetic": spread([epoch["flops"] / epoch["seconds"] / best for epoch in epochs]),
        "passes": statistics.fmean(epoch["passes"] for epoch in epochs),
        "curve": [
            {"epoch": epoch["epoch"], "seconds": epoch["seconds"], "loss": epoch["loss"], **epoch["validation"]}
            for epoch in epochs
        ],
        "events": [event["text"] for epoch in epochs for event in epoch["events"]],
    }


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def autoattack(work: Work) -> None:
    """AutoAttack standard on the weights that the long run kept, all test images."""
    attacks = ["fgsm", "pgd-10"] if work.arguments.smoke else ["fgsm", "pgd-20", "autoattack"]
    limit = 40 if work.arguments.smoke else work.arguments.limit
    asked = flags({"data": work.arguments.data, "device": work.device, "limit": limit})
    piece = work.piece("autoattack")
    started = time.perf_counter()
    try:
        work.time_limit.toughen("evaluate", str(work.run), *asked, "--verdict", "false", "--attacks", *attacks)
    finally:
        piece["wall_seconds"] = piece.get("wall_seconds", 0.0) + time.perf_counter() - started
    found = read_json(work.run / "evaluation.json")
    forward, best = work.found["pieces"]["first steps"]["forward_operations"], best_rate(work)
    for line in found["attacks"].values():
        done = line["passes"] + line.get("padding", 0)
        line["share_of_arithmetic"] = done * forward / line["seconds"] / best if line["seconds"] else None
    names = ("clean_accuracy", "robust_accuracy", "images", "attacks", "precision", "batch_size", "seed", "threat")
    piece.update({name: found[name] for name in names})


def steps(work: Work) -> None:
    """The benchmark of steps."""
    out, smoke = work.out / "step.json", work.arguments.smoke
    methods = ["Standard", "NuAT"] if smoke else STEP_METHODS
    words = ["--data", work.arguments.data, "--device", work.device, "--out", str(out), "--methods", *methods]
    if smoke:
        words += "--model fbf-mnist-cnn --batch-size 20 --rounds 2 --steps 1 --smoke".split()
    try:
        work.time_limit.script("step", *words, *minutes(work.time_limit))
    finally:
        if out.exists():
            (work.piece("steps")["nets"],) = [read_json(out)]
    nets = work.piece("steps").get("nets", {})  # none where there was no time for a single one
    if not set(methods) <= {method for rows in nets.values() for method in rows}:
        raise OutOfTime


def methods(work: Work) -> None:
    """Short runs of several methods on equal terms."""
    out, smoke = work.out / "train.json", work.arguments.smoke
    names = ["FBF", "NuAT"] if smoke else TRAIN_METHODS
    words = ["--data", work.arguments.data, "--device", work.device, "--write", str(out), "--methods", *names]
    words += ["--runs", str(work.out / "runs"), "--epochs", str(1 if smoke else work.arguments.method_epochs)]
    words += [] if smoke else ["--limit", str(METHOD_IMAGES)]
    if smoke:
        words += "--smoke --eps 0.2 --attacks fgsm pgd-10 --limit 40".split()
    try:
        work.time_limit.script("train", *words, *minutes(work.time_limit))
    finally:
        if out.exists():
            work.piece("methods").update(read_json(out))
    if not set(names) <= set(work.piece("methods").get("methods", {})):
        raise OutOfTime


def minutes(time_limit: TimeLimit) -> list[str]:
    """What is left for a script, as its option."""
    return [] if time_limit.left is None else ["--minutes", f"{max(0.0, time_limit.left - 20) / 60:.2f}"]


PIECES: dict[str, Callable[[Work], None]] = {
    "first steps": first_steps,
    "compiled steps": compiled_steps,
    "training": training,
    "autoattack": autoattack,
    "steps": steps,
    "methods": methods,
}


def go_on(work: Work) -> bool:
    """Run the pieces until the time limit; return whether all are done. A piece that fails is recorded and skipped."""
    whole = True
    for name, do in PIECES.items():
        piece = work.piece(name)
        if piece.get("done"):
            continue
        if any(not work.piece(needed).get("done") for needed in NEEDS.get(name, ())):
            whole = False
            continue
        started = time.perf_counter()
        try:
            work.time_limit.check()
            piece.pop("failed", None)
            do(work)
            piece["done"] = True
        except OutOfTime:
            print(f"{name}: the time is up", flush=True)
            return False
        except (subprocess.CalledProcessError, RuntimeError, ValueError) as error:
            piece["failed"], whole = str(error), False
            print(f"{name} failed: {error}", flush=True)
        finally:
            piece["seconds_of_calls"] = piece.get("seconds_of_calls", 0.0) + time.perf_counter() - started
            work.save()
        print(f"{name}: {'failed' if 'failed' in piece else 'done'}", flush=True)
    return whole


NEEDS = {"training": ["first steps", "compiled steps"], "autoattack": ["training"]}


def needed(out: Path, trained: bool) -> list[Path]:
    """The files that the next call needs, most important first, without the weights of short runs already evaluated."""
    runs = sorted(
        (path for path in (out / "runs").glob("*") if path.is_dir()), key=lambda run: (run.name != LONG, run.name)
    )
    judged = [run for run in runs if (run / "evaluation.json").exists()]
    paths = [out / "step.json", out / "train.json"]
    paths += [run / name for run in runs for name in RUN_FILES]
    paths += [path for run in runs for path in sorted(run.glob("evaluation-*.safetensors"))]
    paths += [run / "model.safetensors" for run in runs if run.name == LONG or run not in judged]
    finished = [*judged, out / "runs" / LONG] if trained else judged
    paths += [run / "checkpoint.safetensors" for run in runs if run not in finished]
    return [path for path in paths if path.exists()]


def pack(out: Path, folder: Path, most: int) -> None:
    """Write the files that the next call needs, and gpu.json, which names the files that do not fit."""
    found = read_json(out / "gpu.json")
    paths = needed(out, found["pieces"].get("training", {}).get("done", False))
    fitting = state_archive.fitting(paths, most)
    found["left_out_of_pack"] = [str(path.relative_to(out)) for path in paths if path not in fitting]
    write_json(out / "gpu.json", found)
    state_archive.pack(out, folder, [out / "gpu.json", *fitting])
    shutil.copyfile(out / "gpu.json", folder / "gpu.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CIFAR-10: a folder, under the same name in every call")
    parser.add_argument("--out", type=Path, required=True, help="the state")
    parser.add_argument("--previous", type=Path, help="the state of an earlier call, where --out has none")
    parser.add_argument("--pack", type=Path, help="where to put what the next call needs, on another machine")
    parser.add_argument("--pack-mib", type=float, default=56)
    parser.add_argument("--minutes", type=float, default=9, help="of this call")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--limit", type=int, help="test images for AutoAttack; all by default")
    parser.add_argument("--method-epochs", type=int, default=5, help="of the short runs")
    parser.add_argument("--smoke", action="store_true", help="tiny settings, for any processor")
    arguments = parser.parse_args()
    keep_freed_memory()
    work, started = Work(arguments), time.perf_counter()
    whole = False
    try:
        whole = go_on(work)
    finally:
        work.found["calls"].append({"seconds": round(time.perf_counter() - started, 1), "done": whole})
        work.save()
        if arguments.pack is not None:
            pack(work.out, arguments.pack, int(arguments.pack_mib * 2**20))
    print("done" if whole else "not done yet: repeat the command to go on")
    if any("failed" in piece for piece in work.found["pieces"].values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

"""What a training step costs: every method against its own passes, and against the released scripts' steps.

python benchmarks/step.py --data DIR                                        ResNet-18, 64 images
python benchmarks/step.py --data DIR --model small-cnn --methods NuAT GAT

In each round everything of one method takes turns: the plain float32 step that is the unit, the released script's
step (benchmarks/official.py), toughen's in each precision, and the bare passes that a step is made of, by kind, in the
same precision and layout. The limit of a step is the sum of its passes at their bare prices. The file is written after
each method; one that is there already is left out.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import official
import torch
import torch.nn.functional as F
from torch.optim import SGD
from trainers import endless, ready

from toughen.device import autocast, provenance
from toughen.files import read_json, write_json
from toughen.gradients import mode
from toughen.memory import keep_freed
from toughen.passes import Passes
from toughen.training.trainer import Trainer

METHODS = {
    "Standard": "--method Standard",
    "FGSMAT": "--method FGSMAT",
    "FBF": "--method FBF",
    "NFGSM": "--method NFGSM",
    "GAT": "--method GAT --method.lam 10",
    "NuAT": "--method NuAT --method.lam 4",
    "NuAT2": "--method NuAT2 --method.lam 4",
    "RMGM": "--method RMGM",
    "PAP": "--method PAP --method.lam 0.1 --method.steps 7",
    "PGDAT": "--method PGDAT --method.steps 10 --method.step_size 2/255",
    "TRADES": "--method TRADES --method.steps 10 --method.step_size 2/255 --method.beta 6",
    "AWP": "--method AWP --method.inner PGDAT --method.inner.steps 10 --method.inner.step_size 2/255",
}
BASE = "--epochs 30 --batch_size 64 --eps 8/255 --watch off --validation 64 --optimizer.lr 0.01"


def prepared(method: str, precision: str, arguments: argparse.Namespace) -> Trainer:
    """A trainer as at the start of a run."""
    words = [*BASE.split(), *METHODS[method].split(), "--model", arguments.model, "--data", arguments.data]
    if method == "Standard":
        words = [word for word in words if word not in ("--eps", "8/255")]
    return ready([*words, "--precision", precision, "--device", arguments.device])


class Ours:
    """toughen's step, from the batch to the optimizer; what the batch took is noted apart."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.batches, self.data = trainer, endless(trainer), list[float]()

    def __call__(self) -> None:
        started = time.perf_counter()
        batch = next(self.batches)
        self.data.append(time.perf_counter() - started)
        self.trainer.add_up(self.trainer.step(*batch), batch[1])
        self.trainer.state.step += 1

    def passes(self) -> dict[str, float]:
        """Of some steps, per image: how often the model went forward, and back to images and to weights."""
        seen = 0
        trainer = self.trainer
        with Passes(trainer.model, trainer.method.companions(), trainer.image, trainer.costs) as passes:
            for _ in range(14):  # two rounds of what changes from step to step
                batch = next(self.batches)
                trainer.step(*batch)
                trainer.state.step += 1
                seen += len(batch[1])
        kinds = ("forward", "input_gradient", "weight_gradient")
        return {kind: getattr(passes, kind) / seen for kind in kinds}


def attacked_in(trainer: Trainer) -> str:
    """The mode in which the method makes its images."""
    modes = [getattr(module, "mode", None) for module in trainer.method.modules()]
    return next((found for found in modes if found in ("train", "eval")), "eval")


def bare(trainer: Trainer) -> dict[str, Callable[[], None]]:
    """The passes of a step, by kind, with nothing around them."""
    model, x, y = copy.deepcopy(trainer.model), *next(endless(trainer))[:2]
    frozen = copy.deepcopy(model).requires_grad_(False)
    wanted: Any = attacked_in(trainer)

    def forward() -> None:
        with torch.no_grad(), autocast(trainer.precision, trainer.device), mode(frozen, wanted):
            frozen(x)

    def towards_images() -> None:
        images = x.detach().requires_grad_()
        with mode(frozen, wanted):
            with autocast(trainer.precision, trainer.device):
                out = frozen(images)
            torch.autograd.grad(F.cross_entropy(out.float(), y), images)

    def towards_weights() -> None:
        with autocast(trainer.precision, trainer.device):
            out = model(x)
        model.zero_grad(set_to_none=True)
        F.cross_entropy(out.float(), y).backward()

    return {"forward": forward, "input_gradient": towards_images, "weight_gradient": towards_weights}


def theirs(method: str, arguments: argparse.Namespace) -> Callable[[], None]:
    """The released script's step, on a net of its own in float32."""
    trainer = prepared("Standard", "fp32", arguments)
    model = copy.deepcopy(trainer.model).to(memory_format=torch.contiguous_format).train()
    optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    batches = endless(trainer)
    step, number = official.standard if method == "Standard" else official.STEPS[method], -1

    def run() -> None:
        nonlocal number
        number += 1
        x, y, _ = next(batches)
        step(model, optimizer, x.contiguous(), y, number)

    return run


def clock(run: Callable[[], None], device: str) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def figures(taken: list[float], unit: list[float]) -> dict[str, float]:
    """Median and spread, in seconds and in units of the same round."""
    units = [own / other for own, other in zip(taken, unit, strict=True)]
    return {
        "seconds": statistics.median(taken),
        "fastest": min(taken),
        "slowest": max(taken),
        "units": statistics.median(units),
        "units_lowest": min(units),
        "units_highest": max(units),
    }


def measure(method: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One method: all of it in turns."""
    ours = {precision: Ours(prepared(method, precision, arguments)) for precision in arguments.precision}
    runs: dict[str, Callable[[], None]] = {"unit": theirs("Standard", arguments)}
    if method in official.STEPS:
        runs["released"] = theirs(method, arguments)
    for precision, own in ours.items():
        runs[f"toughen {precision}"] = own
        runs |= {f"bare {kind} {precision}": run for kind, run in bare(own.trainer).items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(arguments.rounds + 2):  # two to warm up
        for name, run in runs.items():
            taken = [clock(run, arguments.device) for _ in range(arguments.steps)]
            if number >= 2:
                seconds[name].append(statistics.fmean(taken))  # a mean, because some methods' steps take turns
    found: dict[str, Any] = {name: figures(taken, seconds["unit"]) for name, taken in seconds.items()}
    for precision, own in ours.items():
        passes, line = own.passes(), found[f"toughen {precision}"]
        prices = {kind: found[f"bare {kind} {precision}"]["seconds"] for kind in passes}
        limit = sum(passes[kind] * prices[kind] for kind in ("input_gradient", "weight_gradient"))
        limit += (passes["forward"] - passes["input_gradient"] - passes["weight_gradient"]) * prices["forward"]
        line |= {"passes": passes, "limit": limit, "over_limit": line["seconds"] / limit}
        line["data_share"] = statistics.median(own.data) / line["seconds"]
        if "released" in found:
            ratios = [a / b for a, b in zip(seconds["released"], seconds[f"toughen {precision}"], strict=True)]
            line["times_as_fast_as_released"] = [statistics.median(ratios), min(ratios), max(ratios)]
    return found


def memory(method: str, precision: str, arguments: argparse.Namespace) -> int:
    """Bytes that some steps take at their highest, beyond what is there before; in a process of its own (Linux)."""
    keep_freed()
    run = theirs(method, arguments) if precision == "released" else Ours(prepared(method, precision, arguments))
    if arguments.device != "cpu":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # forgets the highest so far
        before = _resident("VmRSS")
    for _ in range(3):
        run()
    return int((torch.cuda.max_memory_allocated() if arguments.device != "cpu" else _resident("VmHWM")) - before)


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def peaks(method: str, arguments: argparse.Namespace) -> dict[str, int]:
    """Peak memory of each contestant."""
    names = [*arguments.precision, *(["released"] if method in official.STEPS else [])]
    found = {}
    for name in names:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found[name] = pool.submit(memory, method, name, arguments).result()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2, help="steps a round; methods that alternate need two")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "step.json")
    arguments = parser.parse_args()
    keep_freed()
    known = read_json(arguments.out) if arguments.out.exists() else {}
    rows = known.setdefault(arguments.model, {})
    for method in arguments.methods:
        if method in rows:
            continue
        found = measure(method, arguments)
        about = {"rounds": arguments.rounds, "steps": arguments.steps, **provenance(torch.device(arguments.device))}
        rows[method] = {"times": found, "peak_bytes": peaks(method, arguments), "about": about}
        write_json(arguments.out, known)
        for name, line in found.items():
            if name.startswith(("toughen", "released")):
                more = f"{line['over_limit']:.2f} x its passes" if "over_limit" in line else ""
                print(f"{method:9s} {name:13s} {1000 * line['seconds']:8.0f} ms {line['units']:6.2f} units  {more}")


if __name__ == "__main__":
    main()

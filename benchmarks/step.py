"""What a training step costs: every method against its own passes, and against the released scripts' steps.

python benchmarks/step.py --data DIR                                        ResNet-18, 64 images
python benchmarks/step.py --data DIR --model small-cnn --methods NuAT GAT
python benchmarks/step.py --data DIR --device cuda

In each round everything of one method takes turns: the plain float32 step that is the unit, the released script's
step (benchmarks/official.py), toughen's in each precision, the bare passes that a step is made of, by kind, in the
same precision and layout, and the largest product and convolution that the processor does well. The limit of a step is
the sum of its passes at their bare prices; its share of the arithmetic limit is its operations a second over those of
the better one of these two. The file is written after each method; one that is there already is left out.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import arithmetic
import official
import torch
import torch.nn.functional as F
from torch.optim import SGD
from trainers import endless, ready, some, untrained
from turns import figures, ratio, take_turns

from toughen import data as data_sets
from toughen.core.cost import PassCounter
from toughen.core.gradients import mode
from toughen.data import Data
from toughen.engine.device import autocast, provenance
from toughen.engine.memory import keep_freed_memory
from toughen.runs.files import read_json, write_json
from toughen.training.trainer import Trainer

METHODS = {
    "Standard": "--method Standard",
    "FGSMAT": "--method FGSMAT",
    "RFGSMAT": "--method RFGSMAT",
    "FBF": "--method FBF",
    "NFGSM": "--method NFGSM",
    "GradAlign": "--method GradAlign",
    "PGI": "--method PGI",
    "Free": "--method Free",
    "EFGSM": "--method EFGSM --method.classes 1 --method.remember gradient",
    "Ensemble": "--method Ensemble --method.sources SOURCES",  # two more nets like the model
    "PAP": "--method PAP --method.lam 0.1 --method.steps 7",
    "RMGM": "--method RMGM",
    "GAT": "--method GAT --method.lam 10",
    "NuAT": "--method NuAT --method.lam 4",
    "NuAT2": "--method NuAT2 --method.lam 4",
    "PGDAT": "--method PGDAT --method.steps 10 --method.step_size 2/255",
    "TRADES": "--method TRADES --method.steps 10 --method.step_size 2/255 --method.beta 6",
    "AWP": "--method AWP --method.inner PGDAT --method.inner.steps 10 --method.inner.step_size 2/255",
    "TRADES-AWP": "--method AWP --method.gamma 5e-3 --method.inner TRADES --method.inner.steps 10"
    " --method.inner.step_size 2/255",
    "Delayed": "--method Delayed --method.after PGDAT --method.switch_epoch 30",  # before its switch
    "Hybrid": "--method Hybrid --method.cheap NuAT --method.cheap.lam 4",
    "Reconstruct": "--method Reconstruct --method.inner EFGSM"
    " --method.inner.classes 1 --method.inner.remember gradient",
}
BASE = "--epochs 30 --eps 8/255 --watch off --validation 64 --optimizer.lr 0.01 --averaging null"
IMAGES = 2048  # of the training set: a step costs the same with more
CYCLES = {"PAP": 7}  # steps after which a method is where it was; two where it has no more


def prepared(method: str, precision: str, data: Data, arguments: argparse.Namespace) -> Trainer:
    """A trainer as at the start of a run."""
    words = [*BASE.split(), *METHODS[method].split(), "--model", arguments.model, "--data", data.name]
    if method == "Standard":
        words = [word for word in words if word not in ("--eps", "8/255")]
    words += ["--batch_size", str(arguments.batch_size), "--precision", precision, "--device", arguments.device]
    if "SOURCES" in words:
        source = str(untrained(arguments.model, data.shape, len(data.classes)))
        words = [word.replace("SOURCES", json.dumps([source, source])) for word in words]
    return ready(words, data)


class Ours:
    """toughen's step, from the batch to the optimizer; the time of the batch is also recorded separately."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.batches, self.data = trainer, endless(trainer), list[float]()

    def __call__(self) -> None:
        started = time.perf_counter()
        batch = next(self.batches)
        self.data.append(time.perf_counter() - started)
        self.trainer.add_up(self.trainer.step(*batch), batch[1])
        self.trainer.state.step += 1

    def passes(self, steps: int) -> dict[str, float]:
        """Of some steps, per image: how often the model went forward, and back to images and to weights."""
        seen = 0
        trainer = self.trainer
        with PassCounter(trainer.model, trainer.method.companions(), trainer.image, trainer.costs) as passes:
            for _ in range(steps):
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
    """The forward and backward passes of a step, by kind, without the rest of the step."""
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


def theirs(method: str, data: Data, arguments: argparse.Namespace) -> Callable[[], None]:
    """The released script's step, on its own net in float32."""
    trainer = prepared("Standard", "fp32", data, arguments)
    model = copy.deepcopy(trainer.model).to(memory_format=torch.contiguous_format).train()
    optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    batches = endless(trainer)
    step, number = official.step(method), -1

    def run() -> None:
        nonlocal number
        number += 1
        x, y, _ = next(batches)
        step(model, optimizer, x.contiguous(), y, number)

    return run


def measure(method: str, data: Data, arguments: argparse.Namespace) -> dict[str, Any]:
    """Time all implementations of one method alternately."""
    ours = {precision: Ours(prepared(method, precision, data, arguments)) for precision in arguments.precision}
    runs: dict[str, Callable[[], object]] = {"unit": theirs("Standard", data, arguments)}
    if method in official.STEPS:
        runs["released"] = theirs(method, data, arguments)
    best: dict[str, dict[str, Callable[[], object]]] = {}
    for precision, own in ours.items():
        runs[f"toughen {precision}"] = own
        runs |= {f"bare {kind} {precision}": run for kind, run in bare(own.trainer).items()}
        best[precision] = arithmetic.best(arguments.device, precision, small=arguments.smoke)
        runs |= best[precision]
    seconds = take_turns(runs, arguments.device, arguments.rounds, arguments.steps)
    found: dict[str, Any] = {name: figures(taken, seconds["unit"]) for name, taken in seconds.items()}
    cycle = CYCLES.get(method, 2)
    for precision, own in ours.items():
        line = found[f"toughen {precision}"]
        line |= against_passes(own.passes(cycle), found, precision)
        line["data_share"] = sum(own.data) / len(own.data) / line["seconds"]
        for name, run in best[precision].items():
            found[name]["operations"] = arithmetic.counted(run)
        if "released" in found:
            line["times_as_fast_as_released"] = ratio(seconds["released"], seconds[f"toughen {precision}"])
    forward = next(iter(ours.values())).trainer.forward_flops * arguments.batch_size
    for name in ("unit", "released", *(f"toughen {precision}" for precision in ours)):
        if name in found:
            passes = found[name].get("passes")
            replayed = passes is not None and arguments.device != "cpu"  # kernels that torch does not see
            found[name]["operations"] = (
                forward * (sum(passes.values()) + passes["weight_gradient"])
                if replayed
                else arithmetic.counted(runs[name], cycle)
            )
            found[name]["work"] = found[name]["operations"] / forward  # in forward passes of the batch
            precision = name.split()[1] if name.startswith("toughen") else "fp32"
            if precision in best:
                found[name]["share_of_arithmetic"] = share_of_arithmetic(found, name, list(best[precision]))
    return found


def against_passes(passes: dict[str, float], found: dict[str, Any], precision: str) -> dict[str, Any]:
    """The time of a step's passes alone, and the ratio of the step's time to it."""
    prices = {kind: found[f"bare {kind} {precision}"]["seconds"] for kind in passes}
    limit = sum(passes[kind] * prices[kind] for kind in ("input_gradient", "weight_gradient"))
    limit += (passes["forward"] - passes["input_gradient"] - passes["weight_gradient"]) * prices["forward"]
    return {"passes": passes, "limit": limit, "over_limit": found[f"toughen {precision}"]["seconds"] / limit}


def share_of_arithmetic(found: dict[str, Any], name: str, best: list[str]) -> float:
    """Operations a second, divided by the highest measured rate in the same precision."""
    rates: dict[str, float] = {each: found[each]["operations"] / found[each]["seconds"] for each in (name, *best)}
    return rates[name] / max(rates[each] for each in best)


def memory(method: str, implementation: str, data: Data, arguments: argparse.Namespace) -> int:
    """Peak memory of some steps in bytes, beyond what is allocated before (on a CPU under Linux only)."""
    keep_freed_memory()
    released = implementation == "released"
    run = theirs(method, data, arguments) if released else Ours(prepared(method, implementation, data, arguments))
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


def peaks(method: str, data: Data, arguments: argparse.Namespace) -> dict[str, int]:
    """Peak memory of each implementation; on a CPU from the memory of its own process."""
    names = [*arguments.precision, *(["released"] if method in official.STEPS else [])]
    found = {}
    if arguments.device != "cpu":
        return {name: memory(method, name, data, arguments) for name in names}
    for name in names:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found[name] = pool.submit(memory, method, name, data, arguments).result()
    return found


def show(method: str, row: dict[str, Any]) -> None:
    """What was found of a method, a line a implementation."""
    for name, line in row["times"].items():
        if not name.startswith(("toughen", "released")):
            continue
        more = [f"{line['work']:5.1f} F"]
        if "over_limit" in line:
            more.append(f"{line['over_limit']:.2f} x its passes")
        if "share_of_arithmetic" in line:
            more.append(f"{100 * line['share_of_arithmetic']:.0f} % of the arithmetic limit")
        more.append(f"{row['peak_bytes'][name.removeprefix('toughen ')] / 1e6:.0f} MB")
        print(
            f"{method:11s} {name:12s} {1000 * line['seconds']:7.0f} ms {line['units']:6.2f} units ", *more, flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2, help="steps a round; methods that alternate need two")
    parser.add_argument("--minutes", type=float, help="begin no further method after so many")
    parser.add_argument("--smoke", action="store_true", help="measure the arithmetic limit with small operands")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "step.json")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    keep_freed_memory()
    torch.backends.cudnn.benchmark = True
    data = some(data_sets.load(arguments.data), IMAGES)
    known = read_json(arguments.out) if arguments.out.exists() else {}
    rows = known.setdefault(arguments.model, {})
    for method in arguments.methods:
        if method in rows:
            continue
        if arguments.minutes is not None and time.perf_counter() - started > 60 * arguments.minutes:
            print(f"{method} is left for the next call")
            break
        found = measure(method, data, arguments)
        about = {"rounds": arguments.rounds, "steps": arguments.steps, "batch_size": arguments.batch_size}
        about |= {"data": Path(arguments.data).name, "seed": 0, **provenance(torch.device(arguments.device))}
        rows[method] = {"times": found, "peak_bytes": peaks(method, data, arguments), "about": about}
        write_json(arguments.out, known)
        show(method, rows[method])


if __name__ == "__main__":
    main()

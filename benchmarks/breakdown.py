"""How the time of a training step divides into kinds of operations, for every method.

python benchmarks/breakdown.py --data DIR                                        ResNet-18, 64 images, bf16
python benchmarks/breakdown.py --data DIR --model small-cnn --methods NuAT GAT

PyTorch's profiler sums up the time within each operation, on one thread. The rest of the step is the time of Python,
and of PyTorch between operations. Shares are those of the round with the median time, of five rounds. An operation is
classified by its name, or else by the shapes of its inputs: those of images, or of logits. The file is written after
each method. A method that the file already has is skipped.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from step import CYCLES, IMAGES, METHODS, Ours, prepared
from torch.profiler import ProfilerActivity, profile
from trainers import some

from toughen import data as data_sets
from toughen.engine.device import provenance
from toughen.engine.memory import keep_freed_memory
from toughen.runs.files import read_json, write_json

BETWEEN = "between operations"
ROUNDS = 5
BY_NAME = {  # kind -> parts of an operation's name; the first that fits counts
    "optimizer, averaging": ("_fused_sgd", "_fused_adam", "_foreach_", "lerp", "Optimizer"),
    "convolutions, backward": ("convolution_backward",),
    "convolutions, forward": ("conv",),
    "batch norm": ("batch_norm",),
    "ReLU, pooling": ("relu", "threshold", "pool"),
    "loss": ("softmax", "nll_loss", "kl_div", "svd", "cross_entropy", "mse_loss"),
    "matrix products": ("addmm", "aten::mm", "bmm", "matmul", "linear"),
}
IMAGES_MADE, LOSS, REST = "making images", "loss", "sums, copies, casts"
KINDS = (*BY_NAME, IMAGES_MADE, REST, BETWEEN)


def kind_of(name: str, shapes: Sequence[Sequence[int]], image: Sequence[int], classes: int) -> str:
    """What an operation is for.

    Args:
        name: the profiler's, such as "aten::add".
        shapes: of its inputs.
        image: shape of an image.
        classes: how many logits an image has.
    """
    for kind, parts in BY_NAME.items():
        if any(part in name for part in parts):
            return kind
    if any(list(shape[1:]) == list(image) for shape in shapes):
        return IMAGES_MADE
    if any(len(shape) == 2 and shape[1] == classes for shape in shapes):
        return LOSS
    return REST


def measure(own: Ours, steps: int, image: Sequence[int], classes: int) -> dict[str, Any]:
    """Seconds of a step, and the share of each kind of operation, in the round that took the median time."""
    for _ in range(steps):
        own()  # warms up
    rounds = sorted((one_round(own, steps, image, classes) for _ in range(ROUNDS)), key=lambda found: found["seconds"])
    found: dict[str, Any] = rounds[ROUNDS // 2]
    return found | {"fastest": rounds[0]["seconds"], "slowest": rounds[-1]["seconds"]}


def one_round(own: Ours, steps: int, image: Sequence[int], classes: int) -> dict[str, Any]:
    """Seconds of a step and the share of each kind of operation, over ``steps`` steps."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        started = time.perf_counter()
        for _ in range(steps):
            own()
        took = time.perf_counter() - started
    seconds = dict.fromkeys(KINDS, 0.0)
    for event in profiler.key_averages(group_by_input_shape=True):
        seconds[kind_of(event.key, event.input_shapes, image, classes)] += event.self_cpu_time_total / 1e6
    seconds[BETWEEN] = max(0.0, took - sum(seconds.values()))
    return {"seconds": took / steps, "shares": {kind: seconds[kind] / took for kind in KINDS}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "breakdown.json")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.device = "cpu"
    keep_freed_memory()
    torch.set_num_threads(1)
    data = some(data_sets.load(arguments.data), IMAGES)
    known = read_json(arguments.out) if arguments.out.exists() else {}
    rows = known.setdefault(f"{arguments.model}, {arguments.precision}", {})
    for method in arguments.methods:
        if method in rows:
            continue
        own = Ours(prepared(method, arguments.precision, data, arguments))
        steps = 2 * CYCLES.get(method, 2)
        about = {
            "rounds": ROUNDS,
            "steps": steps,
            "batch_size": arguments.batch_size,
            "data": Path(arguments.data).name,
            "seed": 0,
        }
        about |= provenance(torch.device("cpu"))
        rows[method] = measure(own, steps, data.shape, len(data.classes)) | {"about": about}
        write_json(arguments.out, known)
        largest = sorted(rows[method]["shares"].items(), key=lambda share: -share[1])[:4]
        shown = ", ".join(f"{kind} {100 * share:.1f} %" for kind, share in largest)
        print(f"{method:11s} {1000 * rows[method]['seconds']:7.0f} ms  {shown}", flush=True)


if __name__ == "__main__":
    main()

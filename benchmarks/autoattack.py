"""AutoAttack here and in the reference package, on the same images of the same nets: robust images, and seconds.

python benchmarks/autoattack.py RUN [RUN ...] --data DIR --images 1000               each attack by itself
python benchmarks/autoattack.py RUN --data DIR --images 200 --sequence               the ensemble, as it is used
python benchmarks/autoattack.py RUN --data DIR --images 100 --sequence --profile     what the seconds go into

Images are taken in groups. On each group all implementations run one after the other. The order rotates from group to
group, so that other work on the machine affects all of them alike. Each implementation has its own process, as its
user would start it. toughen configures the C library's malloc, which would make the reference faster too; "reference,
malloc set up" measures that. The file is written after each group. A run that was stopped is resumed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from pyautoattack import AutoAttack as Reference
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import toughen
from toughen import data as data_sets
from toughen.attacks import AutoAttack
from toughen.attacks.base import Attack
from toughen.core.types import Norm
from toughen.data import Split
from toughen.engine.device import pick_device, provenance
from toughen.engine.memory import keep_freed_memory
from toughen.evaluation import measure
from toughen.evaluation.harness import as_floats, predict
from toughen.runs.files import read_json, write_json

PARTS = ("apgd-ce", "apgd-t", "fab-t", "square")
SEEDS = 8  # of each, at most
BATCH = 250  # the reference's own default
Found = dict[str, tuple[list[bool], float]]
"""For each attack which of the images are robust, and the seconds it took."""


def ours(precision: Any, processes: int = 1, seed: int = 0) -> Callable[..., Found]:
    """toughen, searching in this precision."""

    def run(
        net: nn.Module, split: Split, index: Tensor, norm: Norm, eps: float, parts: list[str], sequence: bool
    ) -> Found:
        whole = AutoAttack(eps=eps, norm=norm)
        alone = {name: attack for name, attack in whole.parts().items() if name in parts}
        attacks: dict[str, Attack] = {"autoattack": whole} if sequence else alone
        found = measure(net, split, attacks, precision=precision, index=index, processes=processes, seed=seed)
        if not sequence:
            return {
                name: ((found.correct & ~result.broken).tolist(), sum(found.state.of(name).seconds.values()))
                for name, result in found.results.items()
            }
        progress, names = found.state.of("autoattack"), found.parts["autoattack"]
        last = [PARTS.index(names[by]) if by >= 0 else len(PARTS) for by in progress.broken_by.tolist()]
        return {
            part: ([number < by for by in last], progress.seconds.get(part, 0.0)) for number, part in enumerate(PARTS)
        }

    return run


def reference(seed: int, malloc: bool = False) -> Callable[..., Found]:
    """The reference package: its attacks, in its order."""

    def run(
        net: nn.Module, split: Split, index: Tensor, norm: Norm, eps: float, parts: list[str], sequence: bool
    ) -> Found:
        if malloc:
            keep_freed_memory()
        named = {"linf": "Linf", "l2": "L2"}[norm]
        made = Reference(net, norm=named, eps=eps, seed=seed, version="standard", device=split.images.device)
        made.apgd.loss, made.fab.targeted = "ce", True
        attacks = dict(zip(PARTS, (made.apgd, made.apgd_targeted, made.fab, made.square), strict=True))
        x, y, standing, found = as_floats(split.images), split.labels, torch.ones(len(split), dtype=torch.bool), {}
        for name in parts:
            attack = attacks[name]
            attack.seed = seed
            rows = standing.nonzero()[:, 0] if sequence else torch.arange(len(split))
            result, started = (
                torch.ones(len(split), dtype=torch.bool) & (standing | (not sequence)),
                time.perf_counter(),
            )
            for batch in rows.split(BATCH):
                x_adv = attack.perturb(x[batch].clone(), y[batch].clone())
                with torch.no_grad():
                    result[batch] = net(x_adv).argmax(1) == y[batch]
            standing = result
            found[name] = (result.tolist(), time.perf_counter() - started)
        return found

    return run


CONTESTANTS: dict[str, Callable[..., Found]] = {
    "toughen": ours("bf16"),
    "toughen fp32": ours("fp32"),
    **{f"toughen fp32 seed {seed}": ours("fp32", seed=seed) for seed in range(1, SEEDS)},
    **{f"reference seed {seed}": reference(seed) for seed in range(SEEDS)},
    "reference, malloc set up": reference(0, malloc=True),
    "toughen, 2 processes": ours("bf16", 2),
}

DEFAULT = ["toughen", "toughen fp32", "reference seed 0", "reference seed 1"]


@lru_cache
def _loaded(run: str, data: str) -> tuple[Any, nn.Module, Split]:
    """A run's record and net, and all test images."""
    return toughen.runs.read_record(Path(run)), toughen.load(run), data_sets.load(data).test


def work(name: str, run: str, data: str, index: list[int], parts: list[str], sequence: bool, profiled: bool) -> Found:
    """Run one implementation on one group of images, in its own process."""
    record, net, test = _loaded(run, data)
    rows = torch.tensor(index)
    asked = (net, test.take(rows), rows, record.norm, record.eps, parts, sequence)
    if not profiled:
        return CONTESTANTS[name](*asked)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        found = CONTESTANTS[name](*asked)
    table = profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=40)
    print(name, table, sep="\n", flush=True)
    return found


def compare(run: str, arguments: argparse.Namespace, path: Path) -> dict[str, Any]:
    """Run every implementation on every group of images, for one net."""
    record, net, test = _loaded(run, arguments.data)
    index = data_sets.stratified(test.labels, arguments.images, 0)
    split = test.take(index)
    right = predict(net, split.images) == split.labels
    key = f"{Path(run).name} {record.norm} {record.eps:.4g}" + (" sequence" if arguments.sequence else "")
    if set(arguments.attacks) != set(PARTS):
        key += " " + " ".join(part for part in PARTS if part in arguments.attacks)
    known = read_json(path) if path.exists() else {}
    entry: dict[str, Any] = known.setdefault(
        key, {"images": arguments.images, "right": int(right.sum()), "model": record.model["name"]}
    )
    entry |= {"method": record.method, "group": arguments.group, **provenance(pick_device("cpu"))}
    groups = right.nonzero()[:, 0].split(arguments.group)
    done = entry.setdefault("groups", [])
    names = [name for name in CONTESTANTS if name in arguments.implementations]
    parts = [part for part in PARTS if part in arguments.attacks]
    spawn = multiprocessing.get_context("spawn")
    pools = {name: ProcessPoolExecutor(1, spawn) for name in names}
    for number, rows in enumerate(groups):
        if number < len(done):
            continue
        results = {}
        for name in names[number % len(names) :] + names[: number % len(names)]:
            asked = (run, arguments.data, index[rows].tolist(), parts, arguments.sequence, arguments.profile)
            results[name] = pools[name].submit(work, name, *asked).result()
        done.append(results)
        write_json(path, known)
    for pool in pools.values():
        pool.shutdown()
    entry["summary"] = summary(done, len(split))
    write_json(path, known)
    print(key, *(f"{name}: {figures}" for name, figures in entry["summary"].items()), sep="\n  ")
    return entry


def summary(groups: list[dict[str, Any]], n: int) -> dict[str, Any]:
    """Accuracies, seconds and disagreements over all groups."""
    found: dict[str, Any] = {}
    names = list(groups[0])
    parts = list(groups[0][names[0]])
    stands = {
        name: {part: [one for group in groups for one in group[name][part][0]] for part in parts} for name in names
    }
    seconds = {name: {part: sum(group[name][part][1] for group in groups) for part in parts} for name in names}
    for name in sorted(names):
        whole = [all(each) for each in zip(*stands[name].values(), strict=True)]
        found[name] = {
            "accuracy": {part: sum(stands[name][part]) / n for part in parts} | {"ensemble": sum(whole) / n},
            "seconds": {part: round(seconds[name][part], 1) for part in parts}
            | {"all": round(sum(seconds[name].values()), 1)},
        }
    seeds = [name for name in names if name.startswith("reference")]
    mine = [name for name in names if name.startswith("toughen fp32")]
    for name in sorted(set(names) - set(seeds)) if seeds else ():
        ratios = sorted(
            sum(s for _, s in group[seeds[0]].values()) / sum(s for _, s in group[name].values()) for group in groups
        )
        found[name]["times as fast"] = {
            "median": round(ratios[len(ratios) // 2], 2),
            "lowest": round(ratios[0], 2),
            "highest": round(ratios[-1], 2),
        }
        found[name]["differs from every reference seed"] = {
            part: sum(
                all(one != stands[seed][part][row] for seed in seeds) for row, one in enumerate(stands[name][part])
            )
            for part in parts
        }
    if len(seeds) > 1 and len(mine) > 1:
        found["means over seeds"] = {
            part: {
                of: sum(found[name]["accuracy"][part] for name in group) / len(group)
                for of, group in (("toughen fp32", mine), ("reference", seeds))
            }
            for part in parts
        }
        found["every seed of one differs from every one of the other"] = {
            part: sum(
                len({stands[name][part][row] for name in mine}) == len({stands[name][part][row] for name in seeds}) == 1
                and stands[mine[0]][part][row] != stands[seeds[0]][part][row]
                for row in range(len(stands[mine[0]][part]))
            )
            for part in parts
        }
    if len(seeds) > 1:
        found["reference seeds differ on"] = {
            part: sum(len(set(verdicts)) > 1 for verdicts in zip(*(stands[seed][part] for seed in seeds), strict=True))
            for part in parts
        }
        found["one reference seed differs from all others"] = {
            part: {
                seed: sum(
                    all(stands[seed][part][row] != stands[other][part][row] for other in seeds if other != seed)
                    for row in range(len(stands[seed][part]))
                )
                for seed in seeds
            }
            for part in parts
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--group", type=int, default=250, help="images per group; the reference takes them by 250")
    parser.add_argument("--implementations", nargs="+", default=DEFAULT, choices=list(CONTESTANTS))
    parser.add_argument("--attacks", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--sequence", action="store_true", help="each attack on what the ones before left")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--out", default="benchmarks/results/autoattack.json")
    arguments = parser.parse_args()
    for run in arguments.runs:
        compare(run, arguments, Path(arguments.out))


if __name__ == "__main__":
    main()

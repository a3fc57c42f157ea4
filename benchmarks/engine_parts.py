"""What parts of toughen's engine save: AutoAttack and its parts with and without each of them, on the same images.

python benchmarks/engine_parts.py RUN [RUN ...] --data DIR --images 200 --write benchmarks/results/engine-parts.json

The variants run alternately in one process, and their order rotates. "windows" is Square's incremental queries,
"first convolution" the own backward pass of a net's first layer. The verdicts on the images must be the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from turns import figures, take_turns

import toughen
from toughen import data as data_sets
from toughen.attacks import AutoAttack
from toughen.core.queries import FullQuery
from toughen.core.types import Images, Labels
from toughen.data import Split, stratified
from toughen.engine.device import provenance
from toughen.engine.memory import keep_freed_memory
from toughen.evaluation import measure
from toughen.runs.files import write_json

TRIED = {  # attacks, and the parts of the engine that they use
    "autoattack": ("windows", "first convolution"),
    "apgd-ce": ("first convolution",),
    "square": ("windows",),
}


def in_full(model: nn.Module, x: Images, side: int, search: Callable[[Labels, FullQuery], Any]) -> list[Any]:
    """Square's search with complete passes only."""
    return [search(torch.arange(len(x)), FullQuery(model))]


WITHOUT: dict[str, Callable[[], Any]] = {
    "windows": partial(mock.patch, "toughen.engine.fixed_batch.search_windows", in_full),
    "first convolution": partial(mock.patch, "toughen.engine.stem.is_supported", lambda convolution: False),
}


@contextmanager
def without(names: tuple[str, ...]) -> Iterator[None]:
    """The engine without these parts."""
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(WITHOUT[name]())
        yield


def attacked(net: nn.Module, split: Split, attack: Any, names: tuple[str, ...], verdicts: dict[Any, Tensor]) -> None:
    """Run an attack without these parts, and keep which images it breaks."""
    with without(names):
        verdicts[names] = measure(net, split, {"attack": attack}, precision="fp32").results["attack"].broken


def compare(run: Path, data: str, images: int, rounds: int) -> dict[str, Any]:
    """The figures of one run."""
    record, net, test = toughen.runs.read_record(run), toughen.load(run), data_sets.load(data).test
    split = test.take(stratified(test.labels, images, 0))
    assert record.eps is not None
    whole = AutoAttack(eps=record.eps, norm="linf")
    attacks = {"autoattack": whole, **{name: attack for name, attack in whole.parts().items() if name in TRIED}}
    found: dict[str, Any] = {"run": run.name, "net": record.model, "images": images, "eps": str(record.eps)}
    for name, attack in attacks.items():
        verdicts: dict[Any, Tensor] = {}
        variants: list[tuple[str, ...]] = [(), *((each,) for each in TRIED[name])]
        calls = {str(each): partial(attacked, net, split, attack, each, verdicts) for each in variants}
        seconds = take_turns(calls, "cpu", rounds)
        found[name] = {"seconds": figures(seconds["()"], seconds["()"])["seconds"]}
        for each in variants[1:]:
            timed = figures(seconds[str(each)], seconds["()"])
            other = int((verdicts[each] != verdicts[()]).sum())
            found[name][f"without {each[0]}"] = {**timed, "different_verdicts": other}
            print(f"{run.name}, {name}, without {each[0]}: {timed['units']:.2f} times the seconds, {other} verdicts")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories, trained against L-inf")
    parser.add_argument("--data", nargs="+", required=True, help="the data set, or one for each run")
    parser.add_argument("--images", type=int, nargs="+", default=[200], help="test images, or a number for each run")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each variant")
    parser.add_argument("--write", type=Path, help="the file of results")
    arguments = parser.parse_args()
    keep_freed_memory()
    data, images = (
        given if len(given) > 1 else given * len(arguments.runs) for given in (arguments.data, arguments.images)
    )
    found = [compare(*each, arguments.rounds) for each in zip(arguments.runs, data, images, strict=True)]
    if arguments.write:
        write_json(arguments.write, {"nets": found, "provenance": provenance(torch.device("cpu"))})


if __name__ == "__main__":
    main()

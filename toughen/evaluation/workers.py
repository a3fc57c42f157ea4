"""Who does the pieces of an evaluation: this process, or several, each with a copy of the model."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, multiprocessing

from toughen.blocks import Blocks
from toughen.evaluation.harness import Bench, Outcome
from toughen.evaluation.plan import Piece

_own: dict[str, Bench] = {}  # in a worker process: the one that it works at


class Workers(AbstractContextManager["Workers"]):
    """Does pieces of attacks on chunks of images; what comes out does not depend on how many processes there are.

    Args:
        bench: the model and the images.
        processes: how many; each takes its share of the cores, or the next GPU.

    Raises:
        ValueError: the model can't be sent to another process.
    """

    def __init__(self, bench: Bench, processes: int) -> None:
        self.bench = bench
        self.pool: ProcessPoolExecutor | None = None
        if processes > 1:
            self.pool = _pool(bench, processes)

    def run(self, piece: Piece, chunks: Iterable[Tensor]) -> Iterator[Outcome]:
        """What the piece did to each chunk of images, as they get done."""
        if self.pool is None:
            for rows in chunks:
                yield self.bench.attack(piece, rows)
            return
        for done in as_completed([self.pool.submit(_do, piece, rows.cpu()) for rows in chunks]):
            yield done.result()

    def __exit__(self, *error: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)


def _pool(bench: Bench, processes: int) -> ProcessPoolExecutor:
    # spawned: a process that runs several threads or holds a GPU cannot be forked safely
    context: Any = multiprocessing.get_context("spawn")
    numbers, threads = context.SimpleQueue(), max(1, torch.get_num_threads() // processes)
    for number in range(processes):
        numbers.put(number)
    net = copy.deepcopy(bench.blocks.net).cpu()
    asked = (net, bench.blocks.size, bench.blocks.precision)
    seen = (bench.images.cpu(), bench.labels.cpu(), bench.index, bench.seed)
    return ProcessPoolExecutor(
        processes, context, initializer=_start, initargs=(numbers, threads, bench.images.device.type, asked, seen)
    )


def _start(numbers: Any, threads: int, device: str, asked: tuple[Any, ...], seen: tuple[Any, ...]) -> None:
    """Set a worker process up."""
    torch.set_num_threads(threads)
    number = numbers.get()
    place = torch.device(device, number % torch.cuda.device_count()) if device == "cuda" else torch.device(device)
    net, size, precision = asked
    images, labels, index, seed = seen
    _own["bench"] = Bench(Blocks(net.to(place), size, precision), images.to(place), labels.to(place), index, seed)


def _do(piece: Piece, rows: Tensor) -> Outcome:
    bench = _own["bench"]
    found = bench.attack(piece, rows.to(bench.images.device))
    return Outcome(rows, found.fell.cpu(), found.moved.cpu(), found.counts)

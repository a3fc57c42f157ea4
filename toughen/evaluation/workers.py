"""The threads or processes that run an evaluation's rounds, each with a copy of the model."""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed, wait
from contextlib import AbstractContextManager
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor, multiprocessing

from toughen.core.gradients import mode
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.engine.memory import keep_freed_memory
from toughen.evaluation.harness import Harness, Outcome
from toughen.evaluation.plan import AttackRound

SWITCH = 5e-5  # seconds: Python's own 5 ms are longer than most operations, and a thread that waits so long idles
_own = threading.local()  # in a worker: its own harness


class Workers(AbstractContextManager["Workers"]):
    """Runs rounds of attacks on chunks of images; results don't depend on the number of workers.

    On a CPU each core has a thread that computes alone, which is faster than to split every operation among the cores.

    Args:
        harness: the model and the images.
        processes: how many processes; each takes its share of the cores, or the next GPU.
    """

    def __init__(self, harness: Harness, processes: int) -> None:
        keep_freed_memory()
        self.harness, self.threads, self.interval = harness, torch.get_num_threads(), sys.getswitchinterval()
        on_cpu = harness.images.device.type == "cpu"
        self.count = self.threads if on_cpu else processes
        self.pool: Executor | None = None
        if processes > 1:
            self.pool = _pool(harness, processes)
            self.count = max(processes, self.count)
        elif on_cpu:
            self._start_threads()

    def _start_threads(self) -> None:
        """Start a thread for each core, where each can have its own copies of the nets; else start none."""
        first, twins = (
            torch.arange(min(len(self.harness.images), 2 * self.harness.blocks.size)),
            SimpleQueue[FixedBatchModel](),
        )
        for _ in range(self.threads):
            twin = self.harness.blocks.thread_copy(self.harness.floats(first))
            if twin is None:
                return
            twins.put(twin)
        torch.set_num_threads(1)
        sys.setswitchinterval(SWITCH)
        self.pool = ThreadPoolExecutor(self.threads, initializer=_start_thread, initargs=(self.harness, twins))

    def run(self, attack_round: AttackRound, chunks: Iterable[Tensor]) -> Iterator[Outcome]:
        """The outcome of a round on each chunk of images, in the order of completion."""
        if self.pool is None:
            for rows in chunks:
                yield self.harness.attack(attack_round, rows)
            return
        with mode(self.harness.blocks, "eval"):  # once for all threads
            waiting = [self.pool.submit(_do, attack_round, rows.cpu()) for rows in chunks]
            try:
                for done in as_completed(waiting):
                    yield done.result()
            finally:
                for each in waiting:
                    each.cancel()
                wait(waiting)

    def __exit__(self, *error: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self.threads)
        sys.setswitchinterval(self.interval)


def _start_thread(harness: Harness, twins: SimpleQueue[FixedBatchModel]) -> None:
    """Set a worker thread up: nets and counts of its own."""
    torch.set_num_threads(1)
    _own.harness = replace(harness, blocks=twins.get())


def _pool(harness: Harness, processes: int) -> ProcessPoolExecutor:
    # spawned: a process that runs several threads or holds a GPU cannot be forked safely
    context: Any = multiprocessing.get_context("spawn")
    numbers, threads = context.SimpleQueue(), max(1, torch.get_num_threads() // processes)
    for number in range(processes):
        numbers.put(number)
    net = copy.deepcopy(harness.blocks.net).cpu()
    model = (net, harness.blocks.size, harness.blocks.precision)
    seen = (harness.images.cpu(), harness.labels.cpu(), harness.index, harness.seed)
    return ProcessPoolExecutor(
        processes, context, initializer=_start, initargs=(numbers, threads, harness.images.device.type, model, seen)
    )


def _start(numbers: Any, threads: int, device: str, model: tuple[Any, ...], seen: tuple[Any, ...]) -> None:
    """Set a worker process up."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    number = numbers.get()
    place = torch.device(device, number % torch.cuda.device_count()) if device == "cuda" else torch.device(device)
    net, size, precision = model
    images, labels, index, seed = seen
    _own.harness = Harness(
        FixedBatchModel(net.to(place), size, precision), images.to(place), labels.to(place), index, seed
    )


def _do(attack_round: AttackRound, rows: Tensor) -> Outcome:
    harness: Harness = _own.harness
    outcome = harness.attack(attack_round, rows.to(harness.images.device))
    return Outcome(rows, outcome.fell.cpu(), outcome.moved.cpu(), outcome.counts)

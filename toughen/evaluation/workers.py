"""The threads or processes that run an evaluation's rounds, each with a copy of the model."""

from __future__ import annotations

import copy
import ctypes
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext
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
from toughen.utils.signals import begin_worker, blocked_signals

SWITCH_INTERVAL = 5e-5  # seconds: within Python's default, 5 ms, a waiting thread could do several operations
_local = threading.local()  # ``_local.harness`` is the worker's own harness


class Workers(AbstractContextManager["Workers"]):
    """Runs rounds of attacks on chunks of images; results don't depend on the number of workers.

    With one process on a CPU, each core gets a thread with a copy of the model. This is faster than to split every
    operation among the cores, and the last bits of a matrix product depend on how many share it. So a worker computes
    on one core. Only a model that can't be copied has all of them, operation by operation.

    Attributes:
        count: how many workers there are.

    Args:
        harness: the model and the images.
        processes: how many processes; each computes on one core, or on the next GPU.
    """

    def __init__(self, harness: Harness, processes: int) -> None:
        keep_freed_memory()
        self.harness, self.threads, self.interval = harness, torch.get_num_threads(), sys.getswitchinterval()
        on_cpu = harness.images.device.type == "cpu"
        self.count = self.threads if on_cpu else processes
        self.pool: Executor | None = None
        self.abandoned = ctypes.c_bool(False)  # of all workers' models
        if processes > 1:
            # spawned, because a process with several threads or with a GPU can't be forked safely
            context = multiprocessing.get_context("spawn")
            self.abandoned = context.RawValue(ctypes.c_bool, False)
            self.pool = _process_pool(harness, processes, context, self.abandoned)
            self.count = max(processes, self.count)
        elif on_cpu:
            self._start_threads()

    def _start_threads(self) -> None:
        """Start a thread for each core, each with its own copy of the model; none where the model can't be copied."""
        rows = torch.arange(min(len(self.harness.images), 2 * self.harness.model.size))
        copies = SimpleQueue[FixedBatchModel]()
        for _ in range(self.threads):
            copied = self.harness.model.thread_copy(self.harness.floats(rows))
            if copied is None:
                return
            copied.abandoned = self.abandoned
            copies.put(copied)
        torch.set_num_threads(1)
        sys.setswitchinterval(SWITCH_INTERVAL)
        self.pool = ThreadPoolExecutor(self.threads, initializer=_start_thread, initargs=(self.harness, copies))

    def run(self, attack_round: AttackRound, chunks: Iterable[Tensor]) -> Iterator[Outcome]:
        """The outcome of a round on each chunk of images, in the order of completion.

        Where this is left early, as on Ctrl-C, all workers end at their next pass.
        """
        if self.pool is None:
            for rows in chunks:
                yield self.harness.attack(attack_round, rows)
            return
        with mode(self.harness.model, "eval"):  # once for all threads
            # each of the first tasks starts a process
            with blocked_signals() if isinstance(self.pool, ProcessPoolExecutor) else nullcontext():
                futures = [self.pool.submit(_attack, attack_round, rows.cpu()) for rows in chunks]
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BrokenProcessPool as error:
                error.add_note(
                    "If this happens at once, call toughen.evaluate in a file, under `if __name__ == '__main__':`, or "
                    "use 1 process."
                )
                raise
            finally:
                self.abandoned.value = not all(future.done() for future in futures)
                for future in futures:
                    future.cancel()
                wait(futures)
                self.abandoned.value = False

    def __exit__(self, *error: object) -> None:
        if self.pool is not None:
            self.abandoned.value = True
            if isinstance(self.pool, ProcessPoolExecutor):
                # once one was killed, the pool ends the others by SIGTERM, which they ignore, and would wait forever
                for process in list((self.pool._processes or {}).values()):
                    process.kill()
            self.pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self.threads)
        sys.setswitchinterval(self.interval)


def _start_thread(harness: Harness, copies: SimpleQueue[FixedBatchModel]) -> None:
    """Initialise a worker thread with its own copy of the model."""
    torch.set_num_threads(1)
    _local.harness = replace(harness, model=copies.get())


def _process_pool(harness: Harness, processes: int, context: Any, abandoned: ctypes.c_bool) -> ProcessPoolExecutor:
    ranks = context.SimpleQueue()
    for rank in range(processes):
        ranks.put(rank)
    net = copy.deepcopy(harness.model.net).cpu()
    model = (net, harness.model.size, harness.model.precision)
    images = (harness.images.cpu(), harness.labels.cpu(), harness.index, harness.seed)
    kind = harness.images.device.type
    return ProcessPoolExecutor(
        processes, context, initializer=_start_process, initargs=(ranks, kind, model, images, abandoned)
    )


def _start_process(
    ranks: Any, kind: str, model: tuple[Any, ...], images: tuple[Any, ...], abandoned: ctypes.c_bool
) -> None:
    """Initialise a worker process.

    Args:
        ranks: a queue with a number for each process.
        kind: type of the device; the rank chooses among several GPUs.
        model: net, batch size and precision of the ``FixedBatchModel``.
        images: the other arguments of ``Harness``.
        abandoned: as in ``FixedBatchModel``, in memory that all processes share.
    """
    begin_worker()
    keep_freed_memory()
    torch.set_num_threads(1)
    rank = ranks.get()
    device = torch.device(kind, rank % torch.cuda.device_count()) if kind == "cuda" else torch.device(kind)
    net, size, precision = model
    x, y, index, seed = images
    fixed_batch = FixedBatchModel(net.to(device), size, precision)
    fixed_batch.abandoned = abandoned
    _local.harness = Harness(fixed_batch, x.to(device), y.to(device), index, seed)


def _attack(attack_round: AttackRound, rows: Tensor) -> Outcome:
    """Run a round in a worker; the results are on the CPU."""
    harness: Harness = _local.harness
    outcome = harness.attack(attack_round, rows.to(harness.images.device))
    return Outcome(rows, outcome.broken.cpu(), outcome.distance.cpu(), outcome.counts)

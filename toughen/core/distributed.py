"""The processes that work together, as torchrun starts them: who is who, and what they tell each other.

A program that nobody started several times is its own only process: nothing is sent, everything is its own.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor

from toughen.core.rng import derive_seed

PATIENCE = timedelta(hours=24)  # the first process may work alone for long; torchrun ends the rest of one that dies


_joined = False


@contextmanager
def joined() -> Iterator[None]:
    """Within the block the processes that torchrun started train and evaluate together: all of them must.

    Raises:
        RuntimeError: they cannot reach each other.
    """
    global _joined
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    made = not dist.is_initialized()
    if made:
        _join()
    _joined = True
    try:
        yield
    finally:
        _joined = False
        if made:
            gc.collect()  # what still holds on to the group would end it too late, with an abort
            dist.destroy_process_group()


def _join() -> None:
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:  # a part of torchrun's variables is missing, or nobody answers
        reason = str(error).splitlines()[0]
        raise RuntimeError(f"the processes cannot reach each other ({reason}): start them with torchrun") from None


def count() -> int:
    """How many processes work together."""
    return dist.get_world_size() if _joined else 1


def on_this_machine() -> int:
    """How many of them share this machine and its memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if _joined else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if _joined else 0


def is_main_process() -> bool:
    """Whether this process is the one that writes files and talks to the user."""
    return rank() == 0


def first_to_say(message: str) -> bool:
    """Whether no other process has said this: what goes wrong in all of them is told once."""
    if count() == 1:
        return True
    store = dist.distributed_c10d._get_default_store()  # torch has no public way to it
    said: int = store.add(f"said {derive_seed(message)}", 1)
    return said == 1


def shard_slice(n: int) -> slice:
    """This process's part of ``n`` rows: consecutive ones, as many as the others' give or take one."""
    return slice(n * rank() // count(), n * (rank() + 1) // count())


def barrier() -> None:
    """Wait for all."""
    if count() > 1:
        dist.all_reduce(torch.zeros(1))  # on the CPU, where a GPU's queue is not waited for


@contextmanager
def first_before_others() -> Iterator[None]:
    """The first process does what the block holds before the others do."""
    if not is_main_process():
        barrier()
    yield
    if is_main_process():
        barrier()


def any_of(*flags: bool) -> tuple[bool, ...]:
    """Which of the flags is set in any process."""
    if count() == 1:
        return flags
    found = torch.tensor(flags, dtype=torch.uint8)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return tuple(bool(flag) for flag in found.tolist())


def total(values: Tensor) -> Tensor:
    """The sum over all processes, on the device where the values lie."""
    if count() == 1:
        return values
    summed = values.detach().clone()
    dist.all_reduce(summed)
    return summed


def broadcast(value: Any) -> Any:
    """What the first process says, in all of them; anything that JSON holds."""
    return value if count() == 1 else gather(value)[0]


def gather(value: Any) -> list[Any]:
    """What each process says, in their order; anything that JSON holds."""
    if count() == 1:
        return [value]
    return [json.loads(text) for text in _gather_bytes(json.dumps(value).encode())]


def gather_tensors(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Each process's tensors by name, in the processes' order, on the CPU."""
    if count() == 1:
        return [tensors]
    return [load(content) for content in _gather_bytes(save({k: v.contiguous().cpu() for k, v in tensors.items()}))]


def _gather_bytes(content: bytes) -> list[bytes]:
    """Each process's bytes: lengths first, then all of them padded to the longest."""
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(count())]
    dist.all_gather(sizes, torch.tensor([len(content)]))
    longest = max(int(size) for size in sizes)
    mine = torch.zeros(longest, dtype=torch.uint8)
    mine[: len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    found = [torch.empty_like(mine) for _ in sizes]
    dist.all_gather(found, mine)
    return [each[: int(size)].numpy().tobytes() for each, size in zip(found, sizes, strict=True)]

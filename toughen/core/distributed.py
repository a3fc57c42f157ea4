"""The processes that train and evaluate together, as torchrun starts them, behind one object: ``world()``.

Without torchrun there is a single process. Its group is a plain ``ProcessGroup``, which sends nothing. So no other
module has to ask how many processes there are, or which of them writes files.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import ParamSpec, TypeVar

import torch
import torch.distributed as dist
from rich.console import Console
from safetensors.torch import load, save
from torch import Tensor

from toughen.core.rng import derive_seed

P = ParamSpec("P")
T = TypeVar("T")
TIMEOUT = timedelta(hours=24)  # the main process may work alone for long; if one dies, torchrun ends the others
LOST = ("gloo/transport", "NCCL", "Connection closed by peer", "Connection reset by peer")  # in error messages


@dataclass(frozen=True)
class ProcessGroup:
    """A group of one process: it receives its own values and waits for nobody.

    Attributes:
        rank: this process's number, from 0; process 0 is the main one, which writes files and talks to the user.
        world_size: how many processes there are.
        local_world_size: how many of them share this machine and its memory.
    """

    rank: int = 0
    world_size: int = 1
    local_world_size: int = 1

    @property
    def is_distributed(self) -> bool:
        """Whether there is more than one process."""
        return self.world_size > 1

    def on_main(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Call this in the main process alone; None in the others."""
        return call(*args, **kwargs) if self.rank == 0 else None

    def console(self) -> Console:
        """Standard error for the main process, silence for the others."""
        return Console(stderr=True, quiet=self.rank > 0)

    def shard(self, n: int) -> slice:
        """This process's part of ``n`` rows: consecutive ones; the parts differ by one row at most."""
        return slice(n * self.rank // self.world_size, n * (self.rank + 1) // self.world_size)

    def batch_shard(self, n: int) -> slice:
        """As ``shard``, for a training batch: no part of a single row, which batch normalization may refuse."""
        parts = min(self.world_size, max(1, n // 2))
        return slice(n * self.rank // parts, n * (self.rank + 1) // parts) if self.rank < parts else slice(0, 0)

    def padded_shard(self, n: int) -> slice:
        """As ``batch_shard``; an empty part is replaced by two rows, whose loss has weight 0."""
        part = self.batch_shard(n)
        return part if part.stop > part.start else slice(0, 2)

    def noise_place(self, n: int) -> tuple[int, int]:
        """``total`` and ``first`` of this process's ``StepNoise`` in a batch of ``n``."""
        return 0, 0

    def seed(self, *parts: object) -> int:
        """A seed that differs between processes; the main process's is that of a single process."""
        return derive_seed(*parts, *[self.rank] * (self.rank > 0))

    def own_of(self, saved: list[T], merge: Callable[[list[T]], T]) -> T | None:
        """This process's item of a list with one from each process.

        If it was saved by another number of processes: the merged list in the main process, None in the others.
        """
        return saved[self.rank] if len(saved) == self.world_size else self.on_main(merge, saved)

    def local_device(self, name: str) -> str:
        """The device that this name means for this process."""
        return name

    def first_to_say(self, message: str) -> bool:
        """Whether no other process has printed this message: what goes wrong in all of them is printed once."""
        return True

    def barrier(self) -> None:
        """Wait for all processes."""

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process runs the block before the others do."""
        yield

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether it is set in any process."""
        return flags

    def all_reduce(self, values: Tensor) -> Tensor:
        """The sum over all processes, on the values' device."""
        return values

    def broadcast(self, value: T) -> T:
        """The main process's value, in all processes; it must be JSON."""
        return value

    def all_gather(self, value: T) -> list[T]:
        """The values of all processes, in the order of ranks; they must be JSON."""
        return [value]

    def all_gather_tensors(self, tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """Each process's tensors by name, in the order of ranks; on the CPU if there are several processes."""
        return [tensors]


class TorchProcessGroup(ProcessGroup):
    """The processes of torch's default process group."""

    def noise_place(self, n: int) -> tuple[int, int]:
        return n, self.batch_shard(n).start

    def local_device(self, name: str) -> str:
        return f"cuda:{torch.cuda.current_device()}" if name == "cuda" else name

    def first_to_say(self, message: str) -> bool:
        store = dist.distributed_c10d._get_default_store()  # torch has no public way to it
        said: int = store.add(f"said {derive_seed(message)}", 1)
        return said == 1

    def barrier(self) -> None:
        dist.all_reduce(torch.zeros(1))  # on the CPU, where a GPU's queue is not waited for

    @contextmanager
    def main_first(self) -> Iterator[None]:
        if self.rank:
            self.barrier()
        yield
        if not self.rank:
            self.barrier()

    def any(self, *flags: bool) -> tuple[bool, ...]:
        raised = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return tuple(bool(flag) for flag in raised.tolist())

    def all_reduce(self, values: Tensor) -> Tensor:
        summed = values.detach().clone()
        dist.all_reduce(summed)
        return summed

    def broadcast(self, value: T) -> T:
        return self.all_gather(value)[0]

    def all_gather(self, value: T) -> list[T]:
        return [json.loads(text) for text in self._gather_bytes(json.dumps(value).encode())]

    def all_gather_tensors(self, tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        content = save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()})
        return [load(each) for each in self._gather_bytes(content)]

    def _gather_bytes(self, content: bytes) -> list[bytes]:
        """Each process's bytes: lengths first, then all of them padded to the longest."""
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        dist.all_gather(sizes, torch.tensor([len(content)]))
        longest = max(int(size) for size in sizes)
        mine = torch.zeros(longest, dtype=torch.uint8)
        mine[: len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        padded = [torch.empty_like(mine) for _ in sizes]
        dist.all_gather(padded, mine)
        return [each[: int(size)].numpy().tobytes() for each, size in zip(padded, sizes, strict=True)]


_world = ProcessGroup()


def world() -> ProcessGroup:
    """The group of this process; a single process outside of ``joined``."""
    return _world


@contextmanager
def joined() -> Iterator[None]:
    """Within the block, the processes that torchrun started form one group; all of them must enter it.

    Raises:
        RuntimeError: they cannot reach each other.
    """
    global _world
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    begun_here = not dist.is_initialized()
    if begun_here:
        _init_process_group()
    _world = TorchProcessGroup(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    try:
        yield
    finally:
        _world = ProcessGroup()
        if begun_here:
            gc.collect()  # an object that still holds the group would abort the process when it is freed later
            dist.destroy_process_group()


def is_lost_process(error: BaseException) -> bool:
    """Whether an error says that another process of the group has died."""
    said = str(error)
    return isinstance(error, dist.DistError | BrokenExecutor) or any(sign in said for sign in LOST)


def _init_process_group() -> None:
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=TIMEOUT)
    except (ValueError, RuntimeError) as error:  # one of torchrun's variables is missing, or no process answers
        reason = str(error).splitlines()[0]
        raise RuntimeError(f"the processes cannot reach each other ({reason}): start them with torchrun") from None

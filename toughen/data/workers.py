"""Processes that decode the images of batches: what they do, how they are started, and how they end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from typing import Any, NamedTuple

import numpy as np
import torch

from toughen.core.distributed import world
from toughen.core.types import ByteImages
from toughen.data.decode import Form, bombs_refused, pixels
from toughen.data.resized import ResizedCrop
from toughen.data.sources import Encoded


class Wanted(NamedTuple):
    """A batch to be decoded, or why it could not be read."""

    rows: list[int]
    items: list[Encoded]
    error: str = ""


@dataclass(frozen=True)
class Decoder:
    """What workers do. Errors are returned, since one that is raised would arrive with the worker's traceback.

    Attributes:
        form: what images are turned into.
        crops: seed and epoch of random resized crops, None for none.
    """

    form: Form
    crops: tuple[int, int] | None

    def __getitem__(self, wanted: Wanted) -> ByteImages | str:
        if wanted.error:
            return wanted.error
        images = np.empty((len(wanted.items), *self.form.shape), np.uint8)
        try:
            with bombs_refused():
                for place, (index, item) in enumerate(zip(wanted.rows, wanted.items, strict=True)):
                    crop = None if self.crops is None else ResizedCrop(*self.crops, index)
                    images[place] = pixels(item, self.form, crop)
        except ValueError as error:
            return str(error)
        return torch.from_numpy(images)


def as_it_is(item: Any) -> Any:
    return item


def loader_settings() -> dict[str, Any]:
    """How a ``DataLoader`` starts workers, as its arguments."""
    return {"multiprocessing_context": _context(), "worker_init_fn": _begin}


def _context() -> Any:
    """How workers are made: forked off a process that has imported this module and nothing else, where that is known.

    Forked off the trainer itself they would inherit its threads' locks.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    resource_tracker.ensure_running()  # which the server needs; starting it unblocks both signals
    ending = {signal.SIGINT, signal.SIGTERM}  # sent to the whole group: the trainer decides when workers end
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending)  # which the server and its workers inherit
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _begin(worker: int) -> None:
    """Have a worker end with its trainer, even one that is killed, and not on a signal that goes to both."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=[multiprocessing.parent_process()], daemon=True).start()


def _end_with(trainer: Any) -> None:
    """torch's own workers look whether their parent lives, which here is the process that they are forked off."""
    trainer.join()
    os._exit(1)


def usual_workers() -> int:
    """Processes that decode where nobody says how many: one fewer than each trainer's cores, 1 to 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, max(1, cores // world().local_world_size - 1))

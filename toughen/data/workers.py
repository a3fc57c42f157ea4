"""The worker processes that decode the images of batches: their work, their start and their end."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from multiprocessing import forkserver
from typing import Any, NamedTuple

import numpy as np
import torch

from toughen.core.distributed import world
from toughen.core.types import ByteImages
from toughen.data.decode import Form, pixels, refuse_decompression_bombs
from toughen.data.resized import ResizedCrop
from toughen.data.sources import Encoded
from toughen.utils.openmp import usable_cores
from toughen.utils.signals import begin_worker, blocked_signals


class BatchRequest(NamedTuple):
    """A batch to be decoded, or the error that occurred when it was read."""

    rows: list[int]
    items: list[Encoded]
    error: str = ""


@dataclass(frozen=True)
class Decoder:
    """Decodes batches in a worker. Errors are returned as text, since a raised error would include the traceback.

    Attributes:
        form: the form that images are converted to.
        crops: seed and epoch of random resized crops; None for none.
    """

    form: Form
    crops: tuple[int, int] | None

    def __getitem__(self, request: BatchRequest) -> ByteImages | str:
        if request.error:
            return request.error
        images = np.empty((len(request.items), *self.form.shape), np.uint8)
        try:
            with refuse_decompression_bombs():
                for place, (index, item) in enumerate(zip(request.rows, request.items, strict=True)):
                    crop = None if self.crops is None else ResizedCrop(*self.crops, index)
                    images[place] = pixels(item, self.form, crop)
        except ValueError as error:
            return str(error)
        return torch.from_numpy(images)


def unchanged(item: Any) -> Any:
    """The item itself: the ``collate_fn`` of a ``DataLoader`` whose items are whole batches."""
    return item


def loader_settings() -> dict[str, Any]:
    """The arguments of a ``DataLoader`` for starting workers."""
    return {"multiprocessing_context": _context(), "worker_init_fn": _begin}


def _context() -> Any:
    """The way to start workers: with "forkserver" if the system has it, from a process that imported only this module.

    Workers forked from the trainer itself would inherit the locks of its threads.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with blocked_signals():  # the server's workers inherit this
        forkserver.ensure_running()
    return context


def _begin(worker: int) -> None:
    """Initialise a worker. PyTorch itself only watches the parent, which here is the forkserver."""
    begin_worker()


def usual_workers() -> int:
    """The default number of decoding processes: one fewer than the cores of each trainer, from 1 to 8."""
    return min(8, max(1, len(usable_cores()) // world().local_world_size - 1))

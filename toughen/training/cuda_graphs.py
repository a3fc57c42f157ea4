"""Records the kernels of a training step as a CUDA graph.

https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch

from toughen.core.distributed import world
from toughen.core.types import Step


class CudaRecorder:
    """Records the kernels of steps with ``torch.cuda.CUDAGraph``.

    All recordings share their memory: no two replays run at once, and what a replay leaves is used before the next one.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream, self.pool = device, torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def run_unrecorded(self, take: Callable[[], Step]) -> Step:
        """Run a step without recording it, on the stream on which steps are recorded."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            step = take()
        current.wait_stream(self.stream)
        return step

    def record(self, take: Callable[[], Step], generator: torch.Generator) -> tuple[Step, Callable[[], None]]:
        """Record the kernels of a step without running them.

        Args:
            take: the step.
            generator: the source of its random numbers, besides torch's own.

        Returns:
            The result of ``take``, whose tensors each replay fills; and the function that replays the recording.
        """
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.device)
        graph.register_generator_state(generator)
        # "thread_local": a loader's thread may copy images meanwhile
        recording = torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local")
        with torch.cuda.device(self.device), _no_garbage_collected():
            try:
                with recording:
                    step = take()
            except BaseException:
                torch.cuda.set_stream(current)
                for each in (torch.cuda.default_generators[current.device.index], generator):  # they still record
                    each.graphsafe_set_state(torch.Generator(self.device).graphsafe_get_state())
                raise
        return step, graph.replay


@contextmanager
def _no_garbage_collected() -> Iterator[None]:
    """Within the block nothing of an earlier step is freed, which would spoil a recording."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def recorder_of(device: torch.device, *, wanted: bool) -> Callable[[], CudaRecorder] | None:
    """What records steps on this device; None where nothing does: many processes wait for each other within a step."""
    if not wanted or device.type != "cuda" or world().is_distributed:
        return None
    return partial(CudaRecorder, device)

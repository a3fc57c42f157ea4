"""Memory: a faster malloc setting for tensors, out-of-memory errors, and peak use."""

from __future__ import annotations

import ctypes
import os
import platform
import resource

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # names of glibc's malloc.h
LARGEST_MMAP_THRESHOLD = 32 * 2**20  # what glibc accepts on 64 bits


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory for the process, instead of returning it to the system.

    Activations are allocated and freed in every pass. By default glibc returns them to the system, which must hand out
    zeroed pages again: on a CPU this took a third of a small net's forward pass. The price is that the process never
    shrinks.

    Does nothing with another malloc, or where environment variables configure malloc.

    Returns:
        Whether the setting was changed.
    """
    names = [name for name in os.environ if name.startswith("MALLOC_") and name.endswith("_")]
    if names or "GLIBC_TUNABLES" in os.environ or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD) and mallopt(TRIM_THRESHOLD, 2**30))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the machine or of a GPU is exhausted."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # of torch's allocator on a CPU


def peak(device: torch.device) -> int:
    """The most bytes that this process has used so far; of the GPU's memory where the device is a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if platform.system() == "Darwin" else 1024  # getrusage counts kilobytes elsewhere
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

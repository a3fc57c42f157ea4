"""How the C library hands out the memory of tensors, and how to tell that there was none left."""

from __future__ import annotations

import ctypes
import os
import platform
import resource

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # names of glibc's malloc.h
LARGEST_MMAP_THRESHOLD = 32 * 2**20  # what glibc accepts on 64 bits


def keep_freed() -> bool:
    """Have glibc keep memory that was freed, instead of giving it back to the system and asking for it again.

    Activations of a net come and go at every pass. By default glibc unmaps each of them, or cuts the heap's end off,
    and the system hands every page out anew, set to zero: on a CPU that took a third of a small net's forward. The
    price is that the process stays as large as it once was.

    Nothing is done where malloc is another one, or where the user has set it up by environment variables.

    Returns:
        Whether it is done.
    """
    names = [name for name in os.environ if name.startswith("MALLOC_") and name.endswith("_")]
    if names or "GLIBC_TUNABLES" in os.environ or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD) and mallopt(TRIM_THRESHOLD, 2**30))


def lacking(error: BaseException) -> bool:
    """Whether an error says that memory, the machine's or a GPU's, does not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # of torch's allocator on a CPU


def peak(device: torch.device) -> int:
    """Bytes that this process has taken at most so far: of the GPU's memory where the device is one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if platform.system() == "Darwin" else 1024  # getrusage counts kilobytes elsewhere
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

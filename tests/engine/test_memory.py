"""What the C library does with freed memory, judged by the pages that the system had to hand out."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

WORK = """
import ctypes, resource, sys, torch
from toughen.engine.memory import keep_freed_memory
ctypes.CDLL(None).mallopt(-3, 128 * 1024)  # its default, which otherwise moves as the heap happens to lie
done = keep_freed_memory() if sys.argv[1] == "keep" else None

def passes(count):
    for _ in range(count):
        layers = [torch.empty(1_400_000).fill_(1) for _ in range(4)]  # 22 MB, as activations come and go
        del layers

passes(13)  # in the first ten or so the heap may still be laid out anew, once
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
passes(50)
print(done, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(*words: str, **environment: str) -> tuple[str, int]:
    """Whether it was done, and the pages that 50 passes took."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", WORK, *words]
    out = subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=True).stdout.split()
    return out[0], int(out[1])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_pages_are_asked_for_once() -> None:
    done, kept = pages("keep")
    _, given_back = pages("leave")
    assert done == "True" and given_back > 50 * 1000 and kept < 500


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_what_the_user_set_up_stays(name: str) -> None:
    value = "glibc.malloc.trim_threshold=131072" if name == "GLIBC_TUNABLES" else "131072"
    assert pages("keep", **{name: value})[0] == "False"

"""The device and precision of a run, and how result files name them."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Literal, TypeAlias

import torch

from toughen.core.distributed import world
from toughen.utils.version import __version__


def pick_device(name: str) -> torch.device:
    """The device of this name; "auto" takes a GPU where there is one.

    Raises:
        ValueError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(world().local_device(name))
        torch.zeros(1, device=device).item()  # not of the device "meta", which holds no values
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ValueError(f"device {name!r} is not available here: use auto or cpu") from None
    return device


Precision: TypeAlias = Literal["fp32", "bf16", "fp64"]


def pick_precision(name: Literal["auto", "fp32", "bf16", "fp64"], device: torch.device) -> Precision:
    """What "auto" means on this device: bf16 where the hardware multiplies it natively."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    native = device.type == "cpu" and "avx512_bf16" in cpu_flags() and kernels().startswith("AVX512")
    return "bf16" if native else "fp32"


def kernels() -> str:
    """The instruction set of torch's kernels on the CPU, such as AVX2; an environment variable can limit it."""
    return str(torch.backends.cpu.get_cpu_capability())


FEW_CHANNELS = 16  # below so many input channels PyTorch has the fault that ``pick_layout`` avoids


def pick_layout(model: torch.nn.Module, device: torch.device, *, channels_last: bool) -> torch.memory_format:
    """The memory format of images and filters: channels last where that is wanted and safe.

    On a CPU, PyTorch 2.13's weight gradient of a strided 1 x 1 convolution with fewer than 16 input channels writes
    beyond its memory in that layout, from images of 48 x 48 on, and the process crashes.
    """
    narrow = any(
        isinstance(each, torch.nn.Conv2d)
        and set(each.kernel_size) == {1}
        and max(each.stride) > 1
        and each.in_channels < FEW_CHANNELS
        for each in model.modules()
    )
    return torch.channels_last if channels_last and not (narrow and device.type == "cpu") else torch.contiguous_format


def choose_kernels(device: torch.device, *, deterministic: bool) -> None:
    """On a GPU, use deterministic kernels, or else the fastest by measurement. On a CPU they are always deterministic.

    Call it before anything runs on the GPU: cuBLAS reads its setting once.
    """
    if device.type != "cuda":
        return
    torch.backends.cudnn.benchmark = not deterministic
    torch.use_deterministic_algorithms(deterministic)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has completed all kernels, so that time can be measured."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[None]:
    """The context in which a model runs at this precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def without_tf32(device: torch.device) -> Iterator[None]:
    """Within the block, convolutions on a GPU multiply in float32 instead of TF32, which has 13 bits less."""
    before = torch.backends.cudnn.allow_tf32
    if device.type != "cuda" or not before:
        yield
        return
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _cpuinfo(name: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")


def cpu_flags() -> set[str]:
    """The processor's instruction sets, as Linux names them; empty elsewhere."""
    return set(_cpuinfo("flags").split())


def processor(device: torch.device) -> str:
    """The device's name: the GPU, or the CPU with its number of threads and cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_cpuinfo('model name') or platform.machine()}, {torch.get_num_threads()} of {os.cpu_count()} cores"


@cache
def commit() -> str:
    """The commit of toughen's own checkout, with "+" where files differ from it; "" for an installed package.

    Later calls return the result of the first one: a process keeps running the code that it has imported.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        git = ["git", "-C", str(root)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "toughen"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head[:12] + ("+" if changed.stdout else "")


def provenance(device: torch.device) -> dict[str, str]:
    """Processor, versions and commit, for a result file."""
    names = ("torch", "numpy", "safetensors")
    return {
        "commit": commit(),
        "processor": processor(device),
        "kernels": kernels(),
        "python": platform.python_version(),
        "toughen": __version__,
        **{name: version(name) for name in names},
    }


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one core of the CPU; the last bits of a matrix product depend on how many share it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def preserved_rng_state(device: torch.device) -> AbstractContextManager[None]:
    """Restore the state of torch's random generators after the block."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])

"""Measures how fast a device runs a net."""

from __future__ import annotations

import os
from contextlib import nullcontext
from importlib.util import find_spec
from shutil import which
from time import perf_counter

import torch
from torch import nn

from toughen.core.types import Images
from toughen.engine.device import autocast, synchronize

FEWEST = 2  # timed steps at least, after one for warm-up


def passes_per_second(net: nn.Module, x: Images, seconds: float, *, bf16: bool = False) -> float:
    """Images per second, forward and backward.

    Args:
        net: any net; no ``.grad`` is left on its weights.
        x: a batch, on the net's device.
        seconds: duration of the measurement; at least two batches are timed.
        bf16: run under autocast to bfloat16.
    """
    steps, started = 0, perf_counter()
    while True:
        with autocast("bf16", x.device) if bf16 else nullcontext():
            loss = net(x).float().logsumexp(1).sum()
        torch.autograd.grad(loss, tuple(net.parameters()))
        synchronize(x.device)
        steps += 1
        if steps == 1:  # warms up
            started, deadline = perf_counter(), perf_counter() + seconds
        elif steps > FEWEST and perf_counter() >= deadline:
            return (steps - 1) * len(x) / (perf_counter() - started)


def bf16_gain(net: nn.Module, x: Images, seconds: float, plain: float) -> float:
    """How many times as fast passes are in bf16; ``plain`` are images per second without it."""
    return passes_per_second(net, x, seconds, bf16=True) / plain


def lacks_compiler(device: torch.device) -> str:
    """What torch.compile lacks on this machine, in a few words; "" if nothing. Nothing is compiled, which is slow."""
    if device.type == "cuda":
        return "" if find_spec("triton") else "the package triton is missing"
    names = [os.environ.get("CXX", ""), "g++", "clang++", "c++"]
    return "" if any(which(name) for name in names if name) else "there is no C++ compiler, such as g++"

"""Count the floating-point operations of a call, and measure the processor's highest rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from toughen.engine.device import Precision, autocast


class _Operations(TorchDispatchMode):
    """Counts the operations of every call by torch's formulas; ``FlopCounterMode`` does not support autograd.grad."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def counted(run: Callable[[], object], calls: int = 1) -> float:
    """Floating-point operations of a call, as the mean over ``calls`` calls."""
    counter = _Operations()
    with counter:
        for _ in range(calls):
            run()
    return counter.total / calls


def best(device: str, precision: Precision, small: bool = False) -> dict[str, Callable[[], object]]:
    """Two operations that a processor runs at its highest rate: a large matrix product and a large convolution."""
    side, images, channels = (8192, 512, 256) if device != "cpu" else (1536, 32, 128)
    if small:
        side, images, channels = 256, 4, 16
    place = torch.device(device)
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=place, dtype=kind) for _ in range(2))
    x = torch.randn(images, channels, 32, 32, device=place, dtype=kind).to(memory_format=torch.channels_last)
    w = torch.randn(channels, channels, 3, 3, device=place, dtype=kind).to(memory_format=torch.channels_last)

    def product() -> None:
        with torch.no_grad(), autocast("fp32", place):
            a @ b

    def convolution() -> None:
        with torch.no_grad(), autocast("fp32", place):
            F.conv2d(x, w, padding=1)

    return {f"best product {precision}": product, f"best convolution {precision}": convolution}

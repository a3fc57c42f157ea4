"""How many images a forward pass takes: what suits the device, the work and the memory."""

from __future__ import annotations

import math

import torch
from torch import nn

from toughen.core import cost
from toughen.core.gradients import input_gradient
from toughen.core.modules import dtype_of, mode
from toughen.core.objectives import cross_entropy
from toughen.core.types import AnyImages, Images, Labels
from toughen.engine.device import preserved_rng_state
from toughen.engine.memory import is_out_of_memory

LEAST_WORK = 64e6  # floating-point operations of a pass on a CPU; with fewer, calling the layers takes most of the time


def block_size(device: torch.device, n: int, given: int | None = None, work: float | int | None = None) -> int:
    """Images per forward pass, where ``n`` images are evaluated.

    ``given`` by the user, but at most ``n``. Otherwise up to 64 on a CPU, whose cache that fits, and up to 512 on a
    GPU. On a CPU there are several batches, to distribute over cores, unless a batch would be little work. The number
    of cores has no influence, so that results are the same on another machine.

    Args:
        device: where the model runs.
        n: images.
        given: the user's choice; None for none.
        work: floating-point operations of a forward pass of one image; None where they are not known.
    """
    if given is not None:
        return min(given, max(n, 1))
    if device.type != "cpu":
        return min(512, max(64, _power_of_two(n)))
    several = max(8, 1 << max(n // 4, 1).bit_length() - 1)
    enough = min(_power_of_two(math.ceil(LEAST_WORK / work)), 8 * math.ceil(n / 8)) if work else 0
    return min(64, max(several, enough))


def _power_of_two(least: int) -> int:
    """The smallest power of two that is not below ``least``."""
    return 1 << max(least - 1, 0).bit_length()


def batch_size_for(net: nn.Module, images: AnyImages, given: int | None = None) -> int:
    """Images per forward pass, where a net is evaluated on these images: ``suitable_size``, if it fits.

    On a GPU the size is halved until the gradient of so many images fits into its memory, unless the user chose it.

    Args:
        net: on the images' device.
        images: all that are evaluated, [n, c, h, w].
        given: the user's choice; None for none.
    """
    size = suitable_size(net, images, given)
    return size if given is not None or images.device.type == "cpu" else size_that_fits(net, images, size)


def suitable_size(net: nn.Module, images: AnyImages, given: int | None = None) -> int:
    """Images per forward pass: ``block_size`` for the work of a pass, whatever the memory. For arguments see above."""
    work = work_of(net, images[:1]) if given is None and images.device.type == "cpu" else None
    return block_size(images.device, len(images), given, work)


def size_that_fits(net: nn.Module, images: AnyImages, size: int) -> int:
    """A batch size, halved until the gradient of so many images does not run out of memory.

    Args:
        net: in any mode, on the images' device.
        images: [n, c, h, w]; the first one is used.
        size: the largest batch size.

    Raises:
        RuntimeError, MemoryError: not even one image fits.
    """
    image = images[:1].to(dtype_of(net)) / (1 if images.is_floating_point() else 255)
    labels = torch.zeros(1, dtype=torch.int64, device=images.device)
    while not _fits(net, image, labels, size):
        size //= 2
        if images.device.type == "cuda":
            torch.cuda.empty_cache()
    return size


def _fits(net: nn.Module, image: Images, labels: Labels, size: int) -> bool:
    """Whether the gradient of a batch of this size does not run out of memory."""
    try:
        with preserved_rng_state(image.device), mode(net, "eval"):
            input_gradient(net, image.repeat(size, 1, 1, 1), labels.repeat(size), cross_entropy)
    except Exception as error:  # a user's own net may raise anything; other faults have messages of their own
        if is_out_of_memory(error):
            if size == 1:
                raise
            return False
    return True


def work_of(net: nn.Module, image: AnyImages) -> int | None:
    """Floating-point operations of a forward pass; None where they cannot be counted, as for a net of another kind."""
    try:
        with preserved_rng_state(image.device):
            return cost.flops(net, image.to(dtype_of(net))) or None
    except Exception:  # a user's own net may raise anything
        return None

"""A model as an evaluation asks it: in blocks of one size, fast where it searches and exactly where it judges."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from toughen import passes, stem
from toughen.device import autocast, pick_precision
from toughen.types import Images, Labels, Logits, Mask
from toughen.windows.graph import Graph

Precision: TypeAlias = Literal["bf16", "fp32", "fp64"]


EXACT_BLOCK = 8  # images per forward of the model itself: few fall at a time, and filling up costs
WORTH_BF16 = 5e6  # operations per image, below which casting costs more than it saves (measured on a CPU)


def search_precision(net: nn.Module, image: Images, wanted: Precision | Literal["auto"]) -> Precision:
    """What attacks on a net search in: "auto" means bf16 where the processor multiplies it and the net is worth it.

    Args:
        net: in any mode.
        image: one image, [1, c, h, w], where the net is.
        wanted: the user's choice.
    """
    if wanted == "fp64":
        return wanted
    found = pick_precision(wanted, image.device)
    if wanted != "auto" or found == "fp32":
        return found
    try:
        work = passes.flops(net, image)
    except Exception:  # what cannot be counted may be large
        return found
    return "fp32" if 0 < work < WORTH_BF16 else found


def block_size(device: torch.device, n: int) -> int:
    """How many images a forward takes, where ``n`` are evaluated.

    What fits a core's cache, or fills a GPU; less where there are few images, since blocks are filled up: a power of
    two that leaves several blocks to share out between cores. It does not look at how many cores there are, so that
    results are the same on another machine.
    """
    if device.type != "cpu":
        return min(512, max(64, 1 << (n - 1).bit_length()))
    return min(64, max(8, 1 << max(n // 4, 1).bit_length() - 1))


@dataclass
class Counts:
    """What a model did, in images.

    Attributes:
        forward: images that went forward, those of gradients among them.
        gradient: images whose gradient was taken, each as costly as a forward.
        confirmation: forwards of the model itself: to judge, to confirm, to order the classes of the clean image.
        padding: forwards and gradients that only filled the last block up, not counted above.
    """

    forward: int = 0
    gradient: int = 0
    confirmation: int = 0
    padding: int = 0

    @property
    def total(self) -> int:
        """Forward equivalents of the attack itself, as its paper would count them."""
        return self.forward + self.gradient


class Blocks(nn.Module):
    """A model whose every pass takes the same number of images, so that an image's logits depend on nothing but itself.

    Float32 logits depend in their last bits on the shape of the batch; here it never changes: the last block is filled
    up, and what fills it is dropped. So an attack may leave out images that fell, in any order, in any number of
    processes, and every other image's result stays the same bit for bit.

    Args:
        net: the model that is judged, in evaluation mode; it stays as it is.
        size: images per block.
        precision: "bf16" searches with a copy that multiplies in bf16, and ``confirm`` asks the model itself; "fp32"
            searches with a copy laid out for speed; "fp64" makes everything float64, where it is tested.
        copied: whether to search with a copy; without one the model itself is asked everywhere.

    Attributes:
        graph: the search's net as layers, of which a part can be computed alone; None where it is none, or on a GPU.
        counts: images that passed through since the start.
    """

    def __init__(self, net: nn.Module, size: int, precision: Precision = "fp32", *, copied: bool = True) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"a block of {size} images is none: give a size of 1 or more")
        self.size, self.precision, self.counts = size, precision, Counts()
        self.net = copy.deepcopy(net).double() if precision == "fp64" else net
        self.searched = _fast_copy(net, precision) if copied and precision != "fp64" else self.net
        self.graph = _graph(self.searched) if self.searched is not net else None
        self._exact_search = self.searched is self.net and precision != "bf16"

    @torch.no_grad()
    def forward(self, x: Images) -> Logits:
        """The search's logits, without a graph."""
        self.counts.forward += len(x)
        with self.searching(x):
            return self._each(self.searched, x, self.size)

    @torch.no_grad()
    def checked(self, x: Images) -> Logits:
        """The search's logits, to compare with what was found out in another way."""
        self.counts.confirmation += len(x)
        with self.searching(x):
            return self._each(self.searched, x, self.size)

    @torch.no_grad()
    def exact(self, x: Images) -> Logits:
        """The model's own logits, in float32 (or float64)."""
        self.counts.confirmation += len(x)
        return self._each(self.net, x, min(self.size, EXACT_BLOCK))

    @torch.no_grad()
    def confirm(self, x: Images, y: Labels, fell: Mask) -> Mask:
        """Which of the images that the search takes for broken are broken for the model itself."""
        if self._exact_search or not fell.any():
            return fell
        rows = fell.nonzero()[:, 0]
        confirmed = fell.clone()
        confirmed[rows] = wrong(self.exact(x[rows]), y[rows])
        return confirmed

    def _each(self, net: nn.Module, x: Images, size: int) -> Logits:
        return torch.cat([unwrap(net(x[rows]), len(rows))[:real] for rows, real in self.cut(x, size)])

    def cut(self, x: Images, size: int | None = None) -> Iterator[tuple[Labels, int]]:
        """The rows of each block, the last one filled up with its first row; and how many are real."""
        for rows, real in filled(len(x), size or self.size, x.device):
            self.counts.padding += len(rows) - real
            yield rows, real

    def twin(self) -> Blocks:
        """The same nets with counts of their own, for another thread."""
        made = copy.copy(self)
        made.counts = Counts()
        return made

    def searching(self, x: Images) -> torch.autocast | nullcontext[None]:
        """The context in which the search's net runs."""
        return autocast("bf16", x.device) if self.precision == "bf16" else nullcontext()  # type: ignore[return-value]


def filled(n: int, size: int, device: torch.device) -> Iterator[tuple[Labels, int]]:
    """Rows 0 to n - 1 in blocks of one size, the last one filled up with its first row; and how many are real."""
    for rows in torch.arange(n, device=device).split(size):
        yield torch.cat([rows, rows[:1].expand(size - len(rows))]), len(rows)


def wrong(logits: Logits, y: Labels) -> Mask:
    """Which images are not predicted as ``y``; one with a logit that is not finite is not."""
    return (logits.argmax(1) != y) | ~logits.isfinite().all(1)


def unwrap(out: object, n: int) -> Logits:
    """A model's logits for ``n`` images, in float32 at least, out of a tensor or of an object with ``.logits``.

    Raises:
        ValueError: the model did not return [n, k].
    """
    out = getattr(out, "logits", out)
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != n:
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(f"a model must return logits of shape [{n}, classes], this one returned {shape}")
    return out.float() if out.dtype in (torch.bfloat16, torch.float16) else out


def _fast_copy(net: nn.Module, precision: Precision) -> nn.Module:
    """A copy laid out channels last, for bf16 with its convolutions cast once instead of at every pass."""
    try:
        made: nn.Module = copy.deepcopy(net).requires_grad_(False)
    except (RuntimeError, TypeError, NotImplementedError, AttributeError):
        return net  # a model that cannot be copied is asked as it is
    made.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if precision == "bf16":
        for part in made.modules():
            if type(part) is nn.Conv2d:
                part.to(torch.bfloat16)
            elif type(part) is nn.Linear:
                part.__class__ = _Head
    if next(made.parameters(), torch.empty(0)).device.type == "cpu":
        for part in made.modules():
            if type(part) is nn.Conv2d and stem.fits(part):
                part.__class__ = stem.Stem
    return made


def _graph(net: nn.Module) -> Graph | None:
    """A copy as a graph; where launching kernels costs more than they do, asking in full is as fast."""
    if next(net.parameters(), torch.empty(0)).device.type != "cpu":
        return None
    try:
        return Graph(net)
    except ValueError:  # it is asked in full, with the same result
        return None


class _Head(nn.Linear):
    """A linear layer that, where it sees one vector an image, multiplies in float32.

    It is a small share of the work, but decides how finely logits are told apart: with bf16 logits, Square cannot see
    what a small window does, and stalls.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 2:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())

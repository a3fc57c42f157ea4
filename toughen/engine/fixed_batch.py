"""A model as an evaluation asks it: in blocks of one size, fast where it searches and exactly where it judges."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import Tensor, nn

from toughen.core import cost
from toughen.core.classifier import Classifier, Found, InputGradient, Query, misclassified
from toughen.core.gradients import gradient_of_batch, lowest_of_batch
from toughen.core.modules import mode, unwrap
from toughen.core.objectives import Objective
from toughen.core.types import Images, Labels, Logits, Mask, PerExample
from toughen.engine import search_copy
from toughen.engine.batches import Counts, block_size, filled, first, joined
from toughen.engine.device import Precision, autocast, pick_precision, whole_float32
from toughen.engine.logit_distance import SAME, difference, unlike
from toughen.engine.windows.query import search_windows

EXACT_BLOCK = 8  # images per forward of the model itself: few fall at a time, and filling up costs
UNLIKE = {"bf16": 0.2, "fp32": 1e-3, "fp64": 1e-6}  # of the logits' size: beyond, a copy answers something else
DRAWS, WRONG = 20, 16  # answers of a model that draws to an image; how many of them are wrong where it is broken
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
    precision = pick_precision(wanted, image.device)
    if wanted != "auto" or precision == "fp32":
        return precision
    try:
        work = cost.flops(net, image)
    except Exception:  # what cannot be counted may be large
        return precision
    return "fp32" if 0 < work < WORTH_BF16 else precision


def classifier(net: nn.Module, x: Images, precision: Precision | Literal["auto"], batch_size: int | None) -> Classifier:
    """As ``toughen.core.classifier.as_classifier``, of a plain net."""
    wanted = "fp64" if x.dtype.itemsize == 8 else precision
    return FixedBatchModel(net, block_size(x.device, len(x), batch_size), search_precision(net, x[:1], wanted))


class FixedBatchModel(Classifier):
    """A model whose every pass takes the same number of images, so that an image's logits depend on nothing but itself.

    Float32 logits depend in their last bits on the shape of the batch; here it never changes: the last block is filled
    up, and what fills it is dropped. So an attack may leave out images that fell, in any order, in any number of
    processes, and every other image's result stays the same bit for bit.

    Args:
        net: the model that is judged, in evaluation mode; it stays as it is.
        size: images per block.
        precision: "bf16" searches with a copy that multiplies in bf16, and ``confirm`` asks the model itself; "fp32"
            searches with a copy laid out for speed; "fp64" makes everything float64, where it is tested.
        copied: whether to search with a copy; without one the model itself is asked everywhere. So it is where a copy
            turns out to answer something else, and in float32, where the model itself does so in bf16.

    Attributes:
        graph: the search's net as layers, of which a part can be computed alone; None where it is none, or on a GPU.
        counts: images that passed through since the start.
        random: whether the model gives the same images other logits when asked again; None while nobody has seen.
    """

    def __init__(self, net: nn.Module, size: int, precision: Precision = "fp32", *, copied: bool = True) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"block size {size} is too small: give 1 or more")
        self.size, self.precision, self.counts = size, precision, Counts()
        self.net = copy.deepcopy(net).double() if precision == "fp64" else net
        self.searched = (
            search_copy.fast_copy(net, bf16=precision == "bf16") if copied and precision != "fp64" else self.net
        )
        self.graph = search_copy.graph(self.searched) if self.searched is not net else None
        self._seen_alike = False
        self.random: bool | None = None

    @property
    def low_precision(self) -> bool:
        return self.precision == "bf16"

    @property
    def pass_size(self) -> int:
        return self.size

    def like(self, other: nn.Module) -> nn.Module:
        return other if isinstance(other, FixedBatchModel) else FixedBatchModel(other, self.size, self.precision)

    @property
    def _exact_search(self) -> bool:
        return self.searched is self.net and self.precision != "bf16"

    @torch.no_grad()
    def compare(self, x: Images) -> None:
        """See, once, that the search's copy answers as the model does; the model itself is searched where it does not.

        A copy can be tied to what it was copied from, as by a hook that writes into it: it continues with old maps
        then, and no attack on it breaks the model.
        """
        if self._seen_alike or not len(x) or (self.searched is self.net and self.precision != "bf16"):
            return
        self._seen_alike = True
        if not self._agrees(self.searched, x):
            self.searched, self.graph = self.net, None
            if self.precision == "bf16" and not self._agrees(self.net, x):  # not the copy is at fault, but bf16
                self.precision = "fp32"

    def _agrees(self, other: nn.Module, x: Images) -> bool:
        """Whether another net answers two blocks as the model does; one that draws cannot be compared with."""
        with mode(self.net, "eval"), mode(other, "eval"), unseen_draws(x.device):
            tried = self._two_blocks(x)
            own = [self._once(self.net, part) for part in (*tried, tried[0])]
            return unlike(own[2], own[0]) > UNLIKE[self.precision] or self._answers(other, tried, own)

    def _answers(self, net: nn.Module, tried: Sequence[Tensor], wanted: Sequence[Tensor]) -> bool:
        """Whether a net answers these blocks with these logits."""
        try:
            with self._casting(tried[0]):
                outputs = [self._once(net, part) for part in tried]
        except Exception:  # whatever a net of the user's own raises
            return False
        return all(unlike(one, other) <= UNLIKE[self.precision] for one, other in zip(outputs, wanted, strict=False))

    def _two_blocks(self, x: Images) -> list[Tensor]:
        """Two blocks of different images, where there are as many."""
        cuts = [rows for rows, _ in filled(len(x), self.size, x.device)]
        return [x[cuts[0]], x[cuts[-1]] if len(cuts) > 1 else x[cuts[0].flip(0)]]

    def _once(self, net: nn.Module, x: Images) -> Logits:
        return unwrap(net(x), len(x))

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
        with whole_float32(x.device):
            return self._each(self.net, x, min(self.size, EXACT_BLOCK))

    @torch.no_grad()
    def confirm(self, x: Images, y: Labels, fell: Mask) -> Mask:
        """Which of the images that the search takes for broken are broken for the model itself."""
        if not fell.any() or (self._exact_search and not self.draws(x)):
            return fell
        rows = fell.nonzero()[:, 0]
        confirmed = fell.clone()
        confirmed[rows] = self.misclassifies(x[rows], y[rows])
        return confirmed

    @torch.no_grad()
    def draws(self, x: Images) -> bool:
        """Whether the model draws its answer; seen once, where one block of images is asked twice, uncounted."""
        if self.random is None and len(x):
            rows, _ = next(filled(len(x), min(self.size, EXACT_BLOCK), x.device))
            with mode(self.net, "eval"), whole_float32(x.device), unseen_draws(x.device):
                one, other = (self._once(self.net, x[rows]) for _ in range(2))
            self.random = one.shape != other.shape or difference(one, other) > SAME
        return bool(self.random)

    @torch.no_grad()
    def misclassifies(self, x: Images, y: Labels) -> Mask:
        """Which images the model itself gets wrong; where it draws its answer, in ``WRONG`` of ``DRAWS`` fresh ones.

        One wrong answer of a model that draws is luck, and an attack that tries often finds luck. Of an image that is
        wrong in half of all answers or fewer, 16 of 20 are wrong with a probability of 0.6 % at most (binomial), so
        what counts is wrong more often than right at a confidence of 99 %. 15 of 20 would be 2.1 %.
        """
        if not self.draws(x):
            return misclassified(self.exact(x), y)
        wrong = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        for draw in range(DRAWS):
            rows = (wrong >= draw + WRONG - DRAWS).nonzero()[:, 0]  # those that can still be counted as broken
            if len(rows):
                wrong[rows] += misclassified(self.exact(x[rows]), y[rows]).long()
        return wrong >= WRONG

    def input_gradient(self, x: Images, target: Labels | Logits, objective: Objective) -> InputGradient:
        """Block by block; all at once for an objective that couples the images of a batch."""
        self.counts.forward += len(x)
        self.counts.gradient += len(x)
        with self.searching(x):
            if getattr(objective, "batchwise", False):
                return gradient_of_batch(self.searched, x, target, objective, strict=False)
            results: list[InputGradient] = []
            for rows, real in self.cut(x):
                part = gradient_of_batch(self.searched, x[rows], target[rows], objective.select(rows), strict=False)
                results.append(first(part, real))
        return joined(results)

    def lowest_gradient(
        self,
        x: Images,
        target: Labels | Logits,
        objectives: Sequence[Objective],
        height: Callable[[InputGradient], PerExample],
        wanted: int,
    ) -> InputGradient:
        """Block by block, in which an image that needs no gradient may get one."""
        results: list[InputGradient] = []
        with self.searching(x):
            done = 0
            for rows, real in self.cut(x):
                some = [objective.select(rows) for objective in objectives] if done < wanted else []
                part = lowest_of_batch(self.searched, x[rows], target[rows], some, height, strict=False)
                results.append(first(part, real))
                done += real
                self.counts.forward += real
                self.counts.gradient += real * len(some)
        return joined(results)

    def search_windows(self, x: Images, side: int, search: Callable[[Labels, Query], Found]) -> list[Found]:
        return search_windows(self, x, side, search)

    def _each(self, net: nn.Module, x: Images, size: int) -> Logits:
        return torch.cat([unwrap(net(x[rows]), len(rows))[:real] for rows, real in self.cut(x, size)])

    def cut(self, x: Images, size: int | None = None) -> Iterator[tuple[Labels, int]]:
        """The rows of each block, the last one filled up with its first row; and how many are real."""
        for rows, real in filled(len(x), size or self.size, x.device):
            self.counts.padding += len(rows) - real
            yield rows, real

    @torch.no_grad()
    def twin(self, x: Images) -> FixedBatchModel | None:
        """The same for another thread: copies that share the weights, since a net may keep what it is at on itself.

        Args:
            x: images, to see that the copies answer as these do.

        Returns:
            None where they don't, or cannot be made: then only one thread can ask.
        """
        if any(getattr(module, "uncopied", False) for module in self.net.modules()):
            return None
        self.compare(x)
        try:
            net = search_copy.share_weights(self.net)
            searched = net if self.searched is self.net else search_copy.share_weights(self.searched)
        except search_copy.FAILING:
            return None
        if not (self._agrees(net, x) and self._agrees(searched, x)):
            return None
        twin = copy.copy(self)
        twin._modules = {**self._modules, "net": net, "searched": searched}  # its own, where copy.copy shares them
        twin.graph, twin.counts = search_copy.graph(searched) if self.graph is not None else None, Counts()
        return twin

    def searching(self, x: Images) -> AbstractContextManager[None]:
        """The context in which the search's net runs."""
        self.compare(x)
        return self._casting(x)

    def _casting(self, x: Images) -> AbstractContextManager[None]:
        return autocast("bf16", x.device) if self.precision == "bf16" else whole_float32(x.device)


def unseen_draws(device: torch.device) -> AbstractContextManager[None]:
    """Within the block a model may draw, and what is drawn afterwards is what would have been."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])

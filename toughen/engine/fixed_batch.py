"""A model as an evaluation calls it: in batches of a fixed size, fast in the search and exact in the judgement."""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import Tensor, nn

from toughen.core.classifier import Classifier, InputGradient
from toughen.core.gradients import gradient_of_batch, nearest_of_batch
from toughen.core.modules import mode, unwrap
from toughen.core.objectives import Objective, cross_entropy, misclassified
from toughen.core.types import Images, Labels, Logits, Mask, PerExample
from toughen.engine import search_copy
from toughen.engine.batch_size import batch_size_for, work_of
from toughen.engine.batches import Counts, concatenated, first_images, padded_batches
from toughen.engine.compare_logits import SAME, largest_difference, relative_difference
from toughen.engine.device import Precision, autocast, pick_precision, preserved_rng_state, without_tf32

EXACT_BLOCK = 8  # images per exact forward pass: few images are fooled at a time, and padding costs
MAX_DIFFERENCE = {"bf16": 0.2, "fp32": 1e-3, "fp64": 1e-6}  # relative; a copy whose logits differ more is not used
TRIALS, WRONG_TRIALS = 20, 16  # forward passes that judge an image with random outputs, and how many must be wrong
WORTH_BF16 = 5e6  # operations per image; below, casting to bf16 costs more than it saves (measured on a CPU)


def search_precision(net: nn.Module, image: Images, wanted: Precision | Literal["auto"]) -> Precision:
    """The precision in which attacks search; "auto" means bf16 where the hardware supports it and the net is large.

    Args:
        net: in any mode.
        image: one image, [1, c, h, w], on the net's device.
        wanted: the user's choice.
    """
    if wanted == "fp64":
        return wanted
    precision = pick_precision(wanted, image.device)
    if wanted != "auto" or precision == "fp32":
        return precision
    work = work_of(net, image)
    return precision if work is None or work >= WORTH_BF16 else "fp32"


def as_classifier(
    net: nn.Module, x: Images, *, precision: Precision | Literal["auto"] = "auto", batch_size: int | None = None
) -> Classifier:
    """A net as an evaluation calls it; a ``Classifier`` is returned as it is.

    Args:
        net: any module that returns logits.
        x: the images that it will be called with, [n, c, h, w].
        precision: of the search; "auto" means bf16 where that is faster.
        batch_size: images per pass; None means what suits the device.
    """
    if isinstance(net, Classifier):
        return net
    wanted = "fp64" if x.dtype.itemsize == 8 else precision
    return FixedBatchModel(net, batch_size_for(net, x, batch_size), search_precision(net, x[:1], wanted))


class Abandoned(BaseException):
    """Nobody waits for these passes any more."""


class FixedBatchModel(Classifier):
    """A model whose every pass takes the same number of images, so that an image's logits depend on that image alone.

    The last bits of float32 logits depend on the shape of the batch, so the shape never changes: the last batch is
    padded, and the results of the padding are dropped. So an attack may leave out images that are fooled, in any order
    and in any number of processes, and the results of all other images stay the same bit for bit.

    Args:
        net: the model that is judged, in evaluation mode; it is not changed.
        size: images per batch.
        precision: "bf16" searches with a copy in bf16, and ``confirm`` calls the model itself; "fp32" searches with a
            copy that is laid out for speed; "fp64" runs everything in float64, for tests.
        copied: whether to search with a copy; without one, the search uses the model itself. So it does where a copy
            gives other logits, and in float32 where the model itself gives other logits in bf16.

    Attributes:
        search_net: the copy that the search uses, or ``net``.
        counts: images that passed through since the start.
        random: whether the model gives the same images different logits in each pass; None before it was tested.
        abandoned: once its value is true, which another thread or process may set, the next pass raises ``Abandoned``.
    """

    def __init__(self, net: nn.Module, size: int, precision: Precision = "fp32", *, copied: bool = True) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"block size {size} is too small: give 1 or more")
        self.size, self.precision, self.counts = size, precision, Counts()
        self.net = copy.deepcopy(net).double() if precision == "fp64" else net
        self.search_net = (
            search_copy.fast_copy(net, bf16=precision == "bf16") if copied and precision != "fp64" else self.net
        )
        self._compared = False
        self.random: bool | None = None
        self.abandoned = ctypes.c_bool(False)

    @property
    def low_precision(self) -> bool:
        return self.precision == "bf16"

    @property
    def pass_size(self) -> int:
        return self.size

    def wrap(self, other: nn.Module) -> nn.Module:
        return other if isinstance(other, FixedBatchModel) else FixedBatchModel(other, self.size, self.precision)

    @property
    def _exact_search(self) -> bool:
        """Whether the search uses the model itself, in full precision."""
        return self.search_net is self.net and self.precision != "bf16"

    @torch.no_grad()
    def compare(self, x: Images) -> None:
        """Check, once, that the search's copy gives the model's logits; otherwise the search uses the model itself.

        A copy can stay tied to the original, for example by a hook that writes into the original. Such a copy computes
        with outdated activations, and no attack on it would break the model.
        """
        if self._compared or not len(x) or self._exact_search:
            return
        self._compared = True
        if not self._agrees(self.search_net, x):
            self.search_net = self.net
            if self.precision == "bf16" and not self._agrees(self.net, x):  # the fault is bf16, not the copy
                self.precision = "fp32"

    def _agrees(self, other: nn.Module, x: Images) -> bool:
        """Whether another net gives the model's logits on two batches; always true of a model with random outputs."""
        with mode(self.net, "eval"), mode(other, "eval"), preserved_rng_state(x.device):
            batches = self._two_batches(x)
            first, second, repeated = (unwrap(self.net(each), len(each)) for each in (*batches, batches[0]))
            if relative_difference(repeated, first) > MAX_DIFFERENCE[self.precision]:
                return True
            try:
                with self._casting(x):
                    others = [unwrap(other(each), len(each)) for each in batches]
            except Exception:  # a user's own net may raise anything
                return False
            pairs = zip(others, (first, second), strict=True)
            return all(relative_difference(one, own) <= MAX_DIFFERENCE[self.precision] for one, own in pairs)

    def _two_batches(self, x: Images) -> list[Tensor]:
        """Two batches of different images, or of the same in reverse order where there are too few."""
        cuts = [rows for rows, _ in padded_batches(len(x), self.size, x.device)]
        return [x[cuts[0]], x[cuts[-1]] if len(cuts) > 1 else x[cuts[0].flip(0)]]

    def forward(self, x: Images) -> Logits:
        """The search's logits; with a graph only where ``x`` requires gradients, as in a user's own attack."""
        graph = x.requires_grad and torch.is_grad_enabled()
        self.counts.forward += len(x)
        self.counts.gradient += len(x) * graph
        with torch.set_grad_enabled(graph), self.searching(x):
            return self._logits(self.search_net, x, self.size)

    @torch.no_grad()
    def exact(self, x: Images) -> Logits:
        """The model's own logits, in float32 (or float64)."""
        self.counts.confirmation += len(x)
        with without_tf32(x.device):
            return self._logits(self.net, x, min(self.size, EXACT_BLOCK))

    @torch.no_grad()
    def confirm(self, x: Images, y: Labels, fooled: Mask) -> Mask:
        if not fooled.any() or (self._exact_search and not self.is_random(x)):
            return fooled
        rows = fooled.nonzero()[:, 0]
        confirmed = fooled.clone()
        confirmed[rows] = self.misclassifies(x[rows], y[rows])
        return confirmed

    @torch.no_grad()
    def is_random(self, x: Images) -> bool:
        """Whether the model's outputs are random; tested once, by two uncounted passes on the same batch."""
        if self.random is None and len(x):
            rows, _ = next(padded_batches(len(x), min(self.size, EXACT_BLOCK), x.device))
            with mode(self.net, "eval"), without_tf32(x.device), preserved_rng_state(x.device):
                one, other = (unwrap(self.net(x[rows]), len(rows)) for _ in range(2))
            self.random = one.shape != other.shape or largest_difference(one, other) > SAME
        return bool(self.random)

    def has_gradient(self, x: Images, y: Labels) -> bool:
        """Whether the model's logits have a gradient with respect to the images; tested by one uncounted pass."""
        rows, _ = next(padded_batches(len(x), min(self.size, EXACT_BLOCK), x.device))
        with mode(self.net, "eval"), preserved_rng_state(x.device):
            try:
                gradient_of_batch(self.net, x[rows], y[rows], cross_entropy)
            except (ValueError, RuntimeError):
                return False
        return True

    @torch.no_grad()
    def misclassifies(self, x: Images, y: Labels) -> Mask:
        """Which images the model itself misclassifies; with random outputs, in ``WRONG_TRIALS`` of ``TRIALS`` passes.

        A single wrong output of such a model is chance, and an attack with many tries finds one. An image that is wrong
        in half of all passes or fewer is wrong in 16 of 20 with a probability of at most 0.6 % (binomial), in 15 of 20
        of 2.1 %. So an image that counts is wrong more often than right, at a confidence of 99 %.
        """
        if not self.is_random(x):
            return misclassified(self.exact(x), y)
        wrong = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        for trial in range(TRIALS):
            rows = (wrong >= trial + WRONG_TRIALS - TRIALS).nonzero()[:, 0]  # those that can still reach WRONG_TRIALS
            if len(rows):
                wrong[rows] += misclassified(self.exact(x[rows]), y[rows]).long()
        return wrong >= WRONG_TRIALS

    def input_gradient(self, x: Images, target: Labels | Logits, objective: Objective) -> InputGradient:
        """Batch by batch; all images in one pass for an objective that couples the images of a batch."""
        self.counts.forward += len(x)
        self.counts.gradient += len(x)
        with self.searching(x):
            if getattr(objective, "batchwise", False):
                return gradient_of_batch(self.search_net, x, target, objective, strict=False)
            results: list[InputGradient] = []
            for rows, length in self.padded_batches(x):
                part = gradient_of_batch(self.search_net, x[rows], target[rows], objective.select(rows), strict=False)
                results.append(first_images(part, length))
        return concatenated(results)

    def nearest_gradient(
        self,
        x: Images,
        target: Labels | Logits,
        objectives: Sequence[Objective],
        distance: Callable[[InputGradient], PerExample],
        count: int,
    ) -> InputGradient:
        """Batch by batch; the batch that holds image ``count`` gets gradients for all of its images."""
        results: list[InputGradient] = []
        with self.searching(x):
            done = 0
            for rows, length in self.padded_batches(x):
                some = [objective.select(rows) for objective in objectives] if done < count else []
                part = nearest_of_batch(self.search_net, x[rows], target[rows], some, distance, strict=False)
                results.append(first_images(part, length))
                done += length
                self.counts.forward += length
                self.counts.gradient += length * len(some)
        return concatenated(results)

    def _logits(self, net: nn.Module, x: Images, size: int) -> Logits:
        batches = self.padded_batches(x, size)
        return torch.cat([unwrap(net(x[rows]), len(rows))[:length] for rows, length in batches])

    def padded_batches(self, x: Images, size: int | None = None) -> Iterator[tuple[Labels, int]]:
        """As ``toughen.engine.batches.padded_batches``, and counts the padding.

        Raises:
            Abandoned: nobody waits for the result.
        """
        for rows, length in padded_batches(len(x), size or self.size, x.device):
            if self.abandoned.value:
                raise Abandoned
            self.counts.padding += len(rows) - length
            yield rows, length

    @torch.no_grad()
    def thread_copy(self, x: Images) -> FixedBatchModel | None:
        """A copy for another thread, which shares the weights: a forward pass may store things on the net itself.

        Args:
            x: images, to check that the copy gives the same logits.

        Returns:
            None where it gives others, or the net cannot be copied: then only one thread can use it.
        """
        if any(getattr(module, "uncopied", False) for module in self.net.modules()):
            return None
        self.compare(x)
        try:
            net = search_copy.share_weights(self.net)
            search_net = net if self.search_net is self.net else search_copy.share_weights(self.search_net)
        except search_copy.FAILING:
            return None
        if not (self._agrees(net, x) and self._agrees(search_net, x)):
            return None
        copied = copy.copy(self)
        copied._modules = {**self._modules, "net": net, "search_net": search_net}  # copy.copy shares the dict
        copied.counts = Counts()
        return copied

    def searching(self, x: Images) -> AbstractContextManager[None]:
        """The context in which the search's net runs."""
        self.compare(x)
        return self._casting(x)

    def _casting(self, x: Images) -> AbstractContextManager[None]:
        return autocast("bf16", x.device) if self.precision == "bf16" else without_tf32(x.device)

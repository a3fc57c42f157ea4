"""Logits of images of which a window of pixels changes: only the activations that depend on it are recomputed.

A convolution's output depends on a few inputs around it, so a change of a few pixels changes a few places of the first
feature maps. The feature maps of the accepted images are cached. After a change, the affected places are recomputed.
From the layer on where most of the map is affected, the rest of the net is computed in full. Each value is computed
from its inputs, never corrected by a difference, so that rounding errors do not add up.

The net is traced as a graph of layers, and the graph is checked: whenever windows get smaller, and at the end, its
logits are compared with those of the net itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, fx, nn

from toughen.core.classifier import Query, Result
from toughen.core.modules import unwrap
from toughen.core.queries import FullQuery
from toughen.core.types import Images, Labels, Logits, Mask
from toughen.core.window import Window
from toughen.engine.batches import Counts, padded_batches
from toughen.engine.compare_logits import distance_and_scale
from toughen.engine.device import Precision
from toughen.engine.windows.graph import Graph, Layer, Split

TOLERANCE = {"bf16": 1e-2, "fp32": 1e-4, "fp64": 1e-9}
"""The largest difference between incremental and full logits, relative to the spread of an image's highest logits."""
MEMORY = 2**29  # bytes, for the cached feature maps of all images that are searched at once


@runtime_checkable
class BatchedModel(Protocol):
    """What ``IncrementalQuery`` needs of a model; ``toughen.engine.fixed_batch.FixedBatchModel`` has it.

    Attributes:
        size: images per batch.
        precision: of the search.
        graph: the search's net as a graph of layers; None where it has none.
        counts: images that passed through.
    """

    size: int
    precision: Precision
    graph: Graph | None
    counts: Counts

    def compare(self, x: Images) -> None:
        """Check, once, that the search's net gives the model's logits."""

    def searching(self, x: Images) -> AbstractContextManager[None]:
        """The context in which the search's net runs."""

    def search_logits(self, x: Images) -> Logits:
        """The search's logits of whole images, counted as confirmation."""


def query(model: nn.Module, x: Images) -> Query:
    """An incremental query of a model where its layers allow one, else a full one."""
    layers = _layers(model, x)
    return IncrementalQuery(model, layers, x) if layers else FullQuery(model)


def images_at_once(model: nn.Module, x: Images, side: int) -> int:
    """How many images ``MEMORY`` allows to search together, with windows of this side: whole batches, at least one."""
    layers = _layers(model, x)
    if not isinstance(model, BatchedModel) or model.graph is None or not layers:
        return len(x)
    with model.searching(x), torch.no_grad():
        maps, _ = Split(model.graph, layers, side).full(x[:1])
    each = sum(int(one.nbytes) for one in maps)
    return max(1, MEMORY // each // model.size) * model.size


def search_windows(model: nn.Module, x: Images, side: int, search: Callable[[Labels, Query], Result]) -> list[Result]:
    """As ``toughen.core.queries.search_windows``; a group is searched again in full after a ``MismatchError``."""
    results = []
    for rows in torch.arange(len(x), device=x.device).split(images_at_once(model, x, side)):
        try:
            results.append(search(rows, query(model, x[rows])))
        except MismatchError:
            results.append(search(rows, FullQuery(model)))
    return results


def _layers(model: nn.Module, x: Images) -> list[Layer]:
    """The layers of a model that can be computed for a window alone; empty where it has no graph."""
    if not isinstance(model, BatchedModel) or not len(x):
        return []
    model.compare(x)
    if model.graph is None:
        return []
    with model.searching(x), torch.no_grad():
        return model.graph.layers(x[:1])


class MismatchError(Exception):
    """The incremental logits differ from those of the net itself."""


class IncrementalQuery(FullQuery):
    """Recomputes only what depends on the changed windows.

    Args:
        model: gives the logits.
        layers: those that can be computed for a window alone.
        x: the images to begin with, [n, c, h, w].

    Raises:
        MismatchError: by ``resize`` and ``finish``: the logits returned so far were wrong; search again in full.
    """

    def __init__(self, model: nn.Module, layers: list[Layer], x: Images) -> None:
        super().__init__(model)
        assert isinstance(model, BatchedModel)
        self.batched: BatchedModel = model
        self.layers = layers
        self.batches: list[CachedMaps] = []  # empty: no layer is worth it at this side, so logits are computed in full
        self.lengths: list[int] = []  # of each batch, without padding
        self.candidate_logits = self.accepted_logits = x.new_empty(0, 0)

    def resize(self, x: Images, side: int) -> None:
        assert self.batched.graph is not None
        self.finish(x)
        split = Split(self.batched.graph, self.layers, side)
        self.batches, self.lengths, outputs = [], [], []
        for rows, length in padded_batches(len(x), self.batched.size, x.device) if split.layers else ():
            with self.batched.searching(x):
                maps, out = split.full(x[rows])
            self.batches.append(CachedMaps(split, maps))
            self.lengths.append(length)
            outputs.append(unwrap(out, len(rows))[:length])
        if outputs:
            self._compare(x, torch.cat(outputs))
            self._check_cache_is_unchanged()

    def logits(self, x: Images, windows: Sequence[Window]) -> Logits:
        if not self.batches:
            return super().logits(x, windows)
        outputs, start = [], 0
        split = self.batches[0].split
        affected = [split.affected(window) for window in windows]
        with self.batched.searching(x):
            for batch, length in zip(self.batches, self.lengths, strict=True):
                for window, layers in zip(windows, affected, strict=True):
                    batch.change(x[start : start + length], window, layers)
                outputs.append(unwrap(batch.logits(), self.batched.size)[:length])
                start += length
        self.batched.counts.forward += len(x)
        self.batched.counts.padding += len(self.batches) * self.batched.size - len(x)
        self.candidate_logits = torch.cat(outputs)
        return self.candidate_logits

    def accept(self, accepted: Mask) -> None:
        for batch, rows in zip(self.batches, accepted.split(self.lengths) if self.batches else (), strict=True):
            batch.accept(rows)
        if self.batches:
            self.accepted_logits = torch.where(accepted[:, None], self.candidate_logits, self.accepted_logits)

    def select(self, rows: Mask) -> None:
        if not self.batches:
            return
        split, batches = self.batches[0].split, list(zip(self.batches, self.lengths, strict=True))
        maps = [torch.cat([batch.maps[node][:length] for batch, length in batches])[rows] for node in split.cached]
        self.accepted_logits = self.accepted_logits[rows]
        cuts = list(padded_batches(len(self.accepted_logits), self.batched.size, rows.device))
        self.batches = [CachedMaps(split, [each[numbers] for each in maps]) for numbers, _ in cuts]
        self.lengths = [length for _, length in cuts]

    def finish(self, x: Images) -> None:
        if self.batches:
            self._compare(x, self.accepted_logits)

    def _check_cache_is_unchanged(self) -> None:
        """Check that the remainder of the net does not write to the cached feature maps."""
        batch = self.batches[0]
        before = [each.clone() for each in batch.maps.values()]
        with self.batched.searching(before[0]):
            batch.logits()
        self.batched.counts.confirmation += self.lengths[0]
        if not all(torch.equal(one, other) for one, other in zip(before, batch.maps.values(), strict=True)):
            raise MismatchError

    def _compare(self, x: Images, incremental: Logits) -> None:
        """Check incremental logits against those of whole images, and go on from the latter."""
        full = self.batched.search_logits(x)
        distance, scale = distance_and_scale(incremental, full)
        if not float(distance.max()) <= TOLERANCE[self.batched.precision] * float(scale.max()):
            raise MismatchError
        self.accepted_logits = full


class CachedMaps:
    """The cached feature maps of a batch of images, and what the last changes overwrote in them.

    Args:
        split: the net.
        maps: of ``split.cached``, [n, c, h, w] each, the images first.
    """

    def __init__(self, split: Split, maps: Sequence[Tensor]) -> None:
        self.split, self.maps = split, dict(zip(split.cached, maps, strict=True))
        self.overwritten: list[tuple[Tensor, Tensor]] = []  # views into the maps, and their values before

    def change(self, images: Images, window: Window, affected: Sequence[tuple[Layer, Window]]) -> None:
        """Copy a window of the images, which may be fewer than the batch, and recompute what depends on it."""
        view = self._writable(self.split.graph.images, window)
        view[: len(images)] = window.of(images)
        uncached: dict[fx.Node, Tensor] = {}  # outputs that only pointwise layers read, for the window alone
        for layer, outputs in affected:
            inputs = [
                uncached[node] if node in uncached else layer.receptive_field.crop_inputs(self.maps[node], outputs)
                for node in layer.inputs
            ]
            value = layer.compute(*inputs)
            if layer.node in self.maps:
                self._writable(layer.node, outputs).copy_(value)
            else:
                uncached[layer.node] = value

    def _writable(self, node: fx.Node, window: Window) -> Tensor:
        """A view of a cached map to write to; what it holds now is remembered."""
        view = window.of(self.maps[node])
        self.overwritten.append((view, view.clone()))
        return view

    def logits(self) -> object:
        """What the net returns for the images with all changes."""
        return self.split.remainder(*self.maps.values())

    def accept(self, accepted: Mask) -> None:
        """Undo the changes since the last call, except in the accepted images."""
        n = len(accepted)
        for view, before in reversed(self.overwritten):
            view[:n] = torch.where(accepted.view(-1, 1, 1, 1), view[:n], before[:n])
        self.overwritten.clear()

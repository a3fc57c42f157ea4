"""Logits of images that change in a window at a time: only what a window reaches is computed again.

A convolution looks no further than its kernel, so a change of a few pixels changes a few places of the first maps. The
maps of the images as they are stand by; after a change the places that it reaches are computed anew, and the rest of
the net, from where most of a map is reached, in full. Every value is a fresh sum over its inputs, none is corrected by
a difference, so nothing drifts.

The net is read as a graph of layers, and the graph is not believed: whenever windows get smaller, and at the end, its
logits are compared with the net's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, fx, nn

from toughen.core.classifier import Found, Query
from toughen.core.modules import unwrap
from toughen.core.queries import FullQuery
from toughen.core.types import Images, Labels, Logits, Mask
from toughen.core.window import Window
from toughen.engine.batches import Counts, filled
from toughen.engine.device import Precision
from toughen.engine.logit_distance import apart
from toughen.engine.windows.graph import Graph, Layer, Split

TOLERANCE = {"bf16": 1e-2, "fp32": 1e-4, "fp64": 1e-9}
"""Of how far an image's highest logits lie apart: up to here those computed window by window are the net's own."""
MEMORY = 2**29  # bytes, for the maps that stand by of all images that are searched at once


@runtime_checkable
class BatchedModel(Protocol):
    """What is asked in part, as ``toughen.engine.fixed_batch`` makes it: a model in batches of one size.

    Attributes:
        size: images per batch.
        precision: what is searched in.
        graph: the net that is searched with as layers; None where it is none.
        counts: images that passed through.
    """

    size: int
    precision: Precision
    graph: Graph | None
    counts: Counts

    def compare(self, x: Images) -> None:
        """See, once, that the net that is searched with answers as the model does."""

    def searching(self, x: Images) -> AbstractContextManager[None]:
        """The context in which that net runs."""

    def checked(self, x: Images) -> Logits:
        """That net's logits of whole images, to compare with."""


def query(model: nn.Module, x: Images) -> Query:
    """What asks a model: about what changed, where that is possible."""
    layers = _layers(model, x)
    return IncrementalQuery(model, layers, x) if layers else FullQuery(model)


def images_at_once(model: nn.Module, x: Images, side: int) -> int:
    """How many of these images may be searched together with windows of this side: whole batches, at least one."""
    layers = _layers(model, x)
    if not isinstance(model, BatchedModel) or model.graph is None or not layers:
        return len(x)
    with model.searching(x), torch.no_grad():
        maps, _ = Split(model.graph, layers, side).whole(x[:1])
    each = sum(int(one.nbytes) for one in maps)
    return max(1, MEMORY // each // model.size) * model.size


def search_windows(model: nn.Module, x: Images, side: int, search: Callable[[Labels, Query], Found]) -> list[Found]:
    """As ``toughen.core.queries.search_windows``; begun again in full where the net says otherwise than its layers."""
    results = []
    for rows in torch.arange(len(x), device=x.device).split(images_at_once(model, x, side)):
        try:
            results.append(search(rows, query(model, x[rows])))
        except MismatchError:
            results.append(search(rows, FullQuery(model)))
    return results


def _layers(model: nn.Module, x: Images) -> list[Layer]:
    """The layers of a model that can be computed in part; none, where it is no graph of layers."""
    if not isinstance(model, BatchedModel) or not len(x):
        return []
    model.compare(x)
    if model.graph is None:
        return []
    with model.searching(x), torch.no_grad():
        return model.graph.layers(x[:1])


class MismatchError(Exception):
    """Window by window a net says something else than it says itself."""


class IncrementalQuery(FullQuery):
    """Asks a model about what changed.

    Args:
        model: what is asked.
        layers: those that can be computed in part.
        x: the images to begin with.

    Raises:
        MismatchError: by ``resize`` and ``finish``: what was returned was not the model's; begin again in full.
    """

    def __init__(self, model: nn.Module, layers: list[Layer], x: Images) -> None:
        super().__init__(model)
        assert isinstance(model, BatchedModel)
        self.batched: BatchedModel = model
        self.layers = layers
        self.parts: list[Maps] = []
        self.reals: list[int] = []
        self.asked = self.settled = x.new_empty(0, 0)

    def resize(self, x: Images, side: int) -> None:
        assert self.batched.graph is not None
        self.finish(x)
        split = Split(self.batched.graph, self.layers, side)
        self.parts, self.reals, outputs = [], [], []
        for rows, real in filled(len(x), self.batched.size, x.device) if split.layers else ():
            with self.batched.searching(x):
                maps, out = split.whole(x[rows])
            self.parts.append(Maps(split, maps))
            self.reals.append(real)
            outputs.append(unwrap(out, len(rows))[:real])
        if outputs:
            self._compare(x, torch.cat(outputs))
            self._see_that_nothing_writes()

    def logits(self, x: Images, windows: Sequence[Window]) -> Logits:
        if not self.parts:
            return super().logits(x, windows)
        scores, start = [], 0
        split = self.parts[0].split
        reached = [split.reached(window) for window in windows]
        with self.batched.searching(x):
            for part, real in zip(self.parts, self.reals, strict=True):
                for window, outputs in zip(windows, reached, strict=True):
                    part.change(x[start : start + real], window, outputs)
                scores.append(unwrap(part.logits(), self.batched.size)[:real])
                start += real
        self.batched.counts.forward += len(x)
        self.batched.counts.padding += len(self.parts) * self.batched.size - len(x)
        self.asked = torch.cat(scores)
        return self.asked

    def settle(self, stay: Mask) -> None:
        for part, mine in zip(self.parts, stay.split(self.reals) if self.parts else (), strict=True):
            part.settle(mine)
        if self.parts:
            self.settled = torch.where(stay[:, None], self.asked, self.settled)

    def keep(self, rows: Mask) -> None:
        if not self.parts:
            return
        split, parts = self.parts[0].split, list(zip(self.parts, self.reals, strict=True))
        maps = [torch.cat([part.maps[node][:real] for part, real in parts])[rows] for node in split.kept]
        self.settled = self.settled[rows]
        cuts = list(filled(len(self.settled), self.batched.size, rows.device))
        self.parts = [Maps(split, [each[numbers] for each in maps]) for numbers, _ in cuts]
        self.reals = [real for _, real in cuts]

    def finish(self, x: Images) -> None:
        if self.parts:
            self._compare(x, self.settled)

    def _see_that_nothing_writes(self) -> None:
        """See that the rest of the net leaves the maps as they are, which the next change starts from."""
        part = self.parts[0]
        before = [each.clone() for each in part.maps.values()]
        with self.batched.searching(before[0]):
            part.logits()
        self.batched.counts.confirmation += self.reals[0]
        if not all(torch.equal(one, other) for one, other in zip(before, part.maps.values(), strict=True)):
            raise MismatchError

    def _compare(self, x: Images, incremental: Logits) -> None:
        """See that the net itself says the same."""
        own = self.batched.checked(x)
        off, size = apart(incremental, own)
        if not float(off.max()) <= TOLERANCE[self.batched.precision] * float(size.max()):
            raise MismatchError
        self.settled = own


class Maps:
    """The maps of a block of images, and what they were before the last changes.

    Args:
        split: the net.
        maps: of the kept nodes, [n, c, h, w] each, the images first.
    """

    def __init__(self, split: Split, maps: Sequence[Tensor]) -> None:
        self.split, self.maps = split, dict(zip(split.kept, maps, strict=True))
        self.before: list[tuple[Tensor, Tensor]] = []

    def change(self, images: Images, window: Window, reached: Sequence[tuple[Layer, Window]]) -> None:
        """Take a window of the first images over, and compute what it reaches."""
        view = self._remember(self.split.graph.images, window)
        view[: len(images)] = window.of(images)
        passing: dict[fx.Node, Tensor] = {}  # what is looked at in its own place alone
        for layer, outputs in reached:
            pieces = [
                passing[node] if node in passing else layer.reach.cut(self.maps[node], outputs) for node in layer.inputs
            ]
            value = layer.compute(*pieces)
            if layer.node in self.maps:
                self._remember(layer.node, outputs).copy_(value)
            else:
                passing[layer.node] = value

    def _remember(self, node: fx.Node, window: Window) -> Tensor:
        """A view that may be written to."""
        view = window.of(self.maps[node])
        self.before.append((view, view.clone()))
        return view

    def logits(self) -> object:
        """What the net returns for the images as they are."""
        return self.split.rest(*self.maps.values())

    def settle(self, stay: Mask) -> None:
        """Take all changes since the last time back, but those of the images that ``stay``."""
        for view, before in reversed(self.before):
            view[: len(stay)] = torch.where(stay.view(-1, 1, 1, 1), view[: len(stay)], before[: len(stay)])
        self.before.clear()

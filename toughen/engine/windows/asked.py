"""Logits of images that change in a window at a time: only what a window reaches is computed again.

A convolution looks no further than its kernel, so a change of a few pixels changes a few places of the first maps. The
maps of the images as they are stand by; after a change the places that it reaches are computed anew, and the rest of
the net, from where most of a map is reached, in full. Every value is a fresh sum over its inputs, none is corrected by
a difference, so nothing drifts.

The net is read as a graph of layers, and the graph is not believed: whenever windows get smaller, and at the end, its
logits are compared with the net's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from toughen.core.gradients import logits
from toughen.core.types import Images, Logits, Mask
from toughen.engine.fixed_batch import Blocks, apart, filled, unwrap
from toughen.engine.windows.graph import Layer, Split
from toughen.engine.windows.window import Window

TOLERANCE = {"bf16": 1e-2, "fp32": 1e-4, "fp64": 1e-9}
"""Of how far an image's highest logits lie apart: up to here those computed window by window are the net's own."""
MEMORY = 2**29  # bytes, for the maps that stand by of all images that are searched at once


def asked(model: nn.Module, x: Images) -> InFull:
    """The model, asked about what changes where that is possible."""
    layers = _layers(model, x)
    return InWindows(model, layers, x) if isinstance(model, Blocks) and layers else InFull(model)


def at_once(model: nn.Module, x: Images, side: int) -> int:
    """How many of these images may be searched together with windows of this side: whole blocks, at least one."""
    layers = _layers(model, x)
    if not isinstance(model, Blocks) or model.graph is None or not layers:
        return len(x)
    with model.searching(x), torch.no_grad():
        maps, _ = Split(model.graph, layers, side).whole(x[:1])
    each = sum(int(one.nbytes) for one in maps)
    return max(1, MEMORY // each // model.size) * model.size


def _layers(model: nn.Module, x: Images) -> list[Layer]:
    """The layers of a model that can be computed in part; none, where it is no graph of layers."""
    if not isinstance(model, Blocks) or not len(x):
        return []
    model.compare(x)
    if model.graph is None:
        return []
    with model.searching(x), torch.no_grad():
        return model.graph.layers(x[:1])


class InFull:
    """Asks a model about all of every image; nothing is kept between two questions."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def resize(self, x: Images, side: int) -> None:
        """From here on windows have this side, in pixels; ``x`` are the images as they are settled."""

    def logits(self, x: Images, windows: Sequence[Window]) -> Logits:
        """The logits of ``x``, of which these windows changed."""
        return logits(self.model, x)

    def settle(self, stay: Mask) -> None:
        """The changes of these images stay, those of the others have been taken back."""

    def keep(self, rows: Mask) -> None:
        """Only these images are asked about from here on."""

    def finish(self, x: Images) -> None:
        """No windows any more; ``x`` are the images as they are settled."""


class Differs(Exception):
    """Window by window a net says something else than it says itself."""


class InWindows(InFull):
    """Asks a model about what changed.

    Args:
        blocks: the model.
        layers: those that can be computed in part.
        x: the images to begin with.

    Raises:
        Differs: by ``resize`` and ``finish``: what was returned was not the model's; begin again, and ask in full.
    """

    def __init__(self, blocks: Blocks, layers: list[Layer], x: Images) -> None:
        super().__init__(blocks)
        self.blocks, self.layers = blocks, layers
        self.parts: list[Maps] = []
        self.reals: list[int] = []
        self.asked = self.settled = x.new_empty(0, 0)

    def resize(self, x: Images, side: int) -> None:
        assert self.blocks.graph is not None
        self.finish(x)
        split = Split(self.blocks.graph, self.layers, side)
        self.parts, self.reals, found = [], [], []
        for rows, real in filled(len(x), self.blocks.size, x.device) if split.layers else ():
            with self.blocks.searching(x):
                maps, out = split.whole(x[rows])
            self.parts.append(Maps(split, maps))
            self.reals.append(real)
            found.append(unwrap(out, len(rows))[:real])
        if found:
            self._compare(x, torch.cat(found))
            self._see_that_nothing_writes()

    def logits(self, x: Images, windows: Sequence[Window]) -> Logits:
        if not self.parts:
            return super().logits(x, windows)
        found, start = [], 0
        split = self.parts[0].split
        reached = [split.reached(window) for window in windows]
        with self.blocks.searching(x):
            for part, real in zip(self.parts, self.reals, strict=True):
                for window, outputs in zip(windows, reached, strict=True):
                    part.change(x[start : start + real], window, outputs)
                found.append(unwrap(part.logits(), self.blocks.size)[:real])
                start += real
        self.blocks.counts.forward += len(x)
        self.blocks.counts.padding += len(self.parts) * self.blocks.size - len(x)
        self.asked = torch.cat(found)
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
        cuts = list(filled(len(self.settled), self.blocks.size, rows.device))
        self.parts = [Maps(split, [each[numbers] for each in maps]) for numbers, _ in cuts]
        self.reals = [real for _, real in cuts]

    def finish(self, x: Images) -> None:
        if self.parts:
            self._compare(x, self.settled)

    def _see_that_nothing_writes(self) -> None:
        """See that the rest of the net leaves the maps as they are, which the next change starts from."""
        part = self.parts[0]
        before = [each.clone() for each in part.maps.values()]
        with self.blocks.searching(before[0]):
            part.logits()
        self.blocks.counts.confirmation += self.reals[0]
        if not all(torch.equal(one, other) for one, other in zip(before, part.maps.values(), strict=True)):
            raise Differs

    def _compare(self, x: Images, found: Logits) -> None:
        """See that the net itself says the same."""
        own = self.blocks.checked(x)
        off, size = apart(found, own)
        if not float(off.max()) <= TOLERANCE[self.blocks.precision] * float(size.max()):
            raise Differs
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
            made = layer.compute(*pieces)
            if layer.node in self.maps:
                self._remember(layer.node, outputs).copy_(made)
            else:
                passing[layer.node] = made

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

"""A net as a graph of layers (torch.fx), and what of it a window of the images reaches."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from toughen.core.types import Images
from toughen.core.window import Window
from toughen.engine.stem import Stem
from toughen.engine.windows.receptive_field import ReceptiveField
from toughen.models.normalize import Normalize

MOST = 0.6  # of a map: a layer of which more is reached is computed in full


Compute: TypeAlias = Callable[..., Tensor]


@dataclass(frozen=True)
class Layer:
    """A node of a net's graph whose outputs can be computed for a window alone.

    Attributes:
        node: it.
        inputs: the nodes whose maps it reads.
        reach: how far it looks.
        compute: its outputs, from as much of its inputs as they see.
        size: rows and columns of its map.
    """

    node: fx.Node
    inputs: tuple[fx.Node, ...]
    reach: ReceptiveField
    compute: Compute
    size: tuple[int, int]


class Graph:
    """A net as a graph of layers. While it is read, no other thread may call a net: torch.fx listens to all of them.

    Args:
        net: in evaluation mode; layers of it that write to their input are made not to.

    Raises:
        ValueError: the net cannot be read as such a graph.
    """

    def __init__(self, net: nn.Module) -> None:
        try:
            graph = _Tracer().trace(net)
        except Exception as error:  # whatever a stranger's forward does when it is read
            raise ValueError(f"{type(net).__name__} cannot be read as a graph: {error}") from error
        _keep_inputs(graph, net)
        self.module = fx.GraphModule(net, graph)
        self.images, *more = [node for node in graph.nodes if node.op == "placeholder"]
        if more:
            raise ValueError(f"{type(net).__name__} needs more inputs than images")

    def layers(self, image: Images) -> list[Layer]:
        """The layers that can be computed in part, for images of this one's size, [1, c, h, w]; none if it fails."""
        sizes = _Sizes(self.module)
        try:
            sizes.run(image)
        except Exception:  # it was made for the images that it was read with, or asks what a graph cannot know
            return []
        parts = dict(self.module.named_modules())
        candidates = (_layer(node, sizes.found, parts) for node in self.module.graph.nodes)
        return [layer for layer in candidates if layer]


class Split:
    """A net's first layers, computed window by window, and the rest.

    Args:
        graph: the net.
        layers: those that can be computed in part.
        side: of the windows, in pixels.

    Attributes:
        layers: those of which a window of this side reaches at most ``MOST``, in their order.
        kept: the nodes whose maps stand by, the images first.
        whole: a net from images to (the kept nodes' maps, logits).
        rest: a net from the kept nodes' maps to logits.
    """

    def __init__(self, graph: Graph, layers: Iterable[Layer], side: int) -> None:
        self.graph, self.layers = graph, _reached_in_part(graph.images, layers, side)
        local = {layer.node: layer for layer in self.layers}
        self.kept = [graph.images, *(node for node in local if any(_stands_by(user, local) for user in node.users))]
        self.whole, self.rest = self._whole(), self._rest(set(local))

    def _whole(self) -> nn.Module:
        whole = fx.Graph()
        copied: dict[fx.Node, fx.Node] = {}
        out = whole.graph_copy(self.graph.module.graph, copied)
        whole.output(([copied[node] for node in self.kept], out))
        return fx.GraphModule(self.graph.module, whole)

    def _rest(self, local: set[fx.Node]) -> nn.Module:
        rest = fx.Graph()
        copied = {node: rest.placeholder(f"kept_{number}") for number, node in enumerate(self.kept)}
        for node in self.graph.module.graph.nodes:
            if node not in local and node not in copied:
                copied[node] = rest.node_copy(node, copied.__getitem__)
        return fx.GraphModule(self.graph.module, rest)

    def reached(self, window: Window) -> list[tuple[Layer, Window]]:
        """The outputs of each layer that a window of the images reaches, in the layers' order."""
        windows, affected = {self.graph.images: window}, []
        for layer in self.layers:
            seen = reduce(Window.around, (windows[node] for node in layer.inputs))
            windows[layer.node] = layer.reach.touched(seen, layer.size)
            if not windows[layer.node].empty:
                affected.append((layer, windows[layer.node]))
        return affected


def _reached_in_part(images: fx.Node, layers: Iterable[Layer], side: int) -> list[Layer]:
    """The layers that see a window only through others of them, and never much of it."""
    sides, kept = {images: (side, side)}, []
    for layer in layers:
        if all(node in sides for node in layer.inputs):
            down, across = zip(*(sides[node] for node in layer.inputs), strict=True)
            reached = layer.reach.most((max(down), max(across)))
            if math.prod(reached) <= MOST * math.prod(layer.size):
                sides[layer.node] = reached
                kept.append(layer)
    return kept


class _Sizes(fx.Interpreter):
    """Runs a net to learn the shapes of what its nodes return."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.found: dict[fx.Node, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.found[n] = tuple(value.shape) if isinstance(value, Tensor) else ()
        return value


class _Tracer(fx.Tracer):
    """Keeps layers whole, those of toughen's that torch does not know among them."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        whole = isinstance(m, (nn.Conv2d, nn.Linear, Normalize))
        return whole or super().is_leaf_module(m, module_qualified_name)


SAME = (
    Normalize,
    nn.Identity,
    nn.Dropout,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Softplus,
    nn.Sigmoid,
)
"""Modules that look at one place, whatever a map's size."""

FUNCTIONS: tuple[Any, ...] = (operator.add, torch.add, torch.relu, F.relu)
"""Functions that do."""


def _keep_inputs(graph: fx.Graph, net: nn.Module) -> None:
    """Keep layers from writing to their input, as far as that can be seen here.

    Raises:
        ValueError: there is something that cannot be replaced, or a tensor that was made while the net was read, which
            may have been drawn at random.
    """
    for part in net.modules():
        if getattr(part, "inplace", False):
            part.inplace = False  # type: ignore[assignment]
    for node in graph.nodes:
        node.kwargs = {name: value for name, value in node.kwargs.items() if name != "inplace"}
        name = str(getattr(node.target, "__name__", node.target))
        writes = node.op in ("call_function", "call_method") and name.endswith("_")
        if writes or (node.op == "get_attr" and name.startswith("_tensor_constant")):
            raise ValueError(f"{name} cannot be repeated in part")


def _stands_by(user: fx.Node, local: dict[fx.Node, Layer]) -> bool:
    """Whether a node's maps have to stand by for this user of theirs."""
    layer = local.get(user)
    return layer is None or not layer.reach.pointwise or len(layer.inputs) > 1


def _layer(node: fx.Node, shapes: dict[fx.Node, tuple[int, ...]], parts: dict[str, nn.Module]) -> Layer | None:
    """The node as a layer that can be computed in part; None if it is none."""
    inputs, shape = tuple(node.all_input_nodes), shapes.get(node, ())
    if not inputs or any(len(each) != 4 for each in (shape, *map(shapes.__getitem__, inputs))):
        return None
    rule: tuple[ReceptiveField, Compute] | None = None
    if node.op == "call_module" and len(node.args) == 1:
        rule = _of_module(parts[str(node.target)])
    elif node.op == "call_function" and node.target in FUNCTIONS and inputs == node.args and not node.kwargs:
        same = all(shapes[each] == shape for each in inputs)
        rule = (ReceptiveField(), node.target) if same else None  # type: ignore[assignment]
    return Layer(node, inputs, *rule, (shape[2], shape[3])) if rule else None


def _of_module(part: nn.Module) -> tuple[ReceptiveField, Compute] | None:
    """How far a module looks, and what it makes of a piece of its input."""
    if type(part) in (nn.Conv2d, Stem):
        assert isinstance(part, nn.Conv2d)
        if part.padding_mode != "zeros" or isinstance(part.padding, str):
            return None
        reach = ReceptiveField(_two(part.kernel_size), _two(part.stride), _two(part.padding), _two(part.dilation))
        return reach, partial(_convolve, part)
    if type(part) is nn.MaxPool2d and not part.ceil_mode and not part.return_indices:
        reach = ReceptiveField(
            _two(part.kernel_size), _two(part.stride), _two(part.padding), _two(part.dilation), -torch.inf
        )
        return reach, partial(F.max_pool2d, kernel_size=part.kernel_size, stride=part.stride, dilation=part.dilation)
    if type(part) is nn.AvgPool2d and not part.ceil_mode and (part.count_include_pad or _two(part.padding) == (0, 0)):
        reach = ReceptiveField(_two(part.kernel_size), _two(part.stride), _two(part.padding))
        return reach, partial(
            F.avg_pool2d, kernel_size=part.kernel_size, stride=part.stride, divisor_override=part.divisor_override
        )
    still = type(part) is nn.BatchNorm2d and part.running_mean is not None
    return (ReceptiveField(), part) if still or type(part) in SAME else None


def _convolve(part: nn.Conv2d, cut: Tensor) -> Tensor:
    return F.conv2d(cut, part.weight, part.bias, part.stride, 0, part.dilation, part.groups)


def _two(value: int | Iterable[int]) -> tuple[int, int]:
    first, second = (value, value) if isinstance(value, int) else value
    return first, second

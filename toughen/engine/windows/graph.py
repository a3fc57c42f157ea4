"""A net as a torch.fx graph of layers, and which activations depend on a window of the image."""

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

MAX_SHARE = 0.6  # of a feature map: a layer of which a window affects more is computed in full


Compute: TypeAlias = Callable[..., Tensor]


@dataclass(frozen=True)
class Layer:
    """A node of the graph whose output can be computed for a window alone.

    Attributes:
        node: the node in the torch.fx graph.
        inputs: the nodes whose feature maps it reads.
        receptive_field: which inputs each output depends on.
        compute: computes outputs from the inputs that they depend on.
        size: rows and columns of its feature map.
    """

    node: fx.Node
    inputs: tuple[fx.Node, ...]
    receptive_field: ReceptiveField
    compute: Compute
    size: tuple[int, int]


class Graph:
    """A net as a graph of layers, traced by torch.fx. No other thread may call a net during tracing.

    Args:
        net: in evaluation mode; its in-place layers are switched to out-of-place.

    Raises:
        ValueError: the net cannot be traced, or the graph holds an in-place operation or a constant tensor.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net, self.traced = net, _trace(net)
        _forbid_in_place(self.traced, net)
        self.images, *more = [node for node in self.traced.nodes if node.op == "placeholder"]
        if more:
            raise ValueError(f"{type(net).__name__} needs more inputs than images")

    def layers(self, image: Images) -> list[Layer]:
        """The layers that can be computed for a window alone; empty where the graph fails on this image.

        Args:
            image: one image, [1, c, h, w]; the layers are for images of its size.
        """
        sizes = _ShapeRecorder(self.net, graph=self.traced)
        try:
            sizes.run(image)
        except Exception:  # its forward depends on the image's size or values
            return []
        parts = dict(self.net.named_modules())
        candidates = (_layer(node, sizes.shapes, parts) for node in self.traced.nodes)
        return [layer for layer in candidates if layer]


class Split:
    """A net in two parts: first layers that are recomputed in a window only, and the remainder, computed in full.

    Args:
        graph: the net.
        layers: those that can be computed for a window alone.
        side: of the windows, in pixels.

    Attributes:
        layers: those of which a window of this side affects at most ``MAX_SHARE``, in the graph's order.
        cached: the nodes whose feature maps are kept between queries, the images first.
        full: a net from images to (feature maps of the cached nodes, logits).
        remainder: a net from the cached nodes' feature maps to logits.
    """

    def __init__(self, graph: Graph, layers: Iterable[Layer], side: int) -> None:
        self.graph, self.layers = graph, _partial_layers(graph.images, layers, side)
        local = {layer.node: layer for layer in self.layers}
        self.cached = [graph.images, *(node for node in local if any(_needs_cache(user, local) for user in node.users))]
        self.full, self.remainder = self._with_cached_maps(), self._from_cached_maps(set(local))

    def _with_cached_maps(self) -> nn.Module:
        full = fx.Graph()
        copied: dict[fx.Node, fx.Node] = {}
        out = full.graph_copy(self.graph.traced, copied)
        full.output(([copied[node] for node in self.cached], out))
        return fx.GraphModule(self.graph.net, full)

    def _from_cached_maps(self, local: set[fx.Node]) -> nn.Module:
        remainder = fx.Graph()
        copied = {node: remainder.placeholder(f"cached_{number}") for number, node in enumerate(self.cached)}
        for node in self.graph.traced.nodes:
            if node not in local and node not in copied:
                copied[node] = remainder.node_copy(node, copied.__getitem__)
        return fx.GraphModule(self.graph.net, remainder)

    def affected(self, window: Window) -> list[tuple[Layer, Window]]:
        """The layers that depend on a window of the images, in the graph's order, each with its affected outputs."""
        windows, affected = {self.graph.images: window}, []
        for layer in self.layers:
            changed = reduce(Window.union, (windows[node] for node in layer.inputs))
            windows[layer.node] = layer.receptive_field.affected_outputs(changed, layer.size)
            if not windows[layer.node].empty:
                affected.append((layer, windows[layer.node]))
        return affected


def _partial_layers(images: fx.Node, layers: Iterable[Layer], side: int) -> list[Layer]:
    """The layers whose inputs are the images or other such layers, and of which a window affects few outputs."""
    sides, partial_layers = {images: (side, side)}, []
    for layer in layers:
        if all(node in sides for node in layer.inputs):
            down, across = zip(*(sides[node] for node in layer.inputs), strict=True)
            affected = layer.receptive_field.max_outputs((max(down), max(across)))
            if math.prod(affected) <= MAX_SHARE * math.prod(layer.size):
                sides[layer.node] = affected
                partial_layers.append(layer)
    return partial_layers


class _ShapeRecorder(fx.Interpreter):
    """Runs a net and records the shape of each node's output."""

    def __init__(self, net: nn.Module, graph: fx.Graph) -> None:
        super().__init__(net, graph=graph)
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.shapes[n] = tuple(value.shape) if isinstance(value, Tensor) else ()
        return value


def _trace(net: nn.Module) -> fx.Graph:
    """The nodes of a net.

    A tracer and its graph refer to each other, so they stay in memory until Python's garbage collector runs. They are
    small. The tracer's references to the net are removed: weights must not wait for the collector.

    Raises:
        ValueError: the net cannot be traced.
    """
    tracer = _Tracer()
    try:
        return tracer.trace(net)
    except Exception as error:  # a user's own forward may raise anything when it is traced
        raise ValueError(f"{type(net).__name__} cannot be read as a graph: {error}") from error
    finally:
        tracer.root, tracer.submodule_paths, tracer.tensor_attrs = nn.Module(), None, {}


class _Tracer(fx.Tracer):
    """Does not trace into layers, toughen's ``Normalize`` included."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        is_layer = isinstance(m, (nn.Conv2d, nn.Linear, Normalize))
        return is_layer or super().is_leaf_module(m, module_qualified_name)


POINTWISE_MODULES = (
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
"""Modules whose output at a pixel depends on that pixel alone."""

POINTWISE_FUNCTIONS: tuple[Any, ...] = (operator.add, torch.add, torch.relu, F.relu)
"""Functions for which the same holds."""


def _forbid_in_place(graph: fx.Graph, net: nn.Module) -> None:
    """Switch off the in-place setting of layers and functions.

    Raises:
        ValueError: an operation is in place by its name (``add_``), or the trace holds a constant tensor, which may
            have been drawn at random.
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


def _needs_cache(user: fx.Node, local: dict[fx.Node, Layer]) -> bool:
    """Whether a node's feature map has to be cached for this user: one that needs more of it than the window."""
    layer = local.get(user)
    return layer is None or not layer.receptive_field.pointwise or len(layer.inputs) > 1


def _layer(node: fx.Node, shapes: dict[fx.Node, tuple[int, ...]], parts: dict[str, nn.Module]) -> Layer | None:
    """The node as a layer that can be computed for a window alone; None where it cannot."""
    inputs, shape = tuple(node.all_input_nodes), shapes.get(node, ())
    if not inputs or any(len(each) != 4 for each in (shape, *map(shapes.__getitem__, inputs))):
        return None
    rule: tuple[ReceptiveField, Compute] | None = None
    if node.op == "call_module" and len(node.args) == 1:
        rule = _of_module(parts[str(node.target)])
    elif node.op == "call_function" and node.target in POINTWISE_FUNCTIONS and inputs == node.args and not node.kwargs:
        same = all(shapes[each] == shape for each in inputs)
        rule = (ReceptiveField(), node.target) if same else None  # type: ignore[assignment]
    return Layer(node, inputs, *rule, (shape[2], shape[3])) if rule else None


def _of_module(part: nn.Module) -> tuple[ReceptiveField, Compute] | None:
    """A module's receptive field and how it is computed on a crop of its input; None where it must see all of it."""
    if type(part) in (nn.Conv2d, Stem):
        assert isinstance(part, nn.Conv2d)
        if part.padding_mode != "zeros" or isinstance(part.padding, str):
            return None
        receptive_field = ReceptiveField(
            _pair(part.kernel_size), _pair(part.stride), _pair(part.padding), _pair(part.dilation)
        )
        return receptive_field, partial(_convolve, part)
    if type(part) is nn.MaxPool2d and not part.ceil_mode and not part.return_indices:
        receptive_field = ReceptiveField(
            _pair(part.kernel_size), _pair(part.stride), _pair(part.padding), _pair(part.dilation), -torch.inf
        )
        return receptive_field, partial(
            F.max_pool2d, kernel_size=part.kernel_size, stride=part.stride, dilation=part.dilation
        )
    if type(part) is nn.AvgPool2d and not part.ceil_mode and (part.count_include_pad or _pair(part.padding) == (0, 0)):
        receptive_field = ReceptiveField(_pair(part.kernel_size), _pair(part.stride), _pair(part.padding))
        return receptive_field, partial(
            F.avg_pool2d, kernel_size=part.kernel_size, stride=part.stride, divisor_override=part.divisor_override
        )
    fixed = type(part) is nn.BatchNorm2d and part.running_mean is not None
    return (ReceptiveField(), part) if fixed or type(part) in POINTWISE_MODULES else None


def _convolve(part: nn.Conv2d, crop: Tensor) -> Tensor:
    return F.conv2d(crop, part.weight, part.bias, part.stride, 0, part.dilation, part.groups)


def _pair(value: int | Iterable[int]) -> tuple[int, int]:
    first, second = (value, value) if isinstance(value, int) else value
    return first, second

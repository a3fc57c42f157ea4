"""A net's parameters layer by layer, from the images to the logits, and the layer that gives the logits."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def layers_of(net: nn.Module, classes: int) -> list[list[str]]:
    """The names of a net's parameters, those of the layer nearest to the images first.

    A net that has a ``group_matcher``, as timm's have, is divided by it, as timm's own layer decay does. In any other
    net the order is that of its modules, and the layer that gives the logits is the last. There a layer is a
    convolution or a linear layer in a plain sequence, or a whole block, such as a residual one. Norms and other modules
    that hold nothing but vectors belong to the layer before them, and so do parameters of a net's own.

    Args:
        net: without its normalisation.
        classes: how many logits it gives.

    Raises:
        ValueError: its ``group_matcher`` needs timm, which is missing.
    """
    matcher = getattr(net, "group_matcher", None)
    if callable(matcher):
        grouped: dict[int, list[str]] = _timm_models().group_parameters(net, matcher(coarse=False))
        return [grouped[number] for number in sorted(grouped)]
    head = head_of(net, classes)
    parts = sorted(_parts(net), key=lambda part: bool(head) and any(name.startswith(f"{head}.") for name in part[0]))
    return _joined(parts)


def head_of(net: nn.Module, classes: int) -> str:
    """The name of the layer that gives the logits; "" where none can be told."""
    ask = getattr(net, "get_classifier", None)  # timm's
    layer = ask() if callable(ask) else None
    if not isinstance(layer, nn.Module):
        sized = [m for m in net.modules() if getattr(m, "out_features", getattr(m, "out_channels", None)) == classes]
        layer = sized[-1] if sized else None
    return next((name for name, module in net.named_modules() if module is layer), "")


def _timm_models() -> Any:
    try:
        return importlib.import_module("timm.models")
    except ImportError:
        raise ValueError("the net's group_matcher is read by the package timm: pip install 'toughen[timm]'") from None


def _joined(parts: Iterable[tuple[list[str], bool]]) -> list[list[str]]:
    """What is no layer of its own, with the layer before it, or with the first."""
    layers: list[list[str]] = []
    before_first: list[str] = []
    for names, is_layer in parts:
        if is_layer:
            layers.append(before_first + names)
            before_first = []
        elif layers:
            layers[-1] += names
        else:
            before_first += names
    return layers + ([before_first] if before_first else [])


def _parts(net: nn.Module) -> Iterator[tuple[list[str], bool]]:
    """Names of parameters that lie together, in the order of modules, and whether they are a layer of their own."""
    named = {name for name, _ in net.named_parameters()}  # each once, also where modules share it

    def within(module: nn.Module, prefix: str) -> Iterator[tuple[list[str], bool]]:
        yield [name for name, _ in module.named_parameters(prefix, recurse=False) if name in named], False
        for child_name, child in module.named_children():
            place = f"{prefix}.{child_name}".lstrip(".")
            if isinstance(child, CONTAINERS) or _has_blocks(child):
                yield from within(child, place)
                continue
            own = {name: weight for name, weight in child.named_parameters(place) if name in named}
            yield list(own), any(weight.ndim > 1 for weight in own.values())

    return within(net, "")


def _has_blocks(module: nn.Module) -> bool:
    """Whether a module is a net in itself: a sequence somewhere in it holds modules that are made of others."""
    return any(
        not isinstance(child, CONTAINERS) and next(child.children(), None) is not None
        for part in module.modules()
        if isinstance(part, CONTAINERS)
        for child in part.children()
    )

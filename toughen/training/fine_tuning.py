"""Fine-tuning: which of a net's layers are frozen, and how fast each of the others learns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from toughen.models.layers import head_of, layers_of
from toughen.models.normalize import parts_of
from toughen.training.optimizers import Parameters
from toughen.utils.plural import count

Frozen: TypeAlias = int | Literal["backbone"]


def check_settings(frozen: Frozen, layer_decay: float | int, *, has_weights: bool) -> None:
    """See that a recipe's settings for fine-tuning make sense, whatever the net.

    Args:
        frozen, layer_decay: as in a recipe.
        has_weights: whether the net may begin with other weights than random ones.

    Raises:
        ValueError: they don't.
    """
    if isinstance(frozen, int) and (isinstance(frozen, bool) or frozen < 0):
        raise ValueError(f"frozen is {frozen}: give a number of layers, 0 or more, or backbone for all but the last")
    if frozen and not has_weights:
        raise ValueError(f"frozen is {frozen}, and those layers would stay random: give their weights with --init")
    if not 0 < layer_decay <= 1:
        raise ValueError(
            f"layer_decay is {layer_decay}: it multiplies the learning rate from layer to layer, so it must be "
            "above 0, at most 1"
        )


class Trained(NamedTuple):
    """What of a net is trained.

    Attributes:
        parameters: as an optimizer takes them: in one group, or, with a decay, in one for each layer.
        frozen_modules: the modules whose parameters are all frozen, which stay in evaluation mode.
    """

    parameters: Parameters
    frozen_modules: list[nn.Module]


def prepare(
    model: nn.Module, more: Iterable[nn.Parameter], frozen: Frozen, layer_decay: float | int, classes: int
) -> Trained:
    """Set ``requires_grad`` to False on the parameters of the frozen layers, and give the others their rates.

    A layer's rate is lr * layer_decay ** depth, with depth 0 for the last layer; the group's "lr_scale" is that power,
    and a schedule multiplies by it (BEiT, arXiv:2106.08254, and timm's layer decay).

    Args:
        model: as ``toughen.models.create`` makes it; changed in place.
        more: parameters beside it, such as a method's, which learn at the whole rate.
        frozen: how many layers, counted from the images (``toughen.models.layers``), or "backbone" for all but the
            layer that gives the logits.
        layer_decay: above 0, up to 1.
        classes: how many logits there are.

    Raises:
        ValueError: there are not so many layers, or the layer that gives the logits is not known.
    """
    _, net = parts_of(model)
    layers = layers_of(net, classes) if frozen or layer_decay != 1 else []
    named = dict(net.named_parameters())
    for name in _frozen_names(net, layers, frozen, classes) if frozen else ():
        named[name].requires_grad_(False)
    more = [weight for weight in more if weight.requires_grad]
    if layer_decay == 1:
        parameters: Parameters = [*(weight for weight in model.parameters() if weight.requires_grad), *more]
    else:
        parameters = _groups(named, layers, more, layer_decay)
    return Trained(parameters, _frozen_modules(net) if frozen else [])


def _groups(
    named: Mapping[str, nn.Parameter], layers: list[list[str]], more: list[nn.Parameter], layer_decay: float | int
) -> Parameters:
    groups = []
    for depth, layer in enumerate(reversed(layers)):
        weights = [named[name] for name in layer if named[name].requires_grad]
        groups.append({"params": [*weights, *(more if depth == 0 else [])], "lr_scale": float(layer_decay) ** depth})
    return [group for group in groups if group["params"]]


def _frozen_names(net: nn.Module, layers: list[list[str]], frozen: Frozen, classes: int) -> list[str]:
    if isinstance(frozen, int):
        if frozen >= len(layers):
            raise ValueError(
                f"frozen is {frozen}, and the net has {count(len(layers), 'layer')}: give a smaller number, so that "
                "the last is trained"
            )
        return [name for layer in layers[:frozen] for name in layer]
    ask = getattr(net, "get_classifier", None)
    head = head_of(net, classes)
    if not head or (callable(ask) and not isinstance(ask(), nn.Module)):
        raise ValueError(
            f"frozen is backbone, and no single layer of the net gives the {classes} logits: give a number of layers"
        )
    return [name for layer in layers for name in layer if not name.startswith(f"{head}.")]


def _frozen_modules(net: nn.Module) -> list[nn.Module]:
    """The modules with no parameter to train.

    A norm without parameters is frozen with the parameters before it, and what lies between two frozen parts of an
    ``nn.Sequential``, such as dropout, with these. Elsewhere the order of modules need not be that of their calls.
    """
    frozen_modules, is_frozen = [], False
    for module in net.modules():
        if weights := list(module.parameters()):
            if not any(weight.requires_grad for weight in weights):
                frozen_modules.append(module)
            if own := list(module.parameters(recurse=False)):
                is_frozen = not any(weight.requires_grad for weight in own)
        elif is_frozen and isinstance(module, _NormBase):
            frozen_modules.append(module)
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            frozen_modules += _between_frozen(module)
    return frozen_modules


def _between_frozen(sequence: nn.Sequential) -> list[nn.Module]:
    """The parts without parameters between two frozen ones."""
    between, waiting, after_frozen = list[nn.Module](), list[nn.Module](), False
    for part in _flat(sequence):
        trained = [weight.requires_grad for weight in part.parameters()]
        if not trained:
            waiting.append(part)
            continue
        if after_frozen and not trained[0]:
            between += waiting
        waiting, after_frozen = [], not trained[-1]
    return between


def _flat(sequence: nn.Sequential) -> Iterator[nn.Module]:
    """The parts of a sequence in the order in which they run, those of nested ones too."""
    for part in sequence:
        if isinstance(part, nn.Sequential) and type(part).forward is nn.Sequential.forward:
            yield from _flat(part)
        else:
            yield part


def describe(model: nn.Module, groups: Sequence[dict[str, Any]], lr: float | int) -> str:
    """A message on frozen parameters and learning rates; "" where the whole net is trained at one rate.

    Args:
        model: its frozen layers frozen.
        groups: the optimizer's.
        lr: the highest rate.
    """
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    still = sum(size for size, trained in sizes if not trained)
    scales = [group.get("lr_scale", 1.0) for group in groups]
    return "; ".join(
        [f"frozen: {still:,} of {sum(size for size, _ in sizes):,} parameters"] * bool(still)
        + [f"learning rates {lr * max(scales):.3g} (last layer) to {lr * min(scales):.3g}"] * (min(scales) < 1)
    )

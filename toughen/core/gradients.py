"""The one place that runs a model and differentiates towards its input.

Nothing here computes a weight gradient, leaves a ``.grad``, or changes a submodule's mode for longer than a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from toughen.core import cost
from toughen.core.classifier import Classifier, misclassified
from toughen.core.classifier import InputGradient as InputGradient
from toughen.core.double_backward import FastDoubleBackward
from toughen.core.modules import mode as mode
from toughen.core.modules import unwrap
from toughen.core.objectives import Objective
from toughen.core.types import Images, Labels, Logits, Mask, PerExample, Scalar


def logits(model: nn.Module, x: Images) -> Logits:
    """The model's logits, in float32 at least, out of a tensor or of an object with ``.logits``.

    Raises:
        ValueError: the model did not return [n, k].
    """
    with _uncached_casts(x) if not torch.is_grad_enabled() else nullcontext():
        out = model(x)
    return unwrap(out, len(x))


def fooled(model: nn.Module, x: Images, y: Labels, out: Logits) -> Mask:
    """Which images are misclassified, where ``out`` are the model's logits of them."""
    return confirmed(model, x, y, misclassified(out, y))


def confirmed(model: nn.Module, x: Images, y: Labels, fell: Mask) -> Mask:
    """The images that seem to be misclassified, less those that a model which searches in low precision takes back."""
    return model.confirm(x, y, fell) if isinstance(model, Classifier) else fell


def exact_logits(model: nn.Module, x: Images) -> Logits:
    """The logits that images are judged by, which a ``Classifier`` may not have searched with."""
    return model.exact(x) if isinstance(model, Classifier) else logits(model, x)


def low_precision(model: nn.Module) -> bool:
    """Whether the logits of the search are too coarse to judge by."""
    return isinstance(model, Classifier) and model.low_precision


def pass_size(model: nn.Module) -> int:
    """How many images a pass takes at least: fewer cost as much."""
    return model.pass_size if isinstance(model, Classifier) else 1


@contextmanager
def _uncached_casts(x: Tensor) -> Iterator[None]:
    """Under autocast, keep weights that were cast without a graph from being reused by a later pass that needs one."""
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        yield
        return
    with torch.autocast(device, dtype=torch.get_autocast_dtype(device), cache_enabled=False):
        yield


@contextmanager
def _weights_apart(model: nn.Module) -> Iterator[None]:
    """Within the block no weight of a compiled net wants a gradient: it would get one, with the images' or without."""
    wanting = [weight for weight in model.parameters() if weight.requires_grad] if is_compiled(model) else []
    for weight in wanting:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in wanting:
            weight.requires_grad_()


def is_compiled(model: nn.Module) -> bool:
    """Whether another forward than the class's own stands in for it, as ``training.compiled`` lets it."""
    return "forward" in vars(model)


def input_gradient(
    model: nn.Module,
    x: Images,
    target: Labels | Logits,
    objective: Objective,
    *,
    create_graph: bool = False,
    keep_graph: bool = False,
) -> InputGradient:
    """The objective's gradient towards ``x``, summed over examples, at the cost of one forward and one more pass.

    Args:
        model: any module that returns logits; its modes and its ``.grad`` stay as they are.
        x: images, [n, c, h, w].
        target: what the objective compares with.
        objective: what is differentiated.
        create_graph: keep the gradient differentiable towards weights, for methods that penalise it.
        keep_graph: keep the logits differentiable, for methods whose loss goes on from this pass.
            Neither is for a ``Classifier``.

    Raises:
        ValueError: the model returned no logits, or cut them off from the images; a ``Classifier``, which is evaluated
            and not trained, has a gradient of zeros then.
    """
    if isinstance(model, Classifier):
        return model.input_gradient(x, target, objective)
    return gradient_of_batch(model, x, target, objective, create_graph=create_graph, keep_graph=keep_graph)


def gradient_of_batch(
    model: nn.Module,
    x: Images,
    target: Labels | Logits,
    objective: Objective,
    *,
    create_graph: bool = False,
    keep_graph: bool = False,
    strict: bool = True,
) -> InputGradient:
    """``input_gradient`` of a plain net; without ``strict`` it is zero where the logits carry none."""
    keep = create_graph or keep_graph
    with torch.enable_grad(), nullcontext() if keep else _weights_apart(model):
        x = x.detach().requires_grad_()
        with FastDoubleBackward() if create_graph else nullcontext():
            out = logits(model, x)
        with torch.autocast(x.device.type, enabled=False):
            value = objective(out, target)
            total = value.sum()
        gradient = _towards(x, total, keep=keep, create_graph=create_graph, strict=strict)
    return InputGradient(gradient, value.detach(), out if keep_graph else out.detach())


def _towards(x: Images, total: Scalar, *, keep: bool, create_graph: bool = False, strict: bool = True) -> Images:
    """The scalar's gradient; ``keep`` leaves its graph for another one; without ``strict`` none is zeros."""
    gradient = None
    if total.requires_grad:
        with cost.towards_input():
            (gradient,) = torch.autograd.grad(total, x, retain_graph=keep, create_graph=create_graph, allow_unused=True)
    if gradient is None and not strict:
        return torch.zeros_like(x)
    if gradient is None and torch.is_inference_mode_enabled():
        raise ValueError("an attack needs gradients, and torch.inference_mode() allows none: call it outside")
    if gradient is None:
        raise ValueError("the logits have no gradient for the images: remove no_grad() and detach() from the model")
    return gradient


def lowest_gradient(
    model: nn.Module,
    x: Images,
    target: Labels | Logits,
    objectives: Sequence[Objective],
    height: Callable[[InputGradient], PerExample],
    wanted: int | None = None,
) -> InputGradient:
    """For each image the gradient of that objective whose ``height`` is lowest; one forward, one gradient for each.

    Args:
        model: any module that returns logits; its modes and its ``.grad`` stay as they are.
        x: images, [n, c, h, w].
        target: what the objectives compare with.
        objectives: what is differentiated, all from the same pass; per example, at least one.
        height: the figure to choose by, out of gradient and value; of equals the first is taken.
        wanted: of how many images, the first ones, gradient and value are needed; None means all. The others only go
            forward, exactly as those do, and theirs are zero (not, where they share a block with one that is wanted).

    Raises:
        ValueError: the model returned no logits, or cut them off from the images.
    """
    wanted = len(x) if wanted is None else wanted
    if isinstance(model, Classifier):
        return model.lowest_gradient(x, target, objectives, height, wanted)
    rows = torch.arange(len(x), device=x.device)
    parts: list[InputGradient] = []
    for part, some in ((rows[:wanted], objectives), (rows[wanted:], ())):
        if len(part):
            taken = [objective.select(part) for objective in some]
            parts.append(lowest_of_batch(model, x[part], target[part], taken, height))
    return InputGradient(*(torch.cat(part) for part in zip(*parts, strict=True)))


def lowest_of_batch(
    net: nn.Module,
    x: Images,
    target: Labels | Logits,
    objectives: Sequence[Objective],
    height: Callable[[InputGradient], PerExample],
    *,
    strict: bool = True,
) -> InputGradient:
    """``lowest_gradient`` of a plain net for all images; zeros without an objective."""
    with torch.set_grad_enabled(bool(objectives)), _weights_apart(net):
        x = x.detach().requires_grad_()
        out = logits(net, x)
        best = InputGradient(torch.zeros_like(x), out.detach().new_zeros(len(x)), out.detach())
        for number, objective in enumerate(objectives, 1):
            with torch.autocast(x.device.type, enabled=False):
                value = objective(out, target)
                total = value.sum()
            gradient = _towards(x, total, keep=number < len(objectives), strict=strict)
            candidate = InputGradient(gradient, value.detach(), out.detach())
            best = candidate if number == 1 else _lower(best, candidate, height)
    return best._replace(gradient=best.gradient.detach())


def _lower(one: InputGradient, other: InputGradient, height: Callable[[InputGradient], PerExample]) -> InputGradient:
    """For each image the lower one of two gradients of the same pass."""
    take = ~(height(one) <= height(other))  # the other one too where the first is not a number
    gradient = torch.where(take.view(-1, 1, 1, 1), other.gradient, one.gradient)
    return InputGradient(gradient, torch.where(take, other.value, one.value), one.logits)

"""Runs a model and differentiates it with respect to its input; no other module of attacks or methods does.

Nothing here computes a weight gradient, leaves a ``.grad``, or changes a submodule's mode beyond a ``with`` block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from toughen.core import cost
from toughen.core.classifier import Classifier
from toughen.core.classifier import InputGradient as InputGradient
from toughen.core.double_backward import FastDoubleBackward
from toughen.core.labels import labels_explained
from toughen.core.modules import dtype_of, unwrap
from toughen.core.modules import mode as mode
from toughen.core.objectives import Objective, misclassified
from toughen.core.types import Images, Labels, Logits, Mask, PerExample, Scalar

IN_PLACE = (
    "the model changes its input images in place: let its forward return new tensors, such as with inplace=False in "
    "its first layer"
)


def logits(model: nn.Module, x: Images) -> Logits:
    """The model's logits, [n, k], in float32 or float64; the model returns a tensor or an object with ``.logits``.

    Raises:
        ValueError: the model did not return [n, k], or its weights are float32 and the images float64.
    """
    try:
        with _uncached_casts(x) if not torch.is_grad_enabled() else nullcontext():
            out = model(x)
    except RuntimeError as error:
        if x.dtype == torch.float64 and dtype_of(model) == torch.float32:
            raise ValueError(
                "the images are float64, and the model's weights float32: give images.float(), or make the model double"
            ) from error
        raise
    return unwrap(out, len(x))


def fooled(model: nn.Module, x: Images, y: Labels, out: Logits) -> Mask:
    """Which images are misclassified, given their logits ``out``; a ``Classifier`` confirms the result."""
    return confirmed(model, x, y, misclassified(out, y))


def confirmed(model: nn.Module, x: Images, y: Labels, fooled: Mask) -> Mask:
    """Those of the ``fooled`` images, misclassified in the search, that a ``Classifier`` confirms; else all of them."""
    return model.confirm(x, y, fooled) if isinstance(model, Classifier) else fooled


def exact_logits(model: nn.Module, x: Images) -> Logits:
    """The logits that images are judged by; a ``Classifier`` may search with less precise ones."""
    return model.exact(x) if isinstance(model, Classifier) else logits(model, x)


def low_precision(model: nn.Module) -> bool:
    """Whether the search's logits are too imprecise to judge an image by."""
    return isinstance(model, Classifier) and model.low_precision


def pass_size(model: nn.Module) -> int:
    """Images per pass of a ``Classifier``, where a pass on fewer images costs as much; 1 for a plain module."""
    return model.pass_size if isinstance(model, Classifier) else 1


@contextmanager
def _uncached_casts(x: Tensor) -> Iterator[None]:
    """Under autocast, do not cache weights that are cast without a graph: a later pass may need one with a graph."""
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        yield
        return
    with torch.autocast(device, dtype=torch.get_autocast_dtype(device), cache_enabled=False):
        yield


@contextmanager
def _frozen_if_compiled(model: nn.Module) -> Iterator[None]:
    """Within the block, no weight of a compiled net requires a gradient: compiled code would compute it each time."""
    weights = [weight for weight in model.parameters() if weight.requires_grad] if is_compiled(model) else []
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_()


@contextmanager
def _in_place_refused() -> Iterator[None]:
    """Say it plainly where a net writes into the images that it is given, of which autograd needs the values."""
    try:
        yield
    except RuntimeError as error:
        if "leaf Variable" in str(error) and "in-place" in str(error):
            raise ValueError(IN_PLACE) from error
        raise


def _logits_with_graph(model: nn.Module, x: Images, strict: bool) -> Logits:
    """The logits; without ``strict`` they have no graph where the model uses NumPy, which takes no images with one."""
    try:
        with _in_place_refused():
            return logits(model, x)
    except RuntimeError as error:
        if strict or "Can't call numpy()" not in str(error):
            raise
    return logits(model, x.detach())


def is_compiled(model: nn.Module) -> bool:
    """Whether the module's ``forward`` is replaced by a compiled one, as ``training.compiled`` does."""
    return "forward" in vars(model) and not isinstance(model, torch.jit.ScriptModule)  # which has it there, too


def input_gradient(
    model: nn.Module,
    x: Images,
    target: Labels | Logits,
    objective: Objective,
    *,
    create_graph: bool = False,
    keep_graph: bool = False,
) -> InputGradient:
    """The gradient of the objective, summed over the images, with respect to ``x``: one forward and one backward pass.

    Args:
        model: any module that returns logits; its modes and its ``.grad`` stay as they are.
        x: images, [n, c, h, w].
        target: what the objective compares with.
        objective: what is differentiated.
        create_graph: keep the graph of the gradient, for methods that penalise it; not for a ``Classifier``.
        keep_graph: keep the graph of the logits, for methods whose loss uses this pass; not for a ``Classifier``.

    Raises:
        ValueError: the model returned no logits, or logits without a gradient for the images. A ``Classifier`` returns
            a gradient of zeros instead.
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
    """``input_gradient`` of a plain net; without ``strict`` it is zero where the logits have no gradient."""
    keep = create_graph or keep_graph
    with torch.enable_grad(), nullcontext() if keep else _frozen_if_compiled(model):
        x = x.detach().requires_grad_()
        with FastDoubleBackward() if create_graph else nullcontext():
            out = _logits_with_graph(model, x, strict)
        with torch.autocast(x.device.type, enabled=False), labels_explained(out, target):
            value = objective(out, target)
            total = value.sum()
        gradient = _gradient_of(total, x, keep=keep, create_graph=create_graph, strict=strict)
    return InputGradient(gradient, value.detach(), out if keep_graph else out.detach())


def _gradient_of(total: Scalar, x: Images, *, keep: bool, create_graph: bool = False, strict: bool = True) -> Images:
    """The gradient of ``total`` with respect to ``x``; ``keep`` retains the graph.

    Raises:
        ValueError: there is none; without ``strict`` it is zero instead.
    """
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


def nearest_gradient(
    model: nn.Module,
    x: Images,
    target: Labels | Logits,
    objectives: Sequence[Objective],
    distance: Callable[[InputGradient], PerExample],
    count: int | None = None,
) -> InputGradient:
    """For each image, the gradient and value of the objective whose ``distance`` is smallest.

    Each objective is zero on a boundary, and ``distance`` estimates how far that boundary is. One forward pass, and one
    backward pass for each objective.

    Args:
        model: any module that returns logits; its modes and its ``.grad`` stay as they are.
        x: images, [n, c, h, w].
        target: what the objectives compare with.
        objectives: at least one, each with a value per image.
        distance: from gradient and value to a distance per image; of equal ones the first objective is taken.
        count: of how many images, the first ones, gradient and value are needed; None means all. The others only get
            logits. Their gradient and value are zero, or computed anyway where they share a batch with the first ones.

    Raises:
        ValueError: the model returned no logits, or logits without a gradient for the images.
    """
    count = len(x) if count is None else count
    if isinstance(model, Classifier):
        return model.nearest_gradient(x, target, objectives, distance, count)
    rows = torch.arange(len(x), device=x.device)
    parts: list[InputGradient] = []
    for part, some in ((rows[:count], objectives), (rows[count:], ())):
        if len(part):
            taken = [objective.select(part) for objective in some]
            parts.append(nearest_of_batch(model, x[part], target[part], taken, distance))
    return InputGradient(*(torch.cat(part) for part in zip(*parts, strict=True)))


def nearest_of_batch(
    net: nn.Module,
    x: Images,
    target: Labels | Logits,
    objectives: Sequence[Objective],
    distance: Callable[[InputGradient], PerExample],
    *,
    strict: bool = True,
) -> InputGradient:
    """``nearest_gradient`` of a plain net for all images; gradient and value are zero without an objective."""
    with torch.set_grad_enabled(bool(objectives)), _frozen_if_compiled(net):
        x = x.detach().requires_grad_()
        out = _logits_with_graph(net, x, strict)
        best = InputGradient(torch.zeros_like(x), out.detach().new_zeros(len(x)), out.detach())
        for number, objective in enumerate(objectives, 1):
            with torch.autocast(x.device.type, enabled=False), labels_explained(out, target):
                value = objective(out, target)
                total = value.sum()
            gradient = _gradient_of(total, x, keep=number < len(objectives), strict=strict)
            candidate = InputGradient(gradient, value.detach(), out.detach())
            best = candidate if number == 1 else _nearer(best, candidate, distance)
    return best._replace(gradient=best.gradient.detach())


def _nearer(one: InputGradient, other: InputGradient, distance: Callable[[InputGradient], PerExample]) -> InputGradient:
    """For each image the gradient and value with the smaller distance, of two from the same pass."""
    take = ~(distance(one) <= distance(other))  # also where the first distance is NaN
    gradient = torch.where(take.view(-1, 1, 1, 1), other.gradient, one.gradient)
    return InputGradient(gradient, torch.where(take, other.value, one.value), one.logits)

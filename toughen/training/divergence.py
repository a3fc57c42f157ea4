"""Checks that loss and weights are finite, and finds where NaN or infinity first occurs in a step."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from toughen.core.distributed import world
from toughen.core.types import Batch, Step
from toughen.runs.files import finite
from toughen.training.training_state import TrainingState

NAMED = 5  # images of a batch that a message names


class Diverged(RuntimeError):
    """The loss or the weights are no longer finite."""


def check_finite(state: TrainingState, loss: float | None = None) -> None:
    """Check that loss and weights are finite.

    Args:
        state: the run; synchronises with its device.
        loss: the epoch's; None means the sum so far.

    Raises:
        Diverged: they are not.
    """
    loss = float(state.totals.sums.get("loss", 0.0)) if loss is None else loss
    lost, broken = world().any(not math.isfinite(loss), not finite(state.model.state_dict()))
    if lost:
        raise Diverged("the loss became " + (str(loss) if not math.isfinite(loss) else "NaN or infinite"))
    if broken:
        raise Diverged("a weight is no longer finite")


def check_step(model: nn.Module, x: Tensor, step: Step, batch: Batch, number: int) -> None:
    """Check that a step's loss and gradients are finite, before the optimizer uses them.

    Only for one process on a CPU: elsewhere each check would synchronise, and ``FiniteCheck`` checks every 50 steps.

    Args:
        model: the net, with its gradients.
        x: the step's images.
        step: what the method made of them.
        batch: says which they are.
        number: of the step, from 1.

    Raises:
        Diverged: one is not.
    """
    if x.device.type != "cpu" or world().is_distributed:
        return
    gradients = [each.grad for each in model.parameters() if each.grad is not None]
    # A sum is NaN or infinite wherever a term is, and read faster than each term. It may also overflow, so ask again.
    if all(math.isfinite(each.sum()) or bool(each.isfinite().all()) for each in [step.loss.detach(), *gradients]):
        return
    loss = float(step.loss.detach())
    what = "a gradient is no longer finite" if math.isfinite(loss) else f"the loss became {loss}"
    raise Diverged(f"{what} in step {number}: {origin(model, x, step)} {_images(x, batch)}")


def not_finite(model: nn.Module, x: Tensor, batch: Batch, number: int, error: Exception) -> Diverged:
    """The error for a step whose loss could not be computed: a matrix of logits with NaN has no singular values.

    Args:
        model, x, batch, number: as for ``check_step``.
        error: what the decomposition raised.
    """
    what = f"the loss is not finite in step {number} ({type(error).__name__})"
    return Diverged(f"{what}: {origin(model, x, None)} {_images(x, batch)}")


def origin(model: nn.Module, x: Tensor, step: Step | None) -> str:
    """What is the first to be NaN or infinite: a weight, an output, the logits, the loss or a gradient.

    Args:
        model: the net, with its gradients.
        x: the step's images.
        step: what the method made of them; None where its loss could not be computed.
    """
    for name, weight in model.named_parameters():
        if not bool(weight.isfinite().all()):
            return f"the weight {name} has been NaN or infinite since the step before; found"
    if (layer := first_layer(model, x)) is not None:
        return f"the output of {layer} is the first that is NaN or infinite,"
    if step is None or not bool(step.logits.isfinite().all()):
        return "the logits of adversarial images are NaN or infinite, those of the clean ones are finite,"
    if not bool(step.loss.isfinite()):
        return "the logits are finite, and the loss is not,"
    named = [
        name for name, each in model.named_parameters() if each.grad is not None and not each.grad.isfinite().all()
    ]
    return f"in the backward pass, the gradient of {named[-1]} is the first that is NaN or infinite,"


@torch.no_grad()
def first_layer(model: nn.Module, x: Tensor) -> str | None:
    """The first layer whose output for these images is NaN or infinite; None if there is none."""
    layers: list[str] = []
    net = copy.deepcopy(model)
    for name, module in net.named_modules():
        if not list(module.children()):
            module.register_forward_hook(
                lambda _, given, out, name=name: (
                    layers.append(name) if isinstance(out, Tensor) and not out.isfinite().all() else None
                )
            )
    net(x)
    return layers[0] if layers else None


def _images(x: Tensor, batch: Batch) -> str:
    if batch.index is None:
        return f"on a batch of {len(x)} images"
    named = ", ".join(map(str, batch.index[:NAMED].tolist()))
    return f"on a batch of {len(x)}, the training images {named}{' and so on' * (len(x) > NAMED)}"

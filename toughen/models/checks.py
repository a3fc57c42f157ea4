"""Checks a model before training or evaluation: input shape, outputs, finite weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from toughen.core.modules import mode
from toughen.core.types import Images, Logits
from toughen.models.parts import Shape
from toughen.utils.plugins import own_place


def check(model: nn.Module, num_classes: int, shape: Shape, *, probabilities: bool = False) -> None:
    """One forward of two random images in evaluation mode; the model's modes and torch's random state stay as they are.

    Args:
        model: any module.
        num_classes: how many outputs it should have.
        shape: one image's [c, h, w].
        probabilities: let a model pass that returns them; an evaluation measures it and says what it thinks of it.

    Raises:
        ValueError: it cannot take such images, its outputs are not [2, num_classes] floats, weights or outputs are not
            finite, or the outputs are probabilities rather than logits.
    """
    out = _forward(model, shape)
    _require_finite_weights(model)
    if out.shape[1] != num_classes:
        raise ValueError(
            f"the model has {out.shape[1]} outputs and the data {num_classes} classes: "
            f"create it with num_classes={num_classes}"
        )
    if not out.isfinite().all():
        raise ValueError("the model returns NaN or infinite logits although its weights are finite: check its layers")
    if not probabilities and (out >= 0).all() and ((out.sum(1) - 1).abs() <= 1e-4).all():
        raise ValueError(
            "the model returns probabilities (no output below 0, each row adds up to 1), but logits are needed: "
            "remove the softmax at its end"
        )


def _forward(model: nn.Module, shape: Shape) -> Logits:
    x = _images_for(model, shape)
    try:
        with mode(model, "eval"), torch.no_grad():
            out = model(x)
    except Exception as error:  # a user's own net may raise anything
        reason = str(error).split("\n")[0] or type(error).__name__
        kind = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "  # torch's own say enough
        place = own_place(error)
        raise ValueError(f"the model cannot take images of shape {list(shape)}: {kind}{reason}{place}") from error
    out = getattr(out, "logits", out)
    if isinstance(out, Tensor) and out.is_floating_point() and out.ndim == 2 and len(out) == len(x):
        return out
    fact = f"{out.dtype} of shape {list(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
    raise ValueError(f"the model returns {fact} for {len(x)} images: logits are needed, floats [{len(x)}, classes]")


def _images_for(model: nn.Module, shape: Shape) -> Images:
    """Two images drawn from a generator of their own, where the model's weights are and of their type."""
    weights = [each for each in model.parameters() if each.is_floating_point()]
    like: Tensor = weights[0] if weights else torch.empty(0)
    x = torch.rand((2, *shape), generator=torch.Generator().manual_seed(0))
    return x.to(like.device, like.dtype)


def _require_finite_weights(model: nn.Module) -> None:
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise ValueError(f"weight {name!r} holds NaN or infinity: load another checkpoint")
    for name, buffer in model.named_buffers():
        if buffer.isnan().any():  # infinity may be meant, as in an attention mask
            raise ValueError(f"buffer {name!r} holds NaN: load another checkpoint")

"""What is seen to before a model is judged: that it, its source and its attacks fit the images and the processes."""

from __future__ import annotations

import pickle
from typing import Any

import torch
from torch import nn

from toughen import models
from toughen.core.gradients import mode
from toughen.core.modules import unwrap
from toughen.core.types import AnyImages, Images
from toughen.evaluation.harness import as_floats, predict
from toughen.evaluation.target import EvaluationTarget


def check_fit(net: nn.Module, target: EvaluationTarget) -> int:
    """See that a model answers these images with logits of these classes, and say how many these are.

    Raises:
        ValueError: the model can't take the images, has too few or too many outputs, a label is none of them, a logit
            is NaN or infinite, or no such image can be as far from another as the threat allows.
    """
    place = next(net.parameters(), target.split.images).device
    split, outputs = target.split.to(place), len(target.class_names)
    target.threat.check(as_floats(split.images[:1]))
    shape: Any = tuple(split.images.shape[1:])
    own = _outputs(net, as_floats(split.images[:2]))  # of their own type, where the check below asks in the weights'
    outputs = outputs or own
    if outputs < 2:
        raise ValueError(f"the model has {outputs} output: one for each class is needed, two or more")
    try:
        models.check(net, outputs, shape, probabilities=True)
    except ValueError as error:
        if own <= outputs:
            raise
        raise ValueError(f"{error}, or give toughen.evaluate images and labels with the model's classes") from None
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high >= outputs:
        raise ValueError(
            f"labels go from {low} to {high}, but the model has {outputs} outputs: they must be 0..{outputs - 1}"
        )
    undefined = int((predict(net, split.images) < 0).sum())
    if undefined:
        raise ValueError(
            f"the model's logits of {undefined} of {len(split)} images are NaN or infinite, so there is no accuracy: "
            "fix the model, or leave these images out"
        )
    return outputs


def _outputs(net: nn.Module, x: Images) -> int:
    """How many logits a model returns."""
    try:
        with mode(net, "eval"), torch.no_grad():
            out = net(given := x.clone())
    except Exception as error:  # a user's own net may raise anything
        reason = str(error).split("\n")[0] or type(error).__name__
        others = {each.dtype for each in net.parameters() if each.is_floating_point()} - {torch.float32}
        reason += "; its weights are not float32, as the images are: make it .float()" if others else ""
        raise ValueError(f"the model cannot take images of shape {list(x.shape[1:])}: {reason}") from error
    if not torch.equal(given, x):
        raise ValueError("the model changes its input images in place: let its forward return new tensors")
    return unwrap(out, len(x)).shape[1]


def check_sendable(name: str, thing: object) -> None:
    """See that other processes can be given a model, or an attack.

    Raises:
        ValueError: they can't, as with a function that was made inside another one.
    """
    try:
        pickle.dumps(thing)
    except Exception as error:  # whatever its own parts raise
        raise ValueError(f"{name} cannot be sent to other processes ({error}): use 1 process") from None


def check_source(source: nn.Module, outputs: int, images: AnyImages) -> None:
    """See that black-box attacks can be made on a net.

    Raises:
        ValueError: it is for other images or classes.
    """
    shape: Any = tuple(images.shape[1:])
    try:
        models.check(source, outputs, shape, probabilities=True)
    except ValueError as error:
        raise ValueError(f"the source model of black-box attacks does not fit: {error}") from None

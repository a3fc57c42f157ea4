"""Checks before an evaluation: the model fits the images and classes, and can be sent to other processes."""

from __future__ import annotations

import pickle
from typing import Any, Literal

import torch
from torch import nn

from toughen import models
from toughen.core.gradients import IN_PLACE, mode
from toughen.core.modules import unwrap
from toughen.core.types import AnyImages, Images
from toughen.engine.device import Precision
from toughen.evaluation.harness import as_floats, dtype_of, predict
from toughen.evaluation.target import EvaluationTarget


def check_fit(net: nn.Module, target: EvaluationTarget, precision: Precision | Literal["auto"] = "auto") -> int:
    """Check that a model returns finite logits for the target's images and classes.

    Args:
        net: the model, in any mode.
        target: images, classes and threat.
        precision: what attacks compute in; only with "fp64" may the weights be float64.

    Returns:
        How many logits there are for an image.

    Raises:
        ValueError: the model can't take the images or changes them, the number of its outputs does not fit the classes
            or labels, a logit is NaN or infinite, or eps exceeds the longest distance between two such images.
    """
    device = next(net.parameters(), target.split.images).device
    split = target.split.to(device)
    target.threat.check(as_floats(split.images[:1]))
    shape: Any = tuple(split.images.shape[1:])
    x = as_floats(split.images[:2])  # in the images' type; the check below uses that of the weights
    own = _outputs(net, x.to(dtype_of(net)) if precision == "fp64" else x)
    outputs = len(target.class_names) or own
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
    """How many logits a model returns for an image; checks that it takes the images and leaves them unchanged."""
    try:
        with mode(net, "eval"), torch.no_grad():
            out = net(passed := x.clone())
    except Exception as error:  # a user's own net may raise anything
        reason = str(error).split("\n")[0] or type(error).__name__
        other_types = {each.dtype for each in net.parameters() if each.is_floating_point()} - {torch.float32}
        if other_types == {torch.float64}:
            reason += "; its weights are float64: evaluate it with precision fp64, or make it .float()"
        elif other_types:
            reason += "; its weights are not float32, as the images are: make it .float()"
        raise ValueError(f"the model cannot take images of shape {list(x.shape[1:])}: {reason}") from error
    if passed._version or not torch.equal(passed, x):  # an in-place operation counts even where it changes no value
        raise ValueError(IN_PLACE)
    return unwrap(out, len(x)).shape[1]


def check_picklable(name: str, value: object) -> None:
    """Check that a model or an attack can be sent to other processes.

    Args:
        name: the value's name in the message.
        value: the model or the attack.

    Raises:
        ValueError: it can't, such as a function that was defined inside another one.
    """
    try:
        pickle.dumps(value)
    except Exception as error:  # a user's class may raise anything
        raise ValueError(f"{name} cannot be sent to other processes ({error}): use 1 process") from None


def check_source(source: nn.Module, outputs: int, images: AnyImages) -> None:
    """Check that a net can be the source of transfer attacks.

    Args:
        source: the net.
        outputs: how many logits the evaluated model has.
        images: the evaluated images.

    Raises:
        ValueError: it is for other images or classes.
    """
    shape: Any = tuple(images.shape[1:])
    try:
        models.check(source, outputs, shape, probabilities=True)
    except ValueError as error:
        raise ValueError(f"the source model of black-box attacks does not fit: {error}") from None

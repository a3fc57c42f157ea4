"""The base class of attacks."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import Tensor, nn

from toughen.core.labels import beyond
from toughen.core.rng import Noise
from toughen.core.threat import Threat
from toughen.core.types import Eps, Images, Labels, Logits, Norm, Real

ROUNDING = 1e-5  # how far outside [0, 1] rounding may leave a value


class Attack:
    """The base of all attacks: a frozen dataclass whose settings are its fields and whose work is its call.

    An attack keeps no state, restores every submodule's own mode and leaves no ``.grad``. It does not say whether it
    succeeded: the caller compares the predictions on the images that it returns.

    Attributes:
        eps: radius of the threat, in the units of the images.
        norm: "linf" or "l2".
    """

    eps: Eps | None
    norm: Norm

    def __call__(self, model: nn.Module, x: Images, target: Labels | Logits, noise: Noise | None = None) -> Images:
        """Images within the threat around ``x`` with a high value of the attack's objective.

        Args:
            model: returns logits; any mode, any device.
            x: clean images in [0, 1], [n, c, h, w]; they and the target are checked where ``noise`` is None. The
                trainer and the evaluation give a source of noise, and check images when they load them.
            target: what the objective compares with, the true labels, int64 [n], for most.
            noise: source of random numbers; None means torch's global generator.
        """
        raise NotImplementedError(f"{type(self).__name__} has no __call__: define it")


def start_call(
    attack: Attack, x: Images, noise: Noise | None, target: Labels | Logits | None = None
) -> tuple[Threat, Noise]:
    """The threat of an attack and the source of its random numbers, after a check of the images and the target.

    Raises:
        ValueError: an L2 radius above the longest distance; without ``noise``, images that ``check_images`` refuses, or
            a target that ``check_target`` refuses.
    """
    if noise is None:
        check_images(x)
        if target is not None:
            check_target(target, x)
    threat = threat_of(attack)
    threat.check(x)
    return threat, noise or Noise()


def check_images(x: Images) -> None:
    """Check that images are float32 or float64, [n, c, h, w], and lie in [0, 1]; on a GPU this waits for them.

    Raises:
        ValueError: they are no tensor, of another type or shape, or have other values.
    """
    if not isinstance(x, Tensor):
        raise ValueError(f"the images are {type(x).__name__}: give a tensor, such as torch.as_tensor(images)")
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"the images are {str(x.dtype).removeprefix('torch.')}, which cannot hold a radius such as 8/255: give "
            "float32 images, and a model of float32 weights, under torch.autocast where it is to compute in less"
        )
    if x.ndim != 4:
        raise ValueError(f"the images have shape {list(x.shape)}, not [n, c, h, w]: give a single image as image[None]")
    if not len(x):
        return
    low, high = (float(value) for value in x.detach().aminmax())
    if not (-ROUNDING <= low and high <= 1 + ROUNDING):
        raise ValueError(
            f"the images have values from {low:.4g} to {high:.4g}, but must lie in [0, 1]: divide bytes by 255, and "
            "normalise within the model"
        )


def check_target(target: Labels | Logits, x: Images) -> None:
    """Check that there is a class number, int64, or a row of logits for each image; on a GPU this waits for them.

    Raises:
        ValueError: the target is no tensor, of another type or shape, or has a class number below 0.
    """
    if not isinstance(target, Tensor):
        raise ValueError(f"the labels are {type(target).__name__}: give a tensor, such as torch.as_tensor(labels)")
    is_label = target.dtype == torch.int64 and target.ndim == 1
    is_logits = target.is_floating_point() and target.ndim == 2
    if not (is_label or is_logits) or len(target) != len(x):
        raise ValueError(
            f"the labels are {str(target.dtype).removeprefix('torch.')} of shape {list(target.shape)} for {len(x)} "
            "images: give one class number per image, int64 [n]"
        )
    if is_label and len(target) and int(target.min()) < 0:
        raise ValueError(f"the labels go down to {int(target.min())}: number the classes from 0")


def check_classes(target: Labels | Logits, classes: int) -> None:
    """Check that class numbers are below the number of logits; on a GPU this waits for them.

    Raises:
        ValueError: one is not.
    """
    if target.ndim == 1 and len(target) and not 0 <= int(target.min()) <= int(target.max()) < classes:
        raise ValueError(beyond(target, classes))


def threat_of(attack: object) -> Threat:
    """The threat that an attack's or a method's ``eps`` and ``norm`` describe.

    Raises:
        ValueError: eps is missing, or outside the norm's range.
    """
    eps: Eps | None = getattr(attack, "eps", None)
    norm: Norm = getattr(attack, "norm", "linf")
    if eps is None:
        raise ValueError(f"{type(attack).__name__} needs eps, the radius in image units: for example eps=8/255")
    return Threat(norm, eps)


def check_not_negative(**settings: Real | None) -> None:
    """Check settings of an attack that are given: finite numbers, 0 or more.

    Raises:
        ValueError: one is not.
    """
    for name, value in settings.items():
        if isinstance(value, str):
            raise ValueError(f"{name} is {value!r}: give a number, such as 2 / 255")
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(f"{name} {value} must be a finite number, not below 0")


def check_counts(**settings: Any) -> None:
    """Check that settings of an attack that are given are whole numbers, as steps are.

    Raises:
        ValueError: one is not.
    """
    for name, value in settings.items():
        try:
            operator.index(0 if value is None else value)
        except TypeError:
            raise ValueError(f"{name} is {value!r}: give a whole number, such as 10") from None

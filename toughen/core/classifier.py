"""A model as attacks see it: logits, gradients towards the input, and who is misclassified."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import nn

from toughen.core.objectives import Objective
from toughen.core.types import Images, Labels, Logits, Mask, PerExample, Scalar


class InputGradient(NamedTuple):
    """The gradient towards the images, and the values and logits it was taken at, detached unless asked otherwise."""

    gradient: Images
    value: PerExample | Scalar
    logits: Logits


class Classifier(nn.Module):
    """A model that may answer attacks with less precision than it is judged with.

    Attacks use the functions of ``toughen.core.gradients``, which take a plain module as well. ``forward`` gives the
    logits that an attack searches with.
    """

    @property
    @abstractmethod
    def low_precision(self) -> bool:
        """Whether the logits of the search are too coarse to judge by."""

    @abstractmethod
    def exact(self, x: Images) -> Logits:
        """The logits that images are judged by, in float32 at least."""

    @abstractmethod
    def confirm(self, x: Images, y: Labels, fell: Mask) -> Mask:
        """Which of the images that the search takes for misclassified are so by ``exact``."""

    @abstractmethod
    def like(self, other: nn.Module) -> nn.Module:
        """Another model, asked in the same way."""

    @abstractmethod
    def input_gradient(self, x: Images, target: Labels | Logits, objective: Objective) -> InputGradient:
        """As ``toughen.core.gradients.input_gradient``; zeros where the logits carry no gradient."""

    @abstractmethod
    def lowest_gradient(
        self,
        x: Images,
        target: Labels | Logits,
        objectives: Sequence[Objective],
        height: Callable[[InputGradient], PerExample],
        wanted: int,
    ) -> InputGradient:
        """As ``toughen.core.gradients.lowest_gradient``."""


def misclassified(logits: Logits, y: Labels) -> Mask:
    """Which images are not predicted as ``y``; an image with a logit that is not finite counts among them."""
    return (logits.argmax(1) != y) | ~logits.isfinite().all(1)

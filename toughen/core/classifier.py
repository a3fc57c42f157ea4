"""A model as attacks see it: logits, gradients with respect to the input, and which images are misclassified."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import nn

from toughen.core.objectives import Objective
from toughen.core.types import Images, Labels, Logits, Mask, PerExample, Scalar


class InputGradient(NamedTuple):
    """An objective's gradient with respect to the images, with the values and logits of the same pass.

    Attributes:
        gradient: [n, c, h, w], detached unless ``create_graph``.
        value: the objective, [n] or one scalar for the batch, detached.
        logits: [n, k], detached unless ``keep_graph``.
    """

    gradient: Images
    value: PerExample | Scalar
    logits: Logits


class Classifier(nn.Module):
    """A model that attacks may search in lower precision than the one in which their results are judged.

    Attacks call it through ``toughen.core.gradients``, whose functions take a plain module as well. ``forward`` gives
    the logits for the search.
    """

    @property
    @abstractmethod
    def low_precision(self) -> bool:
        """Whether the search's logits are too imprecise to judge an image by."""

    @property
    @abstractmethod
    def pass_size(self) -> int:
        """Images per pass: a pass on fewer images costs as much."""

    @abstractmethod
    def exact(self, x: Images) -> Logits:
        """The logits that images are judged by, in float32 or float64."""

    @abstractmethod
    def confirm(self, x: Images, y: Labels, fooled: Mask) -> Mask:
        """Those of the ``fooled`` images, misclassified in the search, that are misclassified by ``misclassifies``."""

    @abstractmethod
    def misclassifies(self, x: Images, y: Labels) -> Mask:
        """Which images are misclassified by ``exact``; with random outputs, significantly more often than not."""

    @abstractmethod
    def wrap(self, other: nn.Module) -> nn.Module:
        """Another model as a ``Classifier`` with the same batch size and precision."""

    @abstractmethod
    def input_gradient(self, x: Images, target: Labels | Logits, objective: Objective) -> InputGradient:
        """As ``toughen.core.gradients.input_gradient``, but zeros where the logits have no gradient."""

    @abstractmethod
    def nearest_gradient(
        self,
        x: Images,
        target: Labels | Logits,
        objectives: Sequence[Objective],
        distance: Callable[[InputGradient], PerExample],
        count: int,
    ) -> InputGradient:
        """As ``toughen.core.gradients.nearest_gradient``."""

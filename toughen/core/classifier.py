"""A model as attacks see it: logits, gradients towards the input, and who is misclassified."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeVar

from torch import nn

from toughen.core.objectives import Objective
from toughen.core.types import Images, Labels, Logits, Mask, PerExample, Scalar
from toughen.core.window import Window

Found = TypeVar("Found")
ENGINE = "toughen.engine.fixed_batch"  # named and not imported: it is made of what is here


class InputGradient(NamedTuple):
    """The gradient towards the images, and the values and logits it was taken at, detached unless asked otherwise."""

    gradient: Images
    value: PerExample | Scalar
    logits: Logits


class Query:
    """Asks a model about images that change a window at a time.

    A search changes windows of all images, asks for the ``logits``, and says in ``settle`` which images keep the
    change. So a model may compute again only what a window reaches; one that is asked in full need not listen.

    Attributes:
        model: what is asked.
    """

    model: nn.Module

    def logits(self, x: Images, windows: Sequence[Window]) -> Logits:
        """The logits of ``x``, of which these windows changed."""
        raise NotImplementedError

    def resize(self, x: Images, side: int) -> None:
        """From here on windows have this side, in pixels; ``x`` are the images as they are settled."""

    def settle(self, stay: Mask) -> None:
        """The changes of these images stay, those of the others have been taken back."""

    def keep(self, rows: Mask) -> None:
        """Only these images are asked about from here on."""

    def finish(self, x: Images) -> None:
        """No windows any more; ``x`` are the images as they are settled."""


class Classifier(nn.Module):
    """A model that may answer attacks with less precision than it is judged with.

    Attacks use the functions of ``toughen.core.gradients``, which take a plain module as well. ``forward`` gives the
    logits that an attack searches with.
    """

    @property
    @abstractmethod
    def low_precision(self) -> bool:
        """Whether the logits of the search are too coarse to judge by."""

    @property
    @abstractmethod
    def pass_size(self) -> int:
        """How many images a pass takes at least: fewer cost as much."""

    @abstractmethod
    def exact(self, x: Images) -> Logits:
        """The logits that images are judged by, in float32 at least."""

    @abstractmethod
    def confirm(self, x: Images, y: Labels, fell: Mask) -> Mask:
        """Which of the images that the search takes for misclassified are so by ``misclassifies``."""

    @abstractmethod
    def misclassifies(self, x: Images, y: Labels) -> Mask:
        """Which images are broken: misclassified by ``exact``, and by more than luck where the model draws."""

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

    @abstractmethod
    def search_windows(self, x: Images, side: int, search: Callable[[Labels, Query], Found]) -> list[Found]:
        """As ``toughen.core.queries.search_windows``."""


def as_classifier(
    model: nn.Module,
    x: Images,
    *,
    precision: Literal["auto", "bf16", "fp32", "fp64"] = "auto",
    batch_size: int | None = None,
) -> Classifier:
    """A model as an evaluation asks it; one that is asked so already as it is.

    Args:
        model: any module that returns logits.
        x: the images that it will be asked about.
        precision: what it multiplies in where it is searched; "auto" means bf16 where that is worth it.
        batch_size: images per pass; None means what suits the device.
    """
    if isinstance(model, Classifier):
        return model
    wrapped: Classifier = importlib.import_module(ENGINE).classifier(model, x, precision, batch_size)
    return wrapped


def misclassified(logits: Logits, y: Labels) -> Mask:
    """Which images are not predicted as ``y``; an image with a logit that is not finite counts among them."""
    return (logits.argmax(1) != y) | ~logits.isfinite().all(1)

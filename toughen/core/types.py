"""Names for the tensors and settings that pass between packages.

Images are floats in [0, 1] of shape [n, c, h, w]; models return logits [n, k]. Shapes are checked while the tests run.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from jaxtyping import Bool, Float, Int64, Num, UInt8
from torch import Tensor

from toughen.utils.units import Fraction

if TYPE_CHECKING:
    from toughen.core.rng import Noise

Images = Float[Tensor, "n c h w"]  # in [0, 1]
ByteImages = UInt8[Tensor, "n c h w"]  # 0..255, how a data set lies in memory
AnyImages = Num[Tensor, "n c h w"]  # either of them
Labels = Int64[Tensor, "n"]  # 0..k-1
Logits = Float[Tensor, "n k"]
PerExample = Float[Tensor, "n"]
Mask = Bool[Tensor, "n"]
Shifts = Int64[Tensor, "n 2"]  # rows and columns, in pixels
Scalar = Float[Tensor, ""]

Norm: TypeAlias = Literal["linf", "l2"]
Mode: TypeAlias = Literal["eval", "train"]  # how batch norm and dropout behave while an attack is made


Real: TypeAlias = Fraction | float | int
"""A setting that is a number; on the command line and in recipes ``8/255`` works too."""
Eps: TypeAlias = Real
"""A radius in the units of the images: [0, 1] for L-inf, 0..sqrt(c h w) for L2."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Information on a batch besides its images and labels.

    Attributes:
        index: each image's place in the training set, so that a method can keep a history per image.
        shift: rows and columns by which the crop moved the image's content down and right, in pixels.
        flip: [n], whether the image was mirrored left to right after the shift.
        noise: where random numbers come from; None means torch's global generator.
    """

    index: Labels | None = None
    shift: Shifts | None = None
    flip: Mask | None = None
    noise: Noise | None = None


@dataclass(frozen=True, kw_only=True)
class Crafted:
    """What a method's ``craft`` passes to its ``loss``.

    Attributes:
        x_adv: the images to train on, detached.
        clean: logits of the clean images (PGI, LIET: of the starting points) with their graph, if ``craft`` computed
            them; the loss can reuse them.
        extra: further values that ``craft`` and ``loss`` share.
        terms: named scalars for the log, from the attack; the loss adds them to its own.
        bases: for each entry of ``extra`` that holds adversarial images, the clean images that they were made from.
    """

    x_adv: Images
    clean: Logits | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    terms: dict[str, Tensor] = field(default_factory=dict)
    bases: dict[str, Tensor] = field(default_factory=dict)

    def scaled(self, x: Images, share: float | Tensor) -> Crafted:
        """The crafted images with their perturbations of ``x`` scaled by ``share``.

        Shared logits are kept only where they are certainly those of the clean images.
        """
        moved = {name: base + share * (self.extra[name] - base) for name, base in self.bases.items()}
        return replace(
            self,
            x_adv=x + share * (self.x_adv - x),
            clean=None if self.bases else self.clean,
            extra={**self.extra, **moved},
        )


@dataclass(frozen=True)
class Step:
    """One step's result: the scalar to minimise, the logits it was taken on, and named scalars for the log."""

    loss: Scalar
    logits: Logits
    terms: dict[str, Tensor]


def check_returned(step: object, name: str) -> None:
    """Check what a method's ``loss`` returned, which may be a user's own.

    Args:
        step: what it returned.
        name: the method's.

    Raises:
        ValueError: it is no ``Step``, or one of its parts is not what it must be.
    """
    if not isinstance(step, Step):
        raise ValueError(f"{name}.loss returned {type(step).__name__}: it must return a toughen.core.types.Step")
    loss, logits = step.loss, step.logits
    if not isinstance(loss, Tensor) or loss.ndim or not loss.requires_grad:
        raise ValueError(
            f"{name}.loss must return a toughen.core.types.Step whose loss is a scalar with a gradient (it has none if "
            "all weights of the model are frozen)"
        )
    if not isinstance(logits, Tensor) or logits.ndim != 2 or not logits.shape[0]:
        raise ValueError(f"{name}.loss must return a Step whose logits are a tensor [n, classes]")
    for term, value in step.terms.items():
        if not isinstance(value, Tensor) or value.ndim:
            raise ValueError(f"{name}.loss must return a Step whose terms are scalar tensors: {term} is not one")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The length of a run and the size of its data, passed to the method before the first step.

    Attributes:
        epochs, steps: of the whole run; a batch that is replayed counts once for each replay.
        images: size of the training set.
        first_drop: the share of the run after which the learning rate first falls by a step, None without one.
        trained: the epochs after which ``stop_epoch`` ends the run, None without one.
    """

    epochs: int
    steps: int
    images: int
    first_drop: float | None = None
    trained: int | None = None

"""Checks of methods that users wrote: of what ``craft`` returns and leaves behind, and of what is kept per image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from toughen.attacks.base import ROUNDING
from toughen.core.types import Crafted, Images


class CraftCheck:
    """The state of a model before ``craft`` is called, to compare it with the state after.

    Args:
        name: the method's name in messages.
        model: the model that is trained.
    """

    def __init__(self, name: str, model: nn.Module) -> None:
        self.name, self.model = name, model
        self.modes = [module.training for module in model.modules()]
        self.gradients = self._gradients()

    @classmethod
    def of(cls, method: nn.Module, model: nn.Module) -> CraftCheck | None:
        """The check of a method that is a user's, or wraps one that is; None for those of toughen alone."""
        own = _own(method)
        return cls(type(own[0]).__name__, model) if own else None

    def check(self, crafted: Any, x: Images, *, values: bool) -> None:
        """Compare the model, and check what ``craft`` returned.

        Args:
            crafted: what it returned.
            x: the clean images, [n, c, h, w].
            values: check the pixels, too; on a GPU this waits for them.

        Raises:
            ValueError: ``craft`` left the model in another mode or gradients in its weights, or returned something
                else than a ``Crafted`` with detached images of the same shape in [0, 1].
        """
        if [module.training for module in self.model.modules()] != self.modes:
            raise ValueError(
                f"{self.name}.craft left the model, or a part of it, in another mode: restore training and evaluation "
                "mode, as `with toughen.core.gradients.mode(model, 'eval'):` does"
            )
        if any(a is not b or va != vb for (a, va), (b, vb) in zip(self.gradients, self._gradients(), strict=True)):
            raise ValueError(
                f"{self.name}.craft left gradients in the model's weights, which the loss would add to its own: use "
                "torch.autograd.grad(loss, images) in place of loss.backward()"
            )
        if not isinstance(crafted, Crafted):
            raise ValueError(
                f"{self.name}.craft returned {type(crafted).__name__}: it must return a toughen.core.types.Crafted"
            )
        x_adv = crafted.x_adv
        if not isinstance(x_adv, Tensor) or x_adv.shape != x.shape or not x_adv.is_floating_point():
            raise ValueError(f"{self.name}.craft must return images of the shape and type that it was given")
        if x_adv.requires_grad:
            raise ValueError(f"{self.name}.craft must return images without a graph: return x_adv.detach()")
        if values and not (x_adv.is_cuda and torch.cuda.is_current_stream_capturing()):
            low, high = float(x_adv.min()), float(x_adv.max())
            if not (low >= -ROUNDING and high <= 1 + ROUNDING):
                raise ValueError(f"{self.name}.craft returned pixels from {low:.6g} to {high:.6g}, outside [0, 1]")

    def _gradients(self) -> list[tuple[Tensor | None, int]]:
        """The gradients of all weights, and how often each was written into."""
        found = [parameter.grad for parameter in self.model.parameters()]
        return [(grad, 0 if grad is None else grad._version) for grad in found]


def check_image_rows(method: nn.Module, shape: tuple[int, int, int], augmentation: str) -> None:
    """See that a user's method that keeps values for each pixel of each image says that it aligns them.

    Args:
        method: prepared, so that its buffers have their sizes.
        shape: one image's [c, h, w].
        augmentation: what moves pixels in training; "" if nothing does.

    Raises:
        ValueError: it does not say so, and pixels are moved.
    """
    for part in _own(method):
        rows = [name for name in part.per_image_buffers if getattr(part, name).shape[1:] == shape]
        if rows and augmentation and not part.keeps_images:
            raise ValueError(
                f"{type(part).__name__} keeps values for each pixel ({rows[0]}), and {augmentation} may move pixels: "
                "align them with batch.shift and batch.flip and set `keeps_images = True` in the class, or leave "
                f"{augmentation} out"
            )


def _own(method: nn.Module) -> list[Any]:
    """The methods among this one and those within that are not toughen's."""
    parts = [part for part in method.modules() if hasattr(part, "craft")]
    return [part for part in parts if not type(part).__module__.startswith("toughen.")]

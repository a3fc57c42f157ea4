"""Counts passes through a model: a forward is 1 F per image, a gradient to the input 1 F more, to the weights 2 F."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

_input_only = False


@contextmanager
def towards_input() -> Iterator[None]:
    """Within the block a backward pass is one that computes no weight gradient."""
    global _input_only
    before, _input_only = _input_only, True
    try:
        yield
    finally:
        _input_only = before


class Passes:
    """Counts, while the ``with`` block lasts, what a model really did, in images times passes.

    Attributes:
        forward, input_gradient, weight_gradient: images that went forward, and backward to the input or to weights.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.forward = self.input_gradient = self.weight_gradient = 0

    @property
    def total(self) -> int:
        """Forward equivalents: a gradient towards weights passes every layer twice."""
        return self.forward + self.input_gradient + 2 * self.weight_gradient

    def _on_forward(self, module: nn.Module, args: Any, out: Any) -> None:
        out = getattr(out, "logits", out)
        if not isinstance(out, Tensor):
            return
        n = len(out)
        self.forward += n
        if out.requires_grad:
            out.register_hook(lambda gradient: self._on_backward(n))

    def _on_backward(self, n: int) -> None:
        if _input_only:
            self.input_gradient += n
        else:
            self.weight_gradient += n

    def __enter__(self) -> Passes:
        self._hook = self.model.register_forward_hook(self._on_forward)
        return self

    def __exit__(self, *error: object) -> None:
        self._hook.remove()

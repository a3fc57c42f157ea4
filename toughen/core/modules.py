"""What is done to any model: the mode that it runs in, and its logits out of what it returns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from toughen.core.types import Logits, Mode


@contextmanager
def mode(model: nn.Module, wanted: Mode) -> Iterator[None]:
    """Within the block "eval" puts all of the model into evaluation mode; "train" leaves each part in its own mode.

    "train" is what sources mean by attacking in training mode, except that a part frozen by its user stays frozen.
    Afterwards every submodule has the mode it had.
    """
    if wanted == "train":
        yield
        return
    trained = [module for module in model.modules() if module.training]
    for module in trained:
        module.training = False
    try:
        yield
    finally:
        for module in trained:
            module.training = True


def unwrap(out: object, n: int) -> Logits:
    """A model's logits for ``n`` images, in float32 at least, out of a tensor or of an object with ``.logits``.

    Raises:
        ValueError: the model did not return [n, k].
    """
    out = getattr(out, "logits", out)
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != n:
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(f"a model must return logits of shape [{n}, classes], this one returned {shape}")
    return out.float() if out.dtype in (torch.bfloat16, torch.float16) else out

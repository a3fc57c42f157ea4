"""Helpers for any model: its mode, its logits, and a frozen copy."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from toughen.core.types import Logits, Mode


@contextmanager
def mode(model: nn.Module, wanted: Mode) -> Iterator[None]:
    """Within the block, "eval" puts the whole model into evaluation mode; "train" leaves each submodule as it is.

    So with "train", a submodule that the user put into evaluation mode stays in it. After the block, every submodule
    has its former mode.

    Raises:
        ValueError: the model is no module, or the mode is unknown.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"the model is a {type(model).__name__}: give an nn.Module, whose forward may call a function")
    if wanted not in ("eval", "train"):
        raise ValueError(f'mode {wanted!r} is unknown: use "eval" or "train"')
    if wanted == "train":
        yield
        return
    before = {module: getattr(module, "training", False) for module in model.modules()}  # a frozen script has none
    try:
        _set_modes(dict.fromkeys(before, False))
        yield
    finally:
        _set_modes(before)


def _set_modes(modes: Mapping[nn.Module, bool]) -> None:
    """Give each module its mode."""
    for module, training in modes.items():
        if getattr(module, "training", False) != training:
            module.training = training


def unwrap(out: object, n: int) -> Logits:
    """A model's logits for ``n`` images, in float32 or float64, from a tensor or an object with ``.logits``.

    Raises:
        ValueError: the model did not return [n, k].
    """
    out = getattr(out, "logits", out)
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != n:
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(f"a model must return logits of shape [{n}, classes], this one returned {shape}")
    return out.float() if out.dtype in (torch.bfloat16, torch.float16) else out


def frozen_copy(model: nn.Module, *, persistent: bool = True) -> nn.Module:
    """A copy in evaluation mode whose weights are buffers, so that no optimizer trains them.

    Args:
        model: what is copied.
        persistent: whether its state is part of ``state_dict()``, and so of checkpoints.
    """
    copied = copy.deepcopy(model).eval()
    copied.__dict__.pop("forward", None)  # a compiled forward would use the model's own weights
    for module in copied.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, weight.detach(), persistent=persistent)
        if not persistent:
            module._non_persistent_buffers_set |= set(module._buffers)
    return copied


def dtype_of(model: nn.Module) -> torch.dtype:
    """The type of a model's first floating-point weights; float32 where it has none."""
    return next((each.dtype for each in model.parameters() if each.is_floating_point()), torch.float32)

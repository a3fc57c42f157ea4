"""Modules that a model uses and does not list, so that they are not put into evaluation mode with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.module import register_module_forward_pre_hook


class HiddenModule(ValueError):
    """A model uses a module in training mode that is not among its own."""


@contextmanager
def hidden_refused() -> Iterator[None]:
    """Within the block, in which all known modules are in evaluation mode, batch norm and dropout must be in it, too.

    Raises:
        HiddenModule: one is about to run in training mode. Its statistics are not changed yet.
    """

    def check(module: nn.Module, given: Any) -> None:
        if isinstance(module, _NormBase | _DropoutNd) and module.training:
            raise HiddenModule(
                f"the model uses a {type(module).__name__} in training mode that is not among its modules, as where "
                "nets are in a plain list: put it into evaluation mode with .eval(), or use nn.ModuleList"
            )

    handle = register_module_forward_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()

"""Modules that a model uses and does not list, so that they are not put into evaluation mode with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.module import register_module_forward_pre_hook

from toughen.evaluation.function_model import FunctionModel


class HiddenModule(ValueError):
    """A model uses a module in training mode that is not among its own."""


@contextmanager
def hidden_refused(net: nn.Module) -> Iterator[None]:
    """Within the block, batch norm and dropout that are not among a net's modules must be in evaluation mode.

    Its own modules may choose their mode, as in a defence that is random on purpose.

    Args:
        net: a model, or a ``FunctionModel`` with the modules that were found.

    Raises:
        HiddenModule: one is about to run in training mode. Its statistics are not changed yet.
    """

    nets = net.nets if isinstance(net, FunctionModel) else (net,)
    known = {id(module) for each in nets for module in each.modules()}

    def check(module: nn.Module, given: Any) -> None:
        if isinstance(module, _NormBase | _DropoutNd) and module.training and id(module) not in known:
            raise HiddenModule(
                f"the model uses a {type(module).__name__} in training mode that is not among its modules, as where "
                "nets are in a plain list: put it into evaluation mode with .eval(), or use nn.ModuleList"
            )

    handle = register_module_forward_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()

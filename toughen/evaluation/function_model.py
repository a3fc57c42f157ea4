"""A function as a PyTorch module, and the search for the modules that it uses."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from toughen.core.modules import mode


class FunctionModel(nn.Module):
    """Any function from images in [0, 1] to logits, as a module.

    Attributes:
        nets: the modules that the function uses, as far as they are found. They are not moved to another device. During
            a forward pass they have this module's mode.
        uncopied: says that copies of this module share what the function uses.
    """

    uncopied = True

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.device_marker = nn.Parameter(torch.empty(0), requires_grad=False)  # its device is that of the images
        self.nets = tuple(nets_of(function))  # a tuple, so that they are not submodules and are not moved

    def forward(self, x: Tensor) -> Any:
        with ExitStack() as stack:
            for net in self.nets:
                stack.enter_context(mode(net, "train" if self.training else "eval"))
            return self.function(x)

    def __deepcopy__(self, memo: dict[int, Any]) -> FunctionModel:
        return FunctionModel(self.function).to(self.device_marker.device)


def nets_of(function: Any, depth: int = 3) -> list[nn.Module]:
    """The modules that a function refers to: by global or closure variables, as ``self``, or bound by ``partial``.

    Args:
        function: a function, or an object that can be called.
        depth: how many levels of functions to search; a callable object's attributes are searched on the first only.
    """
    referenced: list[Any] = []
    if inspect.isfunction(function):
        variables = inspect.getclosurevars(function)
        referenced = [*variables.nonlocals.values(), *variables.globals.values()]
    elif inspect.ismethod(function):
        referenced = [function.__self__, function.__func__]
    elif isinstance(function, partial):
        referenced = [function.func, *function.args, *function.keywords.values()]
    elif depth == 3:
        referenced = [type(function).__call__, *getattr(function, "__dict__", {}).values()]
    nets = [each for each in referenced if isinstance(each, nn.Module)]
    nets += [net for each in referenced for net in nets_of(each, depth - 1) if depth > 1]
    return list({id(net): net for net in nets}.values())

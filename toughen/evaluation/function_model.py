"""A function under evaluation, and the nets that it can be seen to use."""

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
        nets: those that it can be seen to use; they stay where they are, and are asked in its own mode.
        uncopied: whatever it uses, a copy of it would use, too.
    """

    uncopied = True

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)  # on the device whose images it wants
        self.nets = tuple(nets_of(function))  # not as parts: where they are is the function's matter

    def forward(self, x: Tensor) -> Any:
        with ExitStack() as stack:
            for net in self.nets:
                stack.enter_context(mode(net, "train" if self.training else "eval"))
            return self.function(x)

    def __deepcopy__(self, memo: dict[int, Any]) -> FunctionModel:
        return FunctionModel(self.function).to(self.place.device)


def nets_of(function: Any, depth: int = 3) -> list[nn.Module]:
    """The nets that a function holds on to: by name, in its closure, as its object or bound by ``partial``."""
    held: list[Any] = []
    if inspect.isfunction(function):
        known = inspect.getclosurevars(function)
        held = [*known.nonlocals.values(), *known.globals.values()]
    elif inspect.ismethod(function):
        held = [function.__self__, function.__func__]
    elif isinstance(function, partial):
        held = [function.func, *function.args, *function.keywords.values()]
    elif depth == 3:  # an object that is called
        held = [type(function).__call__, *getattr(function, "__dict__", {}).values()]
    nets = [each for each in held if isinstance(each, nn.Module)]
    nets += [net for each in held for net in nets_of(each, depth - 1) if depth > 1]
    return list({id(net): net for net in nets}.values())

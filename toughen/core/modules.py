"""The mode of a model while it is asked: as it trains, or as it is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from toughen.core.types import Mode


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

"""The weights of a model from elsewhere: tensors of a file, and nothing that can run code."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from toughen.runs.weights_file import load_into, read_weights


def load_weights(net: nn.Module, path: Path) -> str:
    """Put the tensors of a .safetensors or .pth file into a model.

    Returns:
        The file's name, and what else it holds and was left out.

    Raises:
        ValueError: there is no such file, it is of another kind, or belongs to another model.
    """
    found = read_weights(path)
    try:
        load_into(net, found.tensors)
    except ValueError as error:
        raise ValueError(f"{path} does not fit the model: {error}") from None
    return f"{path}, without {', '.join(found.more)}" if found.more else str(path)

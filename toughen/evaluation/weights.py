"""The weights of a model from elsewhere: a safetensors file, and nothing that can run code."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from toughen.runs.directory import second_line
from toughen.runs.files import read_tensors


def load_weights(net: nn.Module, path: Path) -> None:
    """Put the tensors of a safetensors file into a model.

    Raises:
        ValueError: there is no such file, it is of another kind, or belongs to another model.
    """
    if not path.is_file():
        raise ValueError(f"there are no weights {path}: give a .safetensors file")
    if path.suffix in (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".tar"):
        raise ValueError(
            f"{path} may hold a pickle, which can run any code, and is not opened. Where you trust it, convert it: "
            "safetensors.torch.save_file(torch.load(PATH, weights_only=True), 'weights.safetensors')"
        )
    tensors = read_tensors(path)[0]
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the model: {second_line(error)}") from None

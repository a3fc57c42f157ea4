"""Weights from files of other programs: safetensors, and those of ``torch.save``, read with ``weights_only``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from toughen.runs.files import read_tensors

PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".tar", ".pkl")
CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "state_dict_ema", "model_ema")  # the usual names
_WRAPPED = re.compile(r"(module|model|net|_orig_mod)\.")


class WeightsFile(NamedTuple):
    """What a file holds.

    Attributes:
        tensors: by their names in the net.
        about: what a safetensors file of toughen's says of them; {} for others.
        more: names of what else it holds, which is left out.
    """

    tensors: dict[str, Tensor]
    about: dict[str, Any]
    more: list[str]


def read_weights(path: Path) -> WeightsFile:
    """The tensors of a safetensors file, or of a file that ``torch.save`` wrote.

    Raises:
        ValueError: there is no such file, it is damaged, or holds what only code could build.
    """
    if not path.is_file():
        raise ValueError(f"there are no weights {path}: give a .safetensors or .pth file, or a run directory")
    if path.suffix == ".safetensors":
        tensors, about = read_tensors(path)
        return WeightsFile(without_wrapper_names(tensors), about, [])
    if path.suffix not in PICKLED:
        raise ValueError(f"{path} is not a file of weights: give one that ends in .safetensors or .pth")
    content = _unpickled(path)
    key = next((name for name in CONTAINERS if _are_weights(content.get(name))), None)
    weights = content if key is None else content[key]
    tensors = {str(name): value for name, value in weights.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"{path} holds no state_dict: save model.state_dict() there")
    more = [str(name) for name in content if name != key] if key is not None else []
    more += [str(name) for name, value in weights.items() if not isinstance(value, Tensor)]
    return WeightsFile(without_wrapper_names(tensors), {}, more)


def _unpickled(path: Path) -> Mapping[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged, or more than tensors
        needs = re.search(r"GLOBAL ([\w.]+)", str(error))
        if needs is None:
            raise ValueError(f"{path} is damaged, or not a file of torch.save: restore it from a copy") from None
        raise ValueError(
            f"{path} holds more than weights ({needs[1]}), which could run code, and is not opened. "
            "If you trust it: found = torch.load(PATH, weights_only=False), then torch.save(found.state_dict(), "
            "'weights.pth') for a net, found['state_dict'] for a dictionary that holds one"
        ) from None
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds {type(content).__name__}, not a state_dict: save model.state_dict() there")
    return content


def _are_weights(value: object) -> bool:
    return isinstance(value, Mapping) and any(isinstance(each, Tensor) for each in value.values())


def without_wrapper_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors without the prefixes of wrappers, such as DistributedDataParallel's "module.", if all names have them."""
    own = {name: value for name, value in tensors.items() if not name.startswith("normalize.")}
    kept = {name: value for name, value in tensors.items() if name.startswith("normalize.")}
    while own and (wrapper := _WRAPPED.match(next(iter(own)))) and all(name.startswith(wrapper[0]) for name in own):
        own = {name.removeprefix(wrapper[0]): value for name, value in own.items()}
        moved = {name: value for name, value in own.items() if name.startswith("normalize.")}
        kept, own = kept | moved, {name: value for name, value in own.items() if name not in moved}
    return own | kept


def load_into(net: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load weights into a net, ignoring the prefixes of wrappers on either side.

    Raises:
        ValueError: they belong to another net.
    """
    full = net.state_dict()
    own = without_wrapper_names(full)
    names = {id(tensor): name for name, tensor in own.items()}
    if fault := find_mismatch(own, tensors, {names[id(tensor)]: name for name, tensor in full.items()}):
        raise ValueError(fault)
    net.load_state_dict({name: tensors.get(names[id(tensor)], tensor) for name, tensor in full.items()})


def find_mismatch(own: Mapping[str, Tensor], given: Mapping[str, Tensor], full: Mapping[str, str]) -> str:
    """The first name or shape in which weights differ from those of a net; "" where they fit.

    Args:
        own, given: the net's tensors and the weights, both without the prefixes of wrappers.
        full: the names of ``own`` with these prefixes, as the net has them.
    """
    for name, tensor in own.items():
        if name not in given and not name.endswith("num_batches_tracked"):
            return f"it has no {full[name]}"
        if name in given and given[name].shape != tensor.shape:
            return f"{full[name]} has shape {list(given[name].shape)} there and {list(tensor.shape)} here"
    return next((f"it has {name}, and the net has no such tensor" for name in given if name not in own), "")

"""What decides an evaluation's outcome, so that a state is only gone on with where it belongs."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache, partial
from pathlib import Path
from types import CodeType, NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import toughen
from toughen.attacks.base import Attack
from toughen.core.gradients import mode
from toughen.evaluation.harness import Harness
from toughen.utils import hashing


def fingerprint(harness: Harness, attacks: Mapping[str, Attack]) -> tuple[object, ...]:
    """The model's weights, settings, code and a few logits, the images, the attacks, the seed and how it is asked.

    Its logits are those of a few clean images and of what no clean image is like, where a defence may begin.
    """
    blocks, first = (
        harness.blocks,
        torch.arange(min(len(harness.images), harness.blocks.size), device=harness.images.device),
    )
    x = harness.floats(first)
    noise = torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(0)).to(x)
    with mode(blocks, "eval"):
        out = torch.cat([blocks.exact(each) for each in (x, 1 - x, (x + noise) / 2)])
    seen = (
        hashing.of_tensor(harness.images),
        hashing.of_tensor(harness.labels),
        hashing.of_tensor(harness.index),
        harness.seed,
    )
    settings = (
        _plain(blocks.net),
        hashing.of_tensor(out),
        blocks.size,
        blocks.precision,
        torch.__version__,
        _own_source(),
    )
    return (*seen, *settings, tuple((name, _plain(attack)) for name, attack in attacks.items()))


PLAIN = (str, int, float, bool, NoneType, torch.dtype, torch.device)
OF_MODULES = frozenset(vars(nn.Module()))  # what every module has: its parts are looked at one by one


def _plain(value: object, within: tuple[int, ...] = ()) -> object:
    """A value as text and numbers that are the same in every process.

    Args:
        value: anything.
        within: what it lies in, by address, since a net or a function may hold on to itself.
    """
    if isinstance(value, PLAIN):
        return str(value)
    if id(value) in within:
        return "itself"
    within = (*within, id(value))
    if isinstance(value, Tensor):
        return hashing.of_tensor(value)
    if isinstance(value, nn.Module):
        return tuple((name, *_of_module(part, within)) for name, part in value.named_modules())
    if is_dataclass(value) and not isinstance(value, type):
        settings = tuple((each.name, _plain(getattr(value, each.name), within)) for each in fields(value))
        return *_kind(value), settings
    if isinstance(value, tuple | list):
        return tuple(_plain(each, within) for each in value)
    if isinstance(value, np.ndarray | np.generic):
        held = _bytes(value) if value.dtype.kind in "biufcmM" else _plain(value.tolist(), within)
        return str(value.dtype), value.shape, held
    if isinstance(value, set | frozenset):
        return tuple(sorted(repr(_plain(each, within)) for each in value))  # their order is the process's
    if isinstance(value, dict):
        return tuple((str(name), _plain(each, within)) for name, each in value.items())
    if inspect.isroutine(value):
        return getattr(value, "__qualname__", ""), _source(value), _plain(_bound(value), within)
    if isinstance(value, partial):
        return _plain([value.func, value.args, value.keywords], within)
    return *_kind(value), tuple((name, str(each)) for name, each in _settings(value).items() if isinstance(each, PLAIN))


def _bytes(array: Any) -> str:
    return hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).hexdigest()


def _of_module(part: nn.Module, within: tuple[int, ...]) -> tuple[object, ...]:
    """A module without the modules in it: code, weights, buffers that are not saved, and settings."""
    tensors = {**part._parameters, **part._buffers}
    weights = tuple((name, hashing.of_tensor(each)) for name, each in tensors.items() if each is not None)
    settings = {name: each for name, each in vars(part).items() if name not in OF_MODULES}
    return *_kind(part), weights, _plain(settings, within)


def _kind(value: object) -> tuple[object, ...]:
    return type(value).__name__, *(_source(kind) for kind in inspect.getmro(type(value)))


def _settings(value: object) -> dict[str, object]:
    return dict(getattr(value, "__dict__", {}))


def _bound(function: Any) -> list[object]:
    """What a function was given when it was made: its object, defaults and closure."""
    function, held = getattr(function, "__func__", function), [getattr(function, "__self__", None)]
    held = [each for each in held if not inspect.ismodule(each)]  # as of a builtin
    for cell in getattr(function, "__closure__", None) or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:  # it is not filled yet
            continue
    return [*held, getattr(function, "__defaults__", None), getattr(function, "__kwdefaults__", None)]


@cache
def _own_source() -> str:
    """toughen's own code: what a later version says of an attack is not what an earlier one said."""
    root = Path(toughen.__file__).parent
    texts = (path.read_bytes() for path in sorted(root.rglob("*.py")))
    return hashlib.blake2b(b"".join(texts), digest_size=16).hexdigest()


def _source(thing: Any) -> str:
    """A class or function that toughen did not write may be another the next time, though it has the same name."""
    if str(getattr(thing, "__module__", "")).partition(".")[0] in ("toughen", "torch", "builtins"):
        return ""
    parts = vars(thing).values() if inspect.isclass(thing) else [thing]
    functions = [part for part in parts if hasattr(part, "__code__")]
    compiled = repr([(_compiled(part.__code__), _globals(part)) for part in functions])
    try:
        return compiled + inspect.getsource(inspect.getmodule(thing) or thing)
    except (OSError, TypeError):  # typed in, not in a file
        return compiled


def _globals(function: Any) -> list[tuple[str, str]]:
    """The plain values of its module that a function asks for by name, which may come from the environment."""
    known = getattr(function, "__globals__", {})
    names = [name for name in function.__code__.co_names if isinstance(known.get(name), PLAIN)]
    return [(name, str(known[name])) for name in names if name in known]


def _compiled(code: CodeType) -> tuple[object, ...]:
    """What a function does, without what differs between processes: addresses, and the order of sets."""
    constants = [
        _compiled(each)
        if isinstance(each, CodeType)
        else sorted(map(repr, each))
        if isinstance(each, frozenset)
        else each
        for each in code.co_consts
    ]
    return code.co_code, constants, code.co_names

"""What decides an evaluation's outcome, so that a state is only gone on with where it belongs."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn

import toughen
from toughen import digest
from toughen.attacks.base import Attack
from toughen.evaluation.harness import Bench
from toughen.gradients import mode


def fingerprint(bench: Bench, attacks: Mapping[str, Attack]) -> tuple[object, ...]:
    """The model's weights, code and a few logits, the images, the attacks, the seed and how the model is asked."""
    blocks, first = bench.blocks, torch.arange(min(len(bench.images), bench.blocks.size), device=bench.images.device)
    with mode(blocks, "eval"):
        out = blocks.exact(bench.floats(first))
    seen = (digest.of_tensor(bench.images), digest.of_tensor(bench.labels), digest.of_tensor(bench.index), bench.seed)
    asked = (_plain(blocks.net), digest.of_tensor(out), blocks.size, blocks.precision, torch.__version__, _own_source())
    return (*seen, *asked, tuple((name, _plain(attack)) for name, attack in attacks.items()))


def _plain(value: object) -> object:
    """A value as text and numbers that are the same in every process."""
    if isinstance(value, Tensor):
        return digest.of_tensor(value)
    if isinstance(value, nn.Module):
        kinds = {kind: None for part in value.modules() for kind in inspect.getmro(type(part))}  # in a fixed order
        inside = [_plain(part) for part in (getattr(value, "function", None), *getattr(value, "nets", ()))]
        weights = tuple((name, digest.of_tensor(tensor)) for name, tensor in value.state_dict().items())
        return tuple(map(_source, kinds)), tuple(inside), weights
    if is_dataclass(value):
        settings = tuple((each.name, _plain(getattr(value, each.name))) for each in fields(value))
        return type(value).__name__, *(_source(kind) for kind in inspect.getmro(type(value))), settings
    if value is None or isinstance(value, str | int | float | bool):
        return str(value)
    if isinstance(value, tuple | list):
        return tuple(map(_plain, value))
    if inspect.isroutine(value):
        return getattr(value, "__qualname__", ""), _source(value)
    return type(value).__name__, *(_source(kind) for kind in inspect.getmro(type(value)))


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
    compiled = repr([_compiled(part.__code__) for part in parts if hasattr(part, "__code__")])
    try:
        return compiled + inspect.getsource(inspect.getmodule(thing) or thing)
    except (OSError, TypeError):  # typed in, not in a file
        return compiled


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

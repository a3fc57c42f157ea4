"""Everything that decides an evaluation's results, so that a stored state is resumed only where it belongs."""

from __future__ import annotations

import hashlib
import inspect
import sys
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
from toughen.core.objectives import Objective
from toughen.engine.device import one_thread, preserved_rng_state
from toughen.evaluation.harness import Harness
from toughen.utils import hashing
from toughen.utils.plugins import is_users_own

IMAGES = 8  # whose logits count
SCALARS = (str, int, float, bool, NoneType, torch.dtype, torch.device)
CONTENTS = (*SCALARS, Tensor, np.ndarray, np.generic, tuple, list, set, frozenset, dict, nn.Module)
"""What counts of an objective's attributes; of private ones, and of other objects, which may note things, scalars."""
MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))  # what every module has, such as its submodules


def fingerprint(harness: Harness, attacks: Mapping[str, Attack]) -> tuple[object, ...]:
    """The images, the seed, the model's weights, settings, code and some logits, the versions, and the attacks.

    The logits are of a few clean images, of their negatives, and of their means with noise: a defence may change its
    behaviour only on images that are unlike clean ones. One thread computes them, so that they don't depend on the
    number of cores; and random outputs are drawn with the evaluation's seed.
    """
    model = harness.model
    x = harness.floats(torch.arange(min(len(harness.images), model.size, IMAGES), device=harness.images.device))
    noise = torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(0)).to(x)
    with mode(model, "eval"), one_thread(), preserved_rng_state(x.device):
        torch.manual_seed(harness.seed)
        logits = torch.cat([model.exact(each) for each in (x, 1 - x, (x + noise) / 2)])
    return (
        hashing.of_tensor(harness.images),
        hashing.of_tensor(harness.labels),
        hashing.of_tensor(harness.index),
        harness.seed,
        _canonical(model.net),
        hashing.of_tensor(logits),
        model.size,
        model.precision,
        torch.__version__,
        _package_hash(),
        tuple((name, _canonical(attack)) for name, attack in attacks.items()),
    )


def _canonical(value: object, parents: tuple[int, ...] = ()) -> object:
    """A value as nested tuples of text and numbers, the same in every process.

    Args:
        value: anything.
        parents: ids of the objects that contain it, because a net or a function may contain itself.
    """
    if isinstance(value, SCALARS):
        return str(value)
    if id(value) in parents:
        return "itself"
    parents = (*parents, id(value))
    if isinstance(value, Tensor):
        return hashing.of_tensor(value)
    if isinstance(value, nn.Module):
        return tuple((name, *_of_module(module, parents)) for name, module in value.named_modules())
    if is_dataclass(value) and not isinstance(value, type):
        settings = tuple((each.name, _canonical(getattr(value, each.name), parents)) for each in fields(value))
        return *_of_class(value), settings
    if isinstance(value, tuple | list):
        return tuple(_canonical(each, parents) for each in value)
    if isinstance(value, np.ndarray | np.generic):
        content = _array_hash(value) if value.dtype.kind in "biufcmM" else _canonical(value.tolist(), parents)
        return str(value.dtype), value.shape, content
    if isinstance(value, set | frozenset):
        return tuple(sorted(repr(_canonical(each, parents)) for each in value))  # its order differs between processes
    if isinstance(value, dict):
        return tuple((str(name), _canonical(each, parents)) for name, each in value.items())
    if inspect.isroutine(value):
        return getattr(value, "__qualname__", ""), _source(value), _canonical(_captured(value), parents)
    if isinstance(value, partial):
        return _canonical([value.func, value.args, value.keywords], parents)
    attributes = getattr(value, "__dict__", {}).items()
    kinds = {name: CONTENTS if isinstance(value, Objective) and name[0] != "_" else SCALARS for name, _ in attributes}
    counted = [(name, each) for name, each in attributes if isinstance(each, kinds[name])]
    return *_of_class(value), tuple((name, _canonical(each, parents)) for name, each in counted)


def _array_hash(array: Any) -> str:
    return hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).hexdigest()


def _of_module(module: nn.Module, parents: tuple[int, ...]) -> tuple[object, ...]:
    """A module without its submodules: code, weights, buffers (those that are not saved, too) and settings."""
    tensors = {**module._parameters, **module._buffers}
    weights = tuple((name, hashing.of_tensor(each)) for name, each in tensors.items() if each is not None)
    settings = {name: each for name, each in vars(module).items() if name not in MODULE_ATTRIBUTES}
    return *_of_class(module), weights, _canonical(settings, parents)


def _of_class(value: object) -> tuple[object, ...]:
    """The name of a value's class, and the code of this class and its bases."""
    return type(value).__name__, *(_source(each) for each in inspect.getmro(type(value)))


def _captured(function: Any) -> list[object]:
    """The objects that a function got when it was defined: ``self``, closure variables and defaults."""
    function, captured = getattr(function, "__func__", function), [getattr(function, "__self__", None)]
    captured = [each for each in captured if not inspect.ismodule(each)]  # a builtin function has its module there
    for cell in getattr(function, "__closure__", None) or ():
        try:
            captured.append(cell.cell_contents)
        except ValueError:  # the variable has no value yet
            continue
    return [*captured, getattr(function, "__defaults__", None), getattr(function, "__kwdefaults__", None)]


@cache
def _package_hash() -> str:
    """A hash of toughen's own code, because another version's attacks may give other results."""
    root = Path(toughen.__file__).parent
    texts = (path.read_bytes() for path in sorted(root.rglob("*.py")))
    return hashlib.blake2b(b"".join(texts), digest_size=16).hexdigest()


def _source(definition: Any) -> str:
    """The code of a user's class or function, which may change while its name stays; "" for toughen's and PyTorch's."""
    if str(getattr(definition, "__module__", "")).partition(".")[0] in ("toughen", "torch", "builtins"):
        return ""
    members = vars(definition).values() if inspect.isclass(definition) else [definition]
    functions = [member for member in members if hasattr(member, "__code__")]
    compiled = repr([(_bytecode(each.__code__), _globals(each)) for each in functions])
    try:
        own = inspect.getsource(inspect.getmodule(definition) or definition)
    except (OSError, TypeError):  # it was typed in, and has no file
        own = ""
    return compiled + own + _imported_sources(str(getattr(definition, "__module__", "")))


def _imported_sources(name: str) -> str:
    """The code of the user's other modules that a module uses, directly or through them; "" without any."""
    found, waiting = dict[str, str](), [name]
    while waiting:
        current = waiting.pop()
        if current in found or (module := sys.modules.get(current)) is None or not is_users_own(module):
            continue
        found[current] = Path(str(module.__file__)).read_text(encoding="utf-8", errors="replace")
        waiting += [str(getattr(each, "__module__", getattr(each, "__name__", ""))) for each in vars(module).values()]
    return "".join(sorted(text for module, text in found.items() if module != name))


def _globals(function: Any) -> list[tuple[str, str]]:
    """The scalar global variables that a function uses; their values may come from the environment."""
    known = getattr(function, "__globals__", {})
    names = [name for name in function.__code__.co_names if name in known]
    return [(name, str(known[name])) for name in names if isinstance(known[name], SCALARS)]


def _bytecode(code: CodeType) -> tuple[object, ...]:
    """A function's bytecode, constants and names, without what differs between processes: ids and the order of sets."""
    constants: list[object] = []
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            constants.append(_bytecode(constant))
        elif isinstance(constant, frozenset):
            constants.append(sorted(map(repr, constant)))
        else:
            constants.append(constant)
    return code.co_code, constants, code.co_names

"""Settings as toughen uses them: out of a recipe, an attack or a net."""

from __future__ import annotations

import shlex
from functools import cache
from typing import Any

import torch
import yaml
from torch import nn

from toughen import models
from toughen.attacks.pgd import IFGSM
from toughen.config.train import parse_train
from toughen.core.threat import Threat
from toughen.evaluation.suite import parse_attack
from toughen.models import create_reconstructor
from toughen.papers.datasets import SETS
from toughen.papers.published.exhibits import Setting, Settings
from toughen.utils.fraction import Fraction


def stated(table: Settings, entry: Setting) -> str:
    """What toughen has for one entry of a table."""
    if entry.path.startswith("attack "):
        specs, _, name = entry.path.removeprefix("attack ").rpartition(".")
        return ", ".join(_of_attack(spec, name, dict(table.eps)[entry.of]) for spec in specs.split())
    if entry.path == "sources":
        return ", ".join(str(settings(words)["model"]) for words in entry.sources)
    trained = entry.run.startswith("eat-") and "Standard" not in entry.run
    found: Any = settings(entry.run + " --method.sources [one]" * trained)
    if entry.path == "layers":
        return layers(found)
    if entry.path.endswith("parameters"):
        return f"{parameters(found, entry.path) / 1e6:.2f} million"
    for name in entry.path.split("."):
        found = found.get("init_args", found)[name]
    if isinstance(found, int | float):
        return f"{found * entry.unit:g}"
    return str(found)


@cache
def settings(words: str) -> dict[str, Any]:
    """A run's settings."""
    found: dict[str, Any] = yaml.safe_load(parse_train(shlex.split(words))[1])
    return found


def _of_attack(spec: str, name: str, eps: str) -> str:
    attack = parse_attack(spec, Threat("linf", Fraction(eps)))
    if name == "eps":
        return eps
    if name == "step_size" and isinstance(attack, IFGSM):
        return "eps/N"  # it has no other
    value = getattr(attack, name)
    return value.text if isinstance(value, Fraction) else str(value)


def layers(found: dict[str, Any]) -> str:
    """A net's layers in the paper's words."""
    with torch.device("meta"):
        net = models.create(found["model"], 10, SETS[found["data"]].shape, **found["model_settings"])
    words = [word for module in net.modules() if (word := _layer(module))]
    return " ".join([*words[:-1], "FC"])  # the last one has as many units as there are classes


def parameters(found: dict[str, Any], path: str) -> int:
    """How many parameters a run's net has, or its re-constructor."""
    data, method = SETS[found["data"]], found["method"]["init_args"]
    with torch.device("meta"):
        if path.startswith("reconstructor"):
            net = create_reconstructor(method["reconstructor"], 10, data.shape)
        else:
            net = models.create(found["model"], 10, data.shape, **found["model_settings"])
    return sum(each.numel() for each in net.parameters())


def _layer(module: nn.Module) -> str:
    match module:
        case nn.Conv2d():
            return f"Conv({module.out_channels},{module.kernel_size[0]},{module.kernel_size[1]})"
        case nn.Linear():
            return f"FC({module.out_features})"
        case nn.MaxPool2d():
            return f"MaxPool({module.kernel_size},{module.stride})"
        case nn.Dropout() | nn.Dropout2d():
            return f"Dropout({module.p:g})"
        case nn.ReLU():
            return "Relu"
        case nn.Tanh():
            return "Tanh"
        case _:
            return ""

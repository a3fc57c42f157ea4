"""Finds toughen's values for the settings that papers state, in a recipe, an attack or a net."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from toughen import models
from toughen.attacks.pgd import IFGSM
from toughen.core.threat import Threat
from toughen.evaluation.suite import parse_attack
from toughen.models import create_reconstructor
from toughen.papers.datasets import SETS
from toughen.papers.published.exhibits import Setting, Settings
from toughen.papers.run_spec import parsed
from toughen.utils.units import Fraction


def stated(table: Settings, entry: Setting) -> str:
    """Toughen's value for one entry of a table of settings."""
    if entry.path.startswith("attack "):
        specs, _, name = entry.path.removeprefix("attack ").rpartition(".")
        return ", ".join(_of_attack(spec, name, dict(table.eps)[entry.of]) for spec in specs.split())
    if entry.path == "sources":
        return ", ".join(str(parsed(words, "")["model"]) for words in entry.sources)
    trained = entry.run.startswith("eat-") and "Standard" not in entry.run
    settings = parsed(entry.run, "[one]" * trained)
    if entry.path == "layers":
        return layers(settings)
    if entry.path.endswith("parameters"):
        return f"{parameters(settings, entry.path) / 1e6:.2f} million"
    value: Any = settings
    for name in entry.path.split("."):
        value = value.get("init_args", value)[name]
    return f"{value * entry.unit:g}" if isinstance(value, int | float) else str(value)


def _of_attack(spec: str, name: str, eps: str) -> str:
    attack = parse_attack(spec, Threat("linf", Fraction(eps)))
    if name == "eps":
        return eps
    if name == "step_size" and isinstance(attack, IFGSM):
        return "eps/N"  # fixed by the method
    value = getattr(attack, name)
    return value.text if isinstance(value, Fraction) else str(value)


def layers(settings: dict[str, Any]) -> str:
    """A net's layers in the notation of the paper."""
    with torch.device("meta"):
        net = models.create(settings["model"], 10, SETS[settings["data"]].shape, **settings["model_settings"])
    words = [word for module in net.modules() if (word := _layer(module))]
    return " ".join([*words[:-1], "FC"])  # the last layer has one unit for each class


def parameters(settings: dict[str, Any], path: str) -> int:
    """The number of parameters of a run's net, or of its re-constructor."""
    data, method = SETS[settings["data"]], settings["method"]["init_args"]
    with torch.device("meta"):
        if path.startswith("reconstructor"):
            net = create_reconstructor(method["reconstructor"], 10, data.shape)
        else:
            net = models.create(settings["model"], 10, data.shape, **settings["model_settings"])
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

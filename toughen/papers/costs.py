"""How long a table or figure will take, roughly: the operations of each part that is missing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from toughen import models
from toughen.attacks.autoattack import AutoAttack
from toughen.core.cost import flops
from toughen.core.threat import Threat
from toughen.data.sets import held_out_count
from toughen.evaluation.plan import pieces
from toughen.evaluation.suite import parse_attack
from toughen.papers.dataset_facts import SETS
from toughen.papers.measure import OF_TRAINING
from toughen.papers.run_spec import RunSpec
from toughen.papers.scales import nodes
from toughen.papers.store import TRAINED, Quantity, Store
from toughen.papers.tasks import Task
from toughen.utils.fraction import Fraction


def costs(found: Sequence[Task], store: Store) -> dict[str, float]:
    """The cost of all parts that are missing, in operations, by the titles that ``run`` gives them."""
    total: dict[str, float] = {}
    seen: set[str] = set()
    for task in found:
        missing = [each for each in task.quantities if store.read(task.run_spec, each) is None]
        if missing:
            _training_cost(task.run_spec, task.title, store, total, seen)
        for each in missing:
            if each.source:
                _training_cost(each.source, each.source.title_for(task.title), store, total, seen)
            total[f"{task.title}: {each.of}"] = cost_of(task, each)
    return total


def training_cost(model: RunSpec, store: Store, seen: set[str]) -> float:
    """Operations that training a model and the nets that it learns from takes; 0 where it is trained or in ``seen``."""
    total: dict[str, float] = {}
    _training_cost(model, "", store, total, seen)
    return sum(total.values())


def _training_cost(model: RunSpec, title: str, store: Store, costs: dict[str, float], seen: set[str]) -> None:
    if model.key in seen or (store.folder(model) / TRAINED).is_file():
        return
    seen.add(model.key)
    for source in model.sources:
        _training_cost(source, source.title_for(title), store, costs, seen)
    step = _passes(model.settings["method"], SETS[model.data].classes)
    passes = _training_images(model) * step + _validation_passes(model)
    title = f"{title}: train"
    costs[title] = costs.get(title, 0.0) + model.settings["epochs"] * passes * _forward(model)


def _training_images(model: RunSpec) -> int:
    return model.scale.sample(SETS[model.data].classes) or SETS[model.data].train


def _passes(method: Any, classes: int) -> float:
    """Passes of a training step, roughly: those for the weights, and two for each step of an attack.

    Of normal training, of Free, which has its perturbation's gradient with that of the weights, and of EFGSM, whose
    step takes a gradient for each rival class, they are known.
    """
    if _name(method) == "Standard":
        return 3.0
    for node in nodes(method):
        if _name(node) == "EFGSM":
            rivals = node.get("init_args", {}).get("classes") or classes - 1
            return (3.0 if node is method else 6.0) + 1.0 + rivals  # what borrows its images has two passes of its own
    steps = [node["steps"] for node in nodes(method) if isinstance(node.get("steps"), int)]
    replays = [node["replays"] for node in nodes(method) if isinstance(node.get("replays"), int)]
    return 3.0 * max(replays) if replays else 5.0 + 2.0 * max(steps, default=1)


def _name(node: dict[str, Any]) -> str:
    return str(node.get("class_path", "")).rpartition(".")[2]


def _validation_passes(model: RunSpec) -> float:
    """Passes of an epoch's end: one of each image kept aside, and under a threat FGSM's and PGD's."""
    settings = model.settings
    return _held_out(model) * (1.0 if settings.get("eps") is None else 5.0 + 2.0 * settings["validation_steps"])


def _held_out(model: RunSpec) -> int:
    return held_out_count(_training_images(model), model.settings.get("validation"))


def cost_of(task: Task, each: Quantity) -> float:
    """Operations that measuring one quantity takes."""
    images, forward = each.images or SETS[task.run_spec.data].test, _forward(task.run_spec)
    if task.plot is not None:
        if not task.plot.tested:
            images = _held_out(task.run_spec)
        return images * forward * 40.0 * max(1, len(task.plot.at))
    if each.of in OF_TRAINING:
        return 0.0  # read from the run's record
    if each.of == "clean" or " " in each.of or each.of == "close":
        return images * forward * 20.0
    attack = task.run_spec.scale.shorten(parse_attack(each.of, Threat("linf", Fraction(each.eps))))
    whole = 0.6 if isinstance(attack, AutoAttack) else 0.8  # about so many images stand to the end of an attack
    return images * forward * whole * sum(piece.cost for piece in pieces(each.of, attack))


def _forward(model: RunSpec) -> float:
    """Operations of a forward pass of one image."""
    settings, size = model.settings, model.settings.get("image_size")
    channels = SETS[model.data].shape[0]
    shape = (channels, size, size) if size else SETS[model.data].shape
    return _operations(settings["model"], tuple(sorted(settings["model_settings"].items())), shape)


@cache
def _operations(name: str, settings: tuple[tuple[str, Any], ...], shape: tuple[int, int, int]) -> float:
    with torch.device("meta"):  # counts without computing
        return float(flops(models.create(name, 10, shape, **dict(settings)), torch.zeros(1, *shape)))

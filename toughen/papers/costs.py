"""Estimates the cost of a table or figure: the operations of each missing part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import torch

from toughen import models
from toughen.attacks.autoattack import AutoAttack
from toughen.core.cost import flops
from toughen.core.threat import Threat
from toughen.data.sets import held_out_count
from toughen.evaluation.plan import attack_rounds
from toughen.evaluation.suite import parse_attack
from toughen.papers.datasets import SETS
from toughen.papers.measure import OF_TRAINING
from toughen.papers.run_spec import RunSpec
from toughen.papers.scales import nodes
from toughen.papers.store import TRAINED, Quantity, Store
from toughen.papers.tasks import Task, missing_of
from toughen.utils.units import Fraction

COUNTS = ("steps", "replays")  # the settings that determine a method's cost


def costs(tasks: Sequence[Task], store: Store) -> dict[str, float]:
    """The operations of each missing part, by the title that the progress display shows."""
    total: dict[str, float] = {}
    for title, cost in _parts(tasks, store):
        total[title] = total.get(title, 0.0) + cost
    return total


def _parts(tasks: Sequence[Task], store: Store) -> Iterator[tuple[str, float]]:
    trained: set[str] = set()
    for task in tasks:
        missing = missing_of(task, store)
        if missing:
            yield from training_costs(task.run_spec, task.title, store, trained)
        for each in missing:
            if each.source:
                yield from training_costs(each.source, each.source.title_for(task.title), store, trained)
            yield f"{task.title}: {each.of}", cost_of(task, each)


def training_cost(model: RunSpec, store: Store, trained: set[str]) -> float:
    """Operations of training a model and the source nets of its method."""
    return sum((cost for _, cost in training_costs(model, "", store, trained)), 0.0)


def training_costs(model: RunSpec, title: str, store: Store, trained: set[str]) -> Iterator[tuple[str, float]]:
    """The operations of each training, by title. Models that are trained or in ``trained`` are left out, others added.

    Args:
        model: the model.
        title: its title.
        store: the results so far.
        trained: keys of models that are counted already; it is changed.
    """
    if model.key in trained or (store.folder(model) / TRAINED).is_file():
        return
    trained.add(model.key)
    for source in model.sources:
        yield from training_costs(source, source.title_for(title), store, trained)
    settings, held_out = model.settings, _held_out(model)
    # one pass for each held-out image; with a threat, also the passes of FGSM and PGD
    validation = held_out * (1.0 if settings.get("eps") is None else 5.0 + 2.0 * settings["validation_steps"])
    passes = _training_images(model) * _passes(settings["method"], SETS[model.data].classes) + validation
    yield f"{title}: train", settings["epochs"] * passes * _forward(model)


def _training_images(model: RunSpec) -> int:
    return model.scale.sample(SETS[model.data].classes) or SETS[model.data].train


def _held_out(model: RunSpec) -> int:
    return held_out_count(_training_images(model), model.settings.get("validation"))


def _passes(method: Any, classes: int) -> float:
    """An estimate of the passes of a training step: those for the weights, and two for each step of an attack.

    Three cases are exact: standard training; Free, which gets the gradients of weights and perturbation in one pass;
    and EFGSM, whose step takes a gradient for each rival class.
    """
    if _name(method) == "Standard":
        return 3.0
    for node in nodes(method):
        if _name(node) == "EFGSM":
            rivals = node.get("init_args", {}).get("classes") or classes - 1
            return (3.0 if node is method else 6.0) + 1.0 + rivals  # a method that wraps EFGSM has passes of its own
    counts = {name: [node[name] for node in nodes(method) if type(node.get(name)) is int] for name in COUNTS}
    return 3.0 * max(counts["replays"]) if counts["replays"] else 5.0 + 2.0 * max(counts["steps"], default=1)


def _name(node: dict[str, Any]) -> str:
    return str(node.get("class_path", "")).rpartition(".")[2]


def cost_of(task: Task, each: Quantity) -> float:
    """Operations of measuring one quantity."""
    model = task.run_spec
    one = (each.images or SETS[model.data].test) * _forward(model)
    if task.plot is not None:
        images = one if task.plot.tested else _held_out(model) * _forward(model)
        return images * 40.0 * max(1, len(task.plot.at))
    if each.of in OF_TRAINING:
        return 0.0  # read from the run's record
    if each.of == "clean" or " " in each.of or each.of == "close":
        return one * 20.0
    attack = model.scale.shorten(parse_attack(each.of, Threat("linf", Fraction(each.eps))))
    whole = 0.6 if isinstance(attack, AutoAttack) else 0.8  # a typical fraction of images that stay unbroken
    return one * whole * sum(piece.cost for piece in attack_rounds(each.of, attack))


def _forward(model: RunSpec) -> float:
    """Operations of a forward pass of one image."""
    settings, shape = model.settings, SETS[model.data].shape
    if size := settings.get("image_size"):
        shape = (shape[0], size, size)
    return _operations(settings["model"], tuple(sorted(settings["model_settings"].items())), shape)


@cache
def _operations(name: str, settings: tuple[tuple[str, Any], ...], shape: tuple[int, int, int]) -> float:
    with torch.device("meta"):  # counts without computing
        return float(flops(models.create(name, 10, shape, **dict(settings)), torch.zeros(1, *shape)))

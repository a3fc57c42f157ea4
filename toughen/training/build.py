"""Makes a trainer out of a recipe: loads the data, makes the net, and checks that they fit together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toughen import data as data_sets
from toughen import models, runs
from toughen.attacks.adaptive import Adaptive
from toughen.core.rng import derive_seed
from toughen.data import Data, Streamed
from toughen.engine.device import pick_device
from toughen.training import initial as initial_weights
from toughen.training.callbacks.base import Callback
from toughen.training.callbacks.selection import named_callbacks
from toughen.training.headline import Images
from toughen.training.loader import memory_limit
from toughen.training.recipe import Recipe, data_image_size
from toughen.training.trainer import Trainer
from toughen.training.training_state import TrainingState
from toughen.training.transform import Transform
from toughen.utils.paths import expanded
from toughen.utils.type_hints import is_json


def build(
    recipe: Recipe, folder: Path, callbacks: Sequence[Callback] = ()
) -> tuple[Trainer, dict[str, Tensor], Images]:
    """Load the data, make the net, check both, and put the trainer together.

    Returns:
        The trainer, whose recipe has the size of images that was chosen; what tells its images from others; what was
        done to them.

    Raises:
        ValueError: something of it does not fit together.
    """
    named = [*named_callbacks(recipe.callbacks), *callbacks]
    transform = None if recipe.transform is None else Transform(recipe.transform)
    initial = None if recipe.init is None else initial_weights.read_initial(recipe.init)
    before = _trained_on(recipe, initial)
    device = pick_device(recipe.device)
    if recipe.image_size is None:
        recipe = replace(recipe, image_size=before.size)
    data = data_sets.load_training(
        recipe.data,
        classes=recipe.classes,
        image_size=data_image_size(recipe.image_size),
        resize=recipe.resize,
        memory=memory_limit(recipe, device),
        stream=True if recipe.crop == "resized" else runs.streamed(folder),
    )
    recipe, threat = replace(recipe, image_size=data.image_size or recipe.image_size), recipe.threat
    if threat is not None:
        threat.check(torch.empty(1, *data.shape))
    model, described, init = _model(recipe, data, initial, before)
    _check_adaptive(recipe)
    trainer = Trainer(recipe, data, model, folder, _record(recipe, data, described), named, transform)
    if recipe.time_budget is None:
        _check_moments(trainer.state)
    seen = data.seen()
    if "hashes" in seen and initial is not None and initial.seen is not None:
        seen["inherited"] = initial.seen
    told = (data.split_off, data.why, data.classes, data.trained, data.tested)
    return trainer, seen, Images(*told, init, isinstance(data, Streamed), data.shared(seen))


def _model(
    recipe: Recipe, data: Data | Streamed, initial: initial_weights.Initial | None, before: initial_weights.TrainedOn
) -> tuple[nn.Module, dict[str, Any], str]:
    """The net with its first weights, its description, and what to tell of these weights.

    Raises:
        ValueError: the net can't be trained on these images, or the initial weights don't fit it.
    """
    mean, std = _statistics(recipe, data, initial, before)
    torch.manual_seed(derive_seed("weights", recipe.seed))
    net = (recipe.model, len(data.classes), data.shape, mean, std)
    model = models.create(*net, **recipe.model_settings)
    if not any(True for _ in model.parameters()):
        raise ValueError(f"model {recipe.model} has no parameters to learn: train another net")
    init = initial_weights.load_into(initial, model, recipe.model, data.classes) if initial is not None else ""
    models.check(model, len(data.classes), data.shape)
    return model, models.describe(*net, recipe.model_settings), init


def _record(recipe: Recipe, data: Data | Streamed, model: dict[str, Any]) -> runs.Record:
    """What model.json says before the first step."""
    threat = recipe.threat
    return runs.Record(
        model=model,
        classes=list(data.classes),
        shape=list(data.shape),
        norm=threat.norm if threat else recipe.norm,
        eps=float(threat.eps) if threat else None,
        method=type(recipe.method).__name__,
        data=recipe.data,
        weights="live" if recipe.averaging is None else "averaged",
        epoch=-1,
        validation={},
        image_size=data.image_size,
        resize=recipe.resize,
        subset=recipe.classes is not None,
        from_hub="/" in recipe.data and "://" not in recipe.data and not expanded(Path(recipe.data)).exists(),
        adaptive=recipe.method.adaptive,
    )


def _trained_on(recipe: Recipe, initial: initial_weights.Initial | None) -> initial_weights.TrainedOn:
    """What is known of the images of the initial weights, where the run needs it."""
    if initial is None or not (recipe.image_size is None or recipe.normalize):
        return initial_weights.TrainedOn()
    return initial_weights.trained_on(initial, recipe.model, recipe.model_settings)


def _statistics(
    recipe: Recipe, data: Data | Streamed, initial: initial_weights.Initial | None, before: initial_weights.TrainedOn
) -> initial_weights.Statistics:
    """What the net's first layer normalises by: what its first weights expect, or else the training images' own."""
    if not recipe.normalize:
        return None, None
    known = None if initial is None else initial_weights.statistics(initial, before, data.shape[0])
    return known or data.statistics()


def _check_adaptive(recipe: Recipe) -> None:
    """See that evaluations will be able to attack the method's own objective.

    Raises:
        ValueError: they won't.
    """
    threat, adaptive = recipe.threat, recipe.method.adaptive
    if threat is None or adaptive is None:
        return
    try:
        if not is_json(adaptive):
            raise ValueError("it must be plain data, as JSON has it")
        Adaptive(eps=threat.eps, norm=threat.norm, **adaptive)
    except (TypeError, ValueError) as error:
        name = type(recipe.method).__name__
        raise ValueError(f"{name}.adaptive is not what toughen.attacks.Adaptive takes: {error}") from None


def _check_moments(state: TrainingState) -> None:
    """See that a run gets to all moments whose weights are to be kept.

    Raises:
        ValueError: it does not.
    """
    steps, steps_per_epoch = state.last_step, state.steps_per_epoch
    for moment in state.recipe.keep_at:
        step = moment if isinstance(moment, int) else (int(moment.removeprefix("epoch ")) + 1) * steps_per_epoch
        if not 0 < step <= steps:
            epochs = steps / steps_per_epoch
            raise ValueError(
                f"keep_at holds {moment}, and the run ends after {steps} steps, {epochs:g} epochs that count from 0"
            )

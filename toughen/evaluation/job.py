"""Checks that model, images, attacks and settings fit together, before an evaluation begins."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from rich.console import Console
from torch import nn

from toughen import models
from toughen.attacks.base import Attack
from toughen.core.distributed import world
from toughen.core.gradients import IN_PLACE, mode
from toughen.core.modules import dtype_of, unwrap
from toughen.core.types import AnyImages, Images
from toughen.data import Split
from toughen.engine.batch_size import batch_size_for, block_size, suitable_size
from toughen.engine.device import Precision
from toughen.engine.fixed_batch import FixedBatchModel, search_precision
from toughen.engine.memory import is_out_of_memory
from toughen.evaluation.config import EvaluationConfig, chosen_attacks
from toughen.evaluation.diagnostics.store import check_usable
from toughen.evaluation.harness import as_floats, predict
from toughen.evaluation.hidden_modules import HiddenModule, hidden_refused
from toughen.evaluation.target import EvaluationTarget
from toughen.utils.plugins import describe_error

Source: TypeAlias = nn.Module | Callable[[], nn.Module]
"""A net, or a function that returns it."""


@dataclass(frozen=True)
class Job:
    """A model, images and attacks that fit together, all on one device.

    Attributes:
        target: the model and the threat.
        split: the images, on the model's device.
        attacks: by their names in results.
        source: a normally trained net for the same images, for transfer attacks; None where there is none.
        precision: what attacks compute in.
        config: the settings of the evaluation.
        out: where to write; None writes nothing.
        console: where to show progress.
        fits: the most images per pass that fit into the memory of each process; None where it is not known.
    """

    target: EvaluationTarget
    split: Split
    attacks: Mapping[str, Attack]
    source: nn.Module | None
    precision: Precision
    config: EvaluationConfig
    out: Path | None
    console: Console | None
    fits: int | None = None

    @property
    def device(self) -> torch.device:
        return self.split.labels.device

    @cached_property
    def batch_size(self) -> int:
        """Images per forward pass."""
        size = suitable_size(self.target.net, self.split.images, self.config.batch_size)
        return size if self.fits is None else min(self.fits, size)

    def model(self) -> FixedBatchModel:
        """The model as attacks see it, with new counts of its passes."""
        return FixedBatchModel(self.target.net, self.batch_size, self.precision)

    def say(self, sentence: str) -> None:
        """Print a sentence on the console, if there is one."""
        if self.console is not None:
            self.console.print(sentence, highlight=False, markup=False)


def prepare(
    target: EvaluationTarget,
    config: EvaluationConfig,
    device: torch.device | None,
    out: Path | None,
    source: Source | None,
    console: Console | None,
) -> Job:
    """Check that the model, its images, the attacks and the source fit together, and that results can be written.

    Args:
        target, config: what is evaluated, and the settings.
        device: where to evaluate; None means where the model is.
        out: where to write; None writes nothing.
        source: a normally trained net for the same images, for transfer attacks; or a function that returns it, called
            after all other checks.
        console: where to show progress.

    Raises:
        ValueError: they don't, or ``out`` can't be used.
    """
    if out is not None:
        check_usable(out)
    device = device or next(target.net.parameters(), target.split.images).device
    net, split = target.net.to(device), target.split.to(device)
    outputs = check_fit(net, target, config.precision)
    attacks = chosen_attacks(target, config)
    if config.processes > 1:
        _check_picklable("the model", net)
        for name, attack in attacks.items():
            _check_picklable(f"attack {name}", attack)
    source_net = source if source is None or isinstance(source, nn.Module) else source()
    if source_net is not None:
        _check_source(source_net, outputs, split.images)
    job = Job(target, split, attacks, source_net, "fp32", config, out, console)
    if target.about.get("weights") == "as made":
        job.say(f"no --weights: {target.name} is evaluated with the weights that it is created with")
    if target.split_off:
        job.say(
            f"{target.data} has no test images: {target.split_off:,} of its images, a stratified "
            "tenth, are used instead; to attack all, put them in a folder test/"
        )
    job = replace(job, fits=min(world().all_gather(batch_size_for(net, split.images, config.batch_size))))
    if job.batch_size < block_size(device, len(split), config.batch_size):
        job.say(f"{job.batch_size} images per pass, because more do not fit into the memory")
    _check_batch(net, split.images, job.batch_size)
    job = replace(job, precision=_search_precision(job))
    if (job.precision, config.precision) == ("fp32", "bf16"):
        job.say("this model's outputs differ too much in bf16, so attacks compute in fp32")
    return job


def _search_precision(job: Job) -> Precision:
    """What attacks compute in: not bf16 if the model's logits differ too much in it."""
    images = job.split.images
    precision = search_precision(job.target.net, as_floats(images[:1]), job.config.precision)
    if precision != "bf16":
        return precision
    model = replace(job, precision=precision).model()
    model.compare(as_floats(images[: 2 * job.batch_size]))
    return model.precision


def check_fit(net: nn.Module, target: EvaluationTarget, precision: Precision | Literal["auto"] = "auto") -> int:
    """Check that a model returns finite logits for the target's images and classes.

    Args:
        net: the model, in any mode.
        target: images, classes and threat.
        precision: what attacks compute in; only with "fp64" may the weights be float64.

    Returns:
        How many logits there are for an image.

    Raises:
        ValueError: the model can't take the images or changes them, the number of its outputs does not fit the classes
            or labels, a logit is NaN or infinite, or eps exceeds the longest distance between two such images.
    """
    device = next(net.parameters(), target.split.images).device
    split = target.split.to(device)
    target.threat.check(as_floats(split.images[:1]))
    shape: Any = tuple(split.images.shape[1:])
    x = as_floats(split.images[:2])  # in the images' type; the check below uses that of the weights
    own = _outputs(net, x.to(dtype_of(net)) if precision == "fp64" else x)
    outputs = len(target.class_names) or own
    if outputs < 2:
        raise ValueError(f"the model has {outputs} output: one for each class is needed, two or more")
    try:
        models.check(net, outputs, shape, probabilities=True)
    except ValueError as error:
        if own <= outputs:
            raise
        raise ValueError(f"{error}, or give toughen.evaluate images and labels with the model's classes") from None
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high >= outputs:
        raise ValueError(
            f"labels go from {low} to {high}, but the model has {outputs} outputs: they must be 0..{outputs - 1}"
        )
    undefined = int((predict(net, split.images) < 0).sum())
    if undefined:
        raise ValueError(
            f"the model's logits of {undefined} of {len(split)} images are NaN or infinite, so there is no accuracy: "
            "fix the model, or leave these images out"
        )
    return outputs


def _check_batch(net: nn.Module, images: AnyImages, size: int) -> None:
    """Raise a ValueError where a model can't take as many images at once as the attacks will give it."""
    x = as_floats(images[torch.arange(size, device=images.device) % len(images)]).to(dtype_of(net))
    try:
        with mode(net, "eval"), torch.no_grad():
            unwrap(net(x), size)
    except Exception as error:  # a user's own net may raise anything
        if is_out_of_memory(error):
            raise
        raise ValueError(
            f"the model fails on {size} images at once {describe_error(error)}. Give fewer: --batch-size (in Python: "
            "batch_size)"
        ) from error


def _outputs(net: nn.Module, x: Images) -> int:
    """How many logits a model returns for an image; checks that it takes the images and leaves them unchanged."""
    try:
        with mode(net, "eval"), torch.no_grad(), hidden_refused(net):
            out = net(passed := x.clone())
    except HiddenModule:
        raise
    except Exception as error:  # a user's own net may raise anything
        reason = str(error).split("\n")[0] or type(error).__name__
        other_types = {each.dtype for each in net.parameters() if each.is_floating_point()} - {torch.float32}
        if other_types == {torch.float64}:
            reason += "; its weights are float64: evaluate it with precision fp64, or make it .float()"
        elif other_types:
            reason += "; its weights are not float32, as the images are: make it .float()"
        raise ValueError(f"the model cannot take images of shape {list(x.shape[1:])}: {reason}") from error
    if passed._version or not torch.equal(passed, x):  # an in-place operation counts even where it changes no value
        raise ValueError(IN_PLACE)
    return unwrap(out, len(x)).shape[1]


def _check_picklable(name: str, value: object) -> None:
    """Check that a model or an attack can be sent to other processes; ``name`` is its name in the message.

    Raises:
        ValueError: it can't, such as a function that was defined inside another one.
    """
    try:
        pickle.dumps(value)
    except Exception as error:  # a user's class may raise anything
        raise ValueError(f"{name} cannot be sent to other processes ({error}): use 1 process") from None


def _check_source(source: nn.Module, outputs: int, images: AnyImages) -> None:
    """Check that a net can be the source of transfer attacks on a model with ``outputs`` logits for these images.

    Raises:
        ValueError: it is for other images or classes.
    """
    shape: Any = tuple(images.shape[1:])
    try:
        models.check(source, outputs, shape, probabilities=True)
    except ValueError as error:
        raise ValueError(f"the source model of black-box attacks does not fit: {error}") from None

"""An evaluation that is about to begin: a model, images and attacks that were seen to fit together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import torch
from rich.console import Console
from torch import nn

from toughen.attacks.base import Attack
from toughen.data import Split
from toughen.engine.batches import block_size
from toughen.engine.device import Precision
from toughen.engine.fixed_batch import FixedBatchModel, search_precision
from toughen.evaluation.config import EvaluationConfig, chosen_attacks
from toughen.evaluation.harness import as_floats
from toughen.evaluation.target import EvaluationTarget
from toughen.evaluation.validate import check_fit, check_sendable, check_source

Source: TypeAlias = nn.Module | Callable[[], nn.Module]
"""A net, or what makes it."""


@dataclass(frozen=True)
class Job:
    """A model, images and attacks that were seen to fit together, all on one device.

    Attributes:
        target: the model and what it is to withstand.
        split: the images, where the model is.
        attacks: by the names that they have in results.
        source: a normally trained net for the same images; None where there is none.
        precision: what attacks search in.
        config: how the model is evaluated.
        out: where to write; None writes nothing.
        console: where to show progress.
    """

    target: EvaluationTarget
    split: Split
    attacks: Mapping[str, Attack]
    source: nn.Module | None
    precision: Precision
    config: EvaluationConfig
    out: Path | None
    console: Console | None

    @property
    def device(self) -> torch.device:
        return self.split.labels.device

    @property
    def batch_size(self) -> int:
        """Images per forward pass."""
        return block_size(self.device, len(self.split), self.config.batch_size)

    def model(self) -> FixedBatchModel:
        """The model as it is attacked, with nothing counted yet."""
        return FixedBatchModel(self.target.net, self.batch_size, self.precision)

    def say(self, sentence: str) -> None:
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
    """See that the model, its images, the attacks and the source fit together.

    Raises:
        ValueError: they don't.
    """
    place = device or next(target.net.parameters(), target.split.images).device
    net, split = target.net.to(place), target.split.to(place)
    outputs = check_fit(net, target)
    attacks = chosen_attacks(target, config)
    if config.processes > 1:
        for name, thing in {"the model": net, **{f"attack {name}": attack for name, attack in attacks.items()}}.items():
            check_sendable(name, thing)
    other = source if source is None or isinstance(source, nn.Module) else source()
    if other is not None:
        check_source(other, outputs, split.images)
    job = Job(target, split, attacks, other, "fp32", config, out, console)
    if target.about.get("weights") == "as made":
        job.say(f"no --weights: {target.name} is evaluated with the weights that it is created with")
    if target.split_off:
        job.say(
            f"{target.data} has no test images: {target.split_off:,} of its images, a stratified "
            "tenth, are used instead; to attack all, put them in a folder test/"
        )
    job = replace(job, precision=_search_precision(job))
    if (job.precision, config.precision) == ("fp32", "bf16"):
        job.say("this model's outputs differ too much in bf16, so attacks compute in fp32")
    return job


def _search_precision(job: Job) -> Precision:
    """What attacks search in, after seeing that the model answers so as it does otherwise."""
    images = job.split.images
    precision = search_precision(job.target.net, as_floats(images[:1]), job.config.precision)
    if precision != "bf16":
        return precision
    model = replace(job, precision=precision).model()
    model.compare(as_floats(images[: 2 * job.batch_size]))
    return model.precision

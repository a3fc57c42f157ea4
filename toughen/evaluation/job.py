"""Checks that model, images, attacks and settings fit together, before an evaluation begins."""

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
from toughen.evaluation.validate import check_fit, check_picklable, check_source

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
    """Check that the model, its images, the attacks and the source fit together.

    Args:
        target: the model, its images and the threat.
        config: the settings of the evaluation.
        device: where to evaluate; None means where the model is.
        out, source, console: as in ``run_evaluation``.

    Raises:
        ValueError: they don't.
    """
    device = device or next(target.net.parameters(), target.split.images).device
    net, split = target.net.to(device), target.split.to(device)
    outputs = check_fit(net, target, config.precision)
    attacks = chosen_attacks(target, config)
    if config.processes > 1:
        check_picklable("the model", net)
        for name, attack in attacks.items():
            check_picklable(f"attack {name}", attack)
    source_net = source if source is None or isinstance(source, nn.Module) else source()
    if source_net is not None:
        check_source(source_net, outputs, split.images)
    job = Job(target, split, attacks, source_net, "fp32", config, out, console)
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
    """What attacks compute in: not bf16 if the model's logits differ too much in it."""
    images = job.split.images
    precision = search_precision(job.target.net, as_floats(images[:1]), job.config.precision)
    if precision != "bf16":
        return precision
    model = replace(job, precision=precision).model()
    model.compare(as_floats(images[: 2 * job.batch_size]))
    return model.precision

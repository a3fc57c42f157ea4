"""The state of a run as callbacks see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from toughen import runs
from toughen.core.distributed import world
from toughen.engine.device import Precision
from toughen.methods.base import Method
from toughen.runs.locks import Lock
from toughen.training.distributed_step import LocalStep
from toughen.training.progress import RunProgress
from toughen.training.state import Stateful, summed
from toughen.training.validation import Validation


@dataclass(kw_only=True)
class TrainingState(RunProgress):
    """The position of a run, and the objects that are trained.

    Attributes:
        folder: the run directory.
        record: what ``model.json`` will hold, without epoch and validation.
        device, precision: of the training.
        model: the trained net.
        average: the moving average of its weights, None where there is none.
        main: the recipe's method.
        rescuers: the methods that train after a collapse, each after a collapse of the one before it.
        method: the one that trains now.
        optimizer: of model and method.
        validation: measures a model on the held-out images.
        distributed_step: computes the loss of a step, in one process or in several.
        callbacks: by the names under which a checkpoint keeps their state.
        scalars: figures of the last step, for loggers.
        kept_names: names of the modules' state before the first step.
        restarted: per-process state that was reset because the number of processes has changed.
        lock: of the run directory, during training.
    """

    folder: Path
    record: runs.Record
    device: torch.device
    precision: Precision
    model: nn.Module
    average: AveragedModel | None
    main: Method
    rescuers: list[Method]
    method: Method
    optimizer: torch.optim.Optimizer
    validation: Validation
    distributed_step: LocalStep
    callbacks: Mapping[str, Stateful] = field(default_factory=dict)
    scalars: dict[str, float] = field(default_factory=dict)
    kept_names: set[str] = field(default_factory=set)
    restarted: list[str] = field(default_factory=list)
    lock: Lock | None = None

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What a checkpoint holds, by the names used there."""
        modules = {"model": self.model, "method": self.main, "average": self.average}
        rescues = {f"rescue{number}": rescuer for number, rescuer in enumerate(self.rescuers)}
        return {name: module for name, module in modules.items() if module is not None} | rescues

    @property
    def kept_model(self) -> nn.Module:
        """The model to keep: the averaged one where the recipe averages."""
        return self.model if self.average is None else self.average.module

    def epoch_figures(self, epoch: int, forward_flops: int) -> dict[str, Any]:
        """The current epoch's line of metrics.jsonl: means over its images, for a term over the images that have it.

        Callbacks fill in validation and more.
        """
        totals = summed(world().all_gather(self.totals.plain()))
        means = {name: total / totals["counts"][name] for name, total in totals["sums"].items()}
        return {
            "epoch": epoch,
            "step": self.step,
            "method": type(self.method).__name__,
            "lr": self.optimizer.param_groups[0]["lr"],
            "loss": means.pop("loss"),
            "accuracy": means.pop("right"),  # on the images that the loss was taken on
            "terms": means,
            "passes": totals["passes"] / totals["images"],  # forward equivalents for each training image
            "gamma": totals["crafted"] * self.replays / totals["images"],  # PAP, Definition 1
            "flops": totals["passes"] * forward_flops,
            "seconds": round(self.seconds, 3),
            "watch_seconds": round(self.watched, 3),  # of its looks within the epoch
            "seconds_per_step": self.seconds / (self.step - epoch * self.steps_per_epoch),
            "images_per_second": round(totals["images"] / self.seconds, 1),
            "validation": {},
            "kept": False,
            "validation_seconds": 0.0,
            "events": self.events,
        }

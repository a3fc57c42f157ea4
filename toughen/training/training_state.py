"""The state of a run as callbacks see it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from toughen import runs
from toughen.core.distributed import world
from toughen.core.types import Plan
from toughen.engine.device import Precision
from toughen.methods.base import Method
from toughen.runs.locks import Lock
from toughen.training.distributed_step import LocalStep
from toughen.training.recipe import Recipe
from toughen.training.state import EpochTotals, State, Stateful, summed
from toughen.training.validation import Validation


@dataclass(kw_only=True)
class TrainingState(State):
    """The length of a run, its current position, and the objects that are trained.

    Attributes:
        recipe: the settings.
        images: how many are trained on.
        replays: how often the method wants each batch.
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
        begun, spent_before: when this session began, and the seconds of earlier sessions.
        started: the time up to which the current epoch's seconds are counted.
        scalars: figures of the last step, for loggers.
        first_names: names of the modules' state before the first step.
        restarted: per-process state that was reset because the number of processes has changed.
        lock: of the run directory, during training.
    """

    recipe: Recipe
    images: int
    replays: int
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
    begun: float = field(default_factory=lambda: time.perf_counter())
    spent_before: float = 0.0
    started: float = 0.0
    scalars: dict[str, float] = field(default_factory=dict)
    first_names: set[str] = field(init=False)
    restarted: list[str] = field(default_factory=list)
    lock: Lock | None = None

    def __post_init__(self) -> None:
        self.first_names = self.names()

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What a checkpoint holds, by the names used there."""
        modules = {"model": self.model, "method": self.main, "average": self.average}
        rescues = {f"rescue{number}": rescuer for number, rescuer in enumerate(self.rescuers)}
        return {name: module for name, module in modules.items() if module is not None} | rescues

    def names(self) -> set[str]:
        """The names of the modules' state in a checkpoint."""
        return {f"{part}.{key}" for part, module in self.modules.items() for key in module.state_dict()}

    @property
    def kept_model(self) -> nn.Module:
        """The model to keep: the averaged one where the recipe averages."""
        return self.model if self.average is None else self.average.module

    @property
    def batches(self) -> int:
        """Batches per epoch, the last one possibly short.

        A last batch of a single image is left out, a different image in each epoch: batch norm needs two values for a
        variance, and some methods split a batch.
        """
        whole, left = divmod(self.images, self.recipe.batch_size)
        return whole + (left > 1 or not whole)

    @property
    def steps_per_epoch(self) -> int:
        return self.batches * self.replays

    @property
    def epoch(self) -> int:
        return self.step // self.steps_per_epoch

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.planned or self.recipe.epochs * self.steps_per_epoch

    @property
    def epochs(self) -> int:
        """Epochs of the whole run; with a time budget the last one may be incomplete."""
        return math.ceil(self.steps / self.steps_per_epoch)

    @property
    def total_spent(self) -> float:
        """Seconds since the run was begun, in all its sessions."""
        return self.spent_before + time.perf_counter() - self.begun

    @property
    def last_step(self) -> int:
        """The step at which the run ends: the end of the schedule, or ``stop_epoch``."""
        return self.steps if self.recipe.stop_epoch is None else self.recipe.stop_epoch * self.steps_per_epoch

    @property
    def trained_epochs(self) -> int:
        """The epochs up to ``last_step``, the last one maybe in part; with ``stop_epoch`` fewer than ``epochs``."""
        return math.ceil(self.last_step / self.steps_per_epoch)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.step >= self.last_step or self.stop_reason is not None

    def size_of(self, step: int) -> int:
        """Images of a step's batch, in all processes."""
        begin = (step // self.replays % self.batches) * self.recipe.batch_size
        return min(self.recipe.batch_size, self.images - begin)

    def own_of(self, step: int) -> int:
        """Images of a step's batch in this process."""
        part = world().batch_shard(self.size_of(step))
        return int(part.stop - part.start)

    def progress(self, step: int) -> float:
        """The share of the schedule that is done before this step, 0..1."""
        done = (step - self.planned_at) / max(1, self.steps - self.planned_at)
        return self.planned_progress + (1 - self.planned_progress) * done

    @property
    def eps_scale(self) -> float:
        """The factor of perturbations in the next step, 0..1; a warm-up of eps keeps to the schedule's pace."""
        if not self.recipe.eps_warmup:
            return 1.0
        pace = (self.steps - self.planned_at) / max(1e-9, 1 - self.planned_progress)  # in steps for a whole schedule
        return min(1.0, self.warmed + (self.adversarial_steps - self.warmed_at) / (self.recipe.eps_warmup * pace))

    @property
    def plan(self) -> Plan:
        """What methods are told of the run; with a time budget it changes."""
        drop = self.recipe.schedule.first_drop
        if drop is not None and self.planned and self.planned_progress < 1:  # a share of the progress, not of the steps
            left = max(0.0, drop - self.planned_progress) / (1 - self.planned_progress)
            drop = (self.planned_at + left * (self.steps - self.planned_at)) / self.steps
        stop = self.recipe.stop_epoch
        return Plan(epochs=self.epochs, steps=self.steps, images=self.images, first_drop=drop, trained=stop)

    def end_of(self, epoch: int) -> int:
        """The step after an epoch's last one."""
        return min((epoch + 1) * self.steps_per_epoch, self.last_step)

    def start_clock(self) -> None:
        """Start to count seconds of the current epoch."""
        self.started = time.perf_counter()

    def count_seconds(self) -> None:
        """Add the time since the last call to the seconds of the current epoch."""
        now = time.perf_counter()
        self.seconds, self.started = self.seconds + now - self.started, now

    def close_epoch(self, metrics: dict[str, Any]) -> None:
        """Add an epoch's line to the history, and reset the epoch's sums."""
        self.history.append(metrics)
        self.totals, self.events, self.seconds, self.watched = EpochTotals(), [], 0.0, 0.0

    def note(self, event: str, text: str, **more: Any) -> None:
        """Add an event to the epoch's line of metrics; the text is printed."""
        ended = self.history and self.history[-1]["step"] == self.step
        (self.history[-1]["events"] if ended else self.events).append(
            {"event": event, "step": self.step, **more, "text": text}
        )

    def stop(self, reason: str) -> None:
        """End the run after this epoch."""
        self.stop_reason = reason
        self.note("stop", f"training ends: {reason}")

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
            "passes": totals["passes"] / totals["images"],  # forward equivalents for each image of a step
            "epoch_passes": totals["passes"] / self.images,  # with replays, and with the steps that a budget leaves
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

"""The one training loop: every method, resumable at any step, bit for bit."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from toughen import runs
from toughen.core import distributed
from toughen.core.cost import PassCounter, flops
from toughen.core.rng import StepNoise, derive_seed
from toughen.core.types import Batch, Plan, Step
from toughen.data import Augment, Data, Streamed
from toughen.data.feed import Feed
from toughen.engine.device import autocast, choose_kernels, pick_device, pick_precision, wait
from toughen.engine.memory import keep_freed
from toughen.evaluation.harness import as_floats
from toughen.methods.base import Method
from toughen.runs.locks import Lock
from toughen.training import checkpoint, rescue, saving
from toughen.training.averaging import averaged_copy
from toughen.training.budget import Pace
from toughen.training.compiled import Compiled
from toughen.training.course import Course
from toughen.training.display import Display, Show, Silent
from toughen.training.epoch_end import finish_epoch
from toughen.training.feeding import feed_of
from toughen.training.recipe import Recipe
from toughen.training.state import State
from toughen.training.together import Together, synchronised_batch_norm
from toughen.training.validation import Validation
from toughen.training.watch import Watch
from toughen.utils.signals import GracefulShutdown, Stopped

CHECK_EVERY = 50  # steps between looks at the loss; each look waits for the device


class Trainer(Course):
    """One run. Everything that changes is in its modules, its optimizer and ``state``.

    Args:
        recipe: the settings.
        data: what is trained on; validation images come out of its training images.
        model: the net to train.
        folder: the run directory.
        record: what is known of the run's weights before they are trained.
    """

    def __init__(
        self, recipe: Recipe, data: Data | Streamed, model: nn.Module, folder: Path, record: runs.Record
    ) -> None:
        self.recipe, self.folder, self.record, self.method = recipe, folder, record, recipe.method
        keep_freed()
        self.device = pick_device(recipe.device)
        choose_kernels(self.device, deterministic=recipe.deterministic)
        self.precision = pick_precision(recipe.precision, self.device)
        train, validation, _ = data.split(recipe.validation, recipe.seed)
        self.train = train.to(self.device)
        self.feed: Feed = feed_of(recipe, self.train, validation, self.device)
        colour = data.shape[0] > 1
        self.augment = Augment(
            pad=(4 if colour else 0) if recipe.crop is None else recipe.pad,
            padding=recipe.padding,
            flip=colour if recipe.flip is None else recipe.flip,
        )
        self.augment.check(*data.shape[1:])
        self.dtype = torch.float64 if self.precision == "fp64" else torch.float32
        self.layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.model = model.to(self.device, self.dtype, memory_format=self.layout)  # type: ignore[call-overload]
        self.method.prepare(self.model, data.shape, len(data.classes), len(self.train))
        self.method.to(self.device)
        if recipe.sync_batch_norm:
            self.model = synchronised_batch_norm(self.model, self.device)
        self.rescuers = rescue.rescuers(self.method) if recipe.watch == "rescue" else []
        for rescuer in self.rescuers:
            rescuer.prepare(self.model, data.shape, len(data.classes), len(self.train))
            rescuer.to(self.device)
            rescuer.replays = self.method.replays  # an epoch stays as many steps
        self.compiled = Compiled(self.model, recipe.compile)
        self.together = Together(self.model, [self.method, *self.rescuers], len(self.train))
        self.average: AveragedModel | None = None
        if recipe.averaging is not None:
            self.average = averaged_copy(self.model, recipe.averaging)
        parameters = [*self.model.parameters(), *self.method.parameters()]
        self.optimizer = recipe.optimizer.build(p for p in parameters if p.requires_grad)
        self.validation = Validation(recipe, validation.to(self.device), self.method.threat, self.precision)
        self.watch = Watch(validation.to(self.device), self.method.threat, recipe.watch, recipe.seed)
        self.image = torch.zeros(1, *data.shape, dtype=self.dtype, device=self.device)
        self.forward_flops = flops(self.model, self.image)
        self.costs: dict[int, float] = {}  # of the method's companions, in forward passes of the model
        self.state, self.state_names = State(), checkpoint.names(self.modules)
        self.started_anew: list[str] = []  # what a change of the number of processes took away
        self.begun, self.spent_before = time.perf_counter(), 0.0
        self.lock: Lock | None = None  # of the run's folder, while it is trained

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What a checkpoint holds, by the names used there."""
        modules = {"model": self.model, "method": self.method, "average": self.average}
        rescues = {f"rescue{number}": rescuer for number, rescuer in enumerate(self.rescuers)}
        return {name: module for name, module in modules.items() if module is not None} | rescues

    @property
    def kept_model(self) -> nn.Module:
        """The model to keep: the averaged one where the recipe averages."""
        return self.model if self.average is None else self.average.module

    @property
    def rescuer(self) -> Method | None:
        """What trains after a collapse: after one of its own what follows it."""
        return self.rescuers[min(self.state.rescuer, len(self.rescuers) - 1)] if self.rescuers else None

    def rescued_at(self, step: int) -> bool:
        """Whether a rescue trains this step."""
        return bool(self.rescuers) and step < self.state.rescue_until

    def method_at(self, step: int) -> Method:
        """The method that trains this step: after a collapse the rescue."""
        return self.rescuer if self.rescuer is not None and self.rescued_at(step) else self.method

    def by_epoch(self, console: Console, shutdown: GracefulShutdown, show: Show | None = None) -> Iterator[float]:
        """Train to the end, pausing after each epoch.

        Args:
            console: where to show how far it is.
            shutdown: asks to stop.
            show: shows it, in place of ``Display``.

        Yields:
            The share of the run that is done, 0..1.

        Raises:
            Stopped: a signal asked for it; the state is saved.
            Diverged: the loss or the weights stopped being finite.
        """
        drop = self.recipe.schedule.first_drop
        plan = Plan(epochs=self.epochs, steps=self.steps, images=len(self.train), first_drop=drop)
        for method in (self.method, *self.rescuers):
            method.start(plan)
        show = (show or Display) if distributed.is_main_process() else Silent
        display = show(console, self.folder, self.epochs, self.last_step, self.state.step)
        self.together.begin(self.image)
        if self.watch.on and self.rescuer is not None and self.state.healthy < 0:
            self.state.healthy = self.state.step  # before any: the beginning
            saving.write_checkpoint(self, checkpoint.HEALTHY)
        try:
            while not self.finished:
                self.run_epoch(display, shutdown)
                if distributed.any_of(bool(shutdown.requested))[0] and not self.finished:
                    raise Stopped(shutdown.requested or signal.SIGTERM)
                yield self.state.step / self.last_step
        finally:
            display.close()
            self.together.end()

    def run_epoch(self, display: Display, shutdown: GracefulShutdown) -> None:
        """The rest of the running epoch, its validation and its checkpoint; a signal in the last step awaits them."""
        state, epoch = self.state, self.epoch
        self.model.train()
        saved = started = time.perf_counter()
        pace = Pace(self, started)
        for x, y, batch in self.epoch_batches(epoch):
            with PassCounter(self.model, self.method_at(state.step).companions(), self.image, self.costs) as passes:
                step = self.step(x, y, batch)
            own = y[: self.own_of(state.step)]
            state.step += 1
            self.add_up(step, own, passes)
            display.step(state.step, epoch)
            if state.step % CHECK_EVERY == 0:
                saving.check_finite(self)
                display.loss(state.step, float(step.loss.detach()))
            if state.step in self.recipe.keep_at and distributed.is_main_process():
                checkpoint.keep_weights(self.folder, state.step, self.model)
            if self.watch.on and state.step % self.recipe.log_every == 0:
                started += rescue.look_inside(self, display)
            now, ended = time.perf_counter(), state.step == self.end_of(epoch)
            due = now - saved >= self.recipe.checkpoint_seconds
            flags = (
                bool(shutdown.requested),
                due and distributed.is_main_process(),
                pace.due(now) and distributed.is_main_process(),
            )
            stopping, due, look = distributed.any_of(*flags)
            if look and not ended:
                pace.look(now)
            if not ended and (stopping or due):
                state.seconds, started, saved = state.seconds + now - started, now, now
                saving.save(self)
                if stopping:
                    raise Stopped(shutdown.requested or signal.SIGTERM)
            if ended:  # maybe before the epoch's last batch
                break
        wait(self.device)
        state.seconds += time.perf_counter() - started
        display.epoch(finish_epoch(self, epoch))
        display.length(self.epochs, self.last_step)

    def epoch_batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, Batch]]:
        """What is left of an epoch, the order keyed by seed and epoch: images, labels and what is known of them.

        Of each batch only this process's part; where that is empty, two of its images, to keep company.
        """
        first, replays = self.state.step, self.method.replays
        fed = self.feed.batches(epoch, first // replays % self.batches, _own_part)
        for number in range(first // replays, -(-self.end_of(epoch) // replays)):
            images, labels, rows = next(fed)
            size = self.size_of(number * replays)
            place = (size, distributed.shard_slice(size).start) if distributed.count() > 1 else (0, 0)
            noise = StepNoise(derive_seed("augment", self.recipe.seed), number, *place)
            x, shift, flip = self.augment(as_floats(images).to(self.dtype), noise)
            x = x.contiguous(memory_format=self.layout)
            for step in range(max(first, number * replays), min(self.end_of(epoch), (number + 1) * replays)):
                noise = StepNoise(self.recipe.seed, step, *place)
                yield x, labels, Batch(index=rows, shift=shift, flip=flip, noise=noise)

    def step(self, x: Tensor, y: Tensor, batch: Batch) -> Step:
        """One optimizer step at the rate that its place in the run gives."""
        progress, method = self.progress(self.state.step), self.method_at(self.state.step)
        self.recipe.schedule.set(self.optimizer, self.recipe.optimizer.lr, progress)
        method.progress = progress
        method.strength = 1.0
        if self.recipe.eps_warmup:
            method.strength = min(1.0, self.state.threatened / (self.recipe.eps_warmup * self.steps))
        self.state.threatened += method.threatened
        own = [distributed.rank()] if distributed.rank() else []
        torch.manual_seed(derive_seed("model", self.recipe.seed, self.state.step, *own))  # such as for dropout
        with self.compiled():
            with autocast(self.precision, self.device):
                try:
                    step, logged = self.take(method, x, y, batch)
                except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # a singular value of NaN
                    raise saving.Diverged(f"the loss is not finite ({error})") from None
            self.optimizer.zero_grad(set_to_none=True)
            step.loss.backward()
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        method.after_step(self.model)
        return logged

    def take(self, method: Method, x: Tensor, y: Tensor, batch: Batch) -> tuple[Step, Step]:
        """A step to differentiate, and the same as it is logged."""
        if distributed.count() == 1:
            step: Step = method(self.model, x, y, batch)
            return step, step
        whole, number = self.size_of(self.state.step), [self.method, *self.rescuers].index(method)
        return self.together.step(number, x, y, batch, whole, self.own_of(self.state.step))

    def add_up(self, step: Step, y: Tensor, passes: PassCounter | None = None) -> None:
        """Add a step's figures to the epoch's sums, without waiting for the device; of no image but its own."""
        tally, n = self.state.tally, len(y)
        if passes is not None:
            tally.passes, tally.crafted = tally.passes + passes.total, tally.crafted + passes.crafted
        if not n:
            return
        right = (step.logits.detach().argmax(1) == y).sum()
        figures = {"loss": step.loss.detach() * n, "right": right}
        figures |= {name: value.detach() * n for name, value in step.terms.items()}
        for name, value in figures.items():
            total = tally.totals.setdefault(name, torch.zeros((), dtype=torch.float64, device=self.device))
            total += value
            tally.counts[name] = tally.counts.get(name, 0) + n
        tally.images += n


def _own_part(count: int) -> slice:
    """The part of a batch that this process trains on: where there is none, two images that keep the others company."""
    part = distributed.shard_slice(count)
    return part if part.stop > part.start else slice(0, 2)

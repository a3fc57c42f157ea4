"""The one training loop: every method, resumable at any step, bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.flop_counter import FlopCounterMode

from toughen import runs
from toughen.data import Augment, Data
from toughen.device import autocast, pick_device, pick_precision
from toughen.evaluation.harness import as_floats
from toughen.files import finite
from toughen.gradients import mode
from toughen.noise import StepNoise, key
from toughen.passes import Passes
from toughen.training import checkpoint
from toughen.training.checkpoint import State
from toughen.training.display import Display
from toughen.training.recipe import Recipe
from toughen.training.stop import Stopped, Stopper
from toughen.training.validation import Validation, score
from toughen.types import Batch, Plan, Step

CHECK_EVERY = 50  # steps between looks at the loss; each look waits for the device


class Diverged(RuntimeError):
    """The loss or the weights are no longer finite."""


class Trainer:
    """One run. Everything that changes is in its modules, its optimizer and ``state``.

    Args:
        recipe: the settings.
        data: what is trained on; validation images come out of its training images.
        model: the net to train.
        folder: the run directory.
        record: what is known of the run's weights before they are trained.
    """

    def __init__(self, recipe: Recipe, data: Data, model: nn.Module, folder: Path, record: runs.Record) -> None:
        self.recipe, self.folder, self.record, self.method = recipe, folder, record, recipe.method
        self.device = pick_device(recipe.device)
        self.precision = pick_precision(recipe.precision, self.device)
        aside = min(1000, len(data.train) // 10) if recipe.validation is None else recipe.validation
        train, validation, _ = data.split(aside, recipe.seed)
        self.train = train.to(self.device)
        colour = data.shape[0] > 1
        self.augment = Augment(
            pad=(4 if colour else 0) if recipe.crop is None else recipe.crop,
            padding=recipe.padding,
            flip=colour if recipe.flip is None else recipe.flip,
        )
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.layout = layout
        self.model = model.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        self.method.prepare(self.model, data.shape, len(data.classes), len(self.train))
        self.method.to(self.device)
        self.average: AveragedModel | None = None
        if recipe.averaging is not None:
            update = get_ema_multi_avg_fn(recipe.averaging)
            self.average = AveragedModel(self.model, multi_avg_fn=update, use_buffers=True)
        parameters = [*self.model.parameters(), *self.method.parameters()]
        self.optimizer = recipe.optimizer.build(p for p in parameters if p.requires_grad)
        self.validation = Validation(recipe, validation.to(self.device), self.method.threat)
        self.forward_flops = forward_flops(self.model, as_floats(self.train.images[:1]))
        self.state = State()

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What a checkpoint holds, by the names used there."""
        modules: dict[str, nn.Module] = {"model": self.model, "method": self.method}
        return modules if self.average is None else {**modules, "average": self.average}

    @property
    def batches(self) -> int:
        """Batches per epoch, the last one possibly short."""
        return math.ceil(len(self.train) / self.recipe.batch_size)

    @property
    def steps_per_epoch(self) -> int:
        return self.batches * self.method.replays

    @property
    def epoch(self) -> int:
        return self.state.step // self.steps_per_epoch

    @property
    def best_weights(self) -> nn.Module:
        """The model to keep: the averaged one where the recipe averages."""
        return self.model if self.average is None else self.average.module

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.recipe.epochs * self.steps_per_epoch

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.state.step >= self.steps or self.method.stop_reason is not None

    def run(self, console: Console, stopper: Stopper) -> None:
        """Train to the end.

        Raises:
            Stopped: a signal asked for it; the state is saved.
            Diverged: the loss or the weights stopped being finite.
        """
        recipe = self.recipe
        drop = recipe.schedule.first_drop
        self.method.start(Plan(epochs=recipe.epochs, steps=self.steps, images=len(self.train), first_drop=drop))
        display = Display(console, self.folder, recipe.epochs, self.steps, self.state.step)
        try:
            while not self.finished:
                self.run_epoch(display, stopper)
                if stopper.asked and not self.finished:
                    raise Stopped(stopper.asked)
        finally:
            display.close()

    def run_epoch(self, display: Display, stopper: Stopper) -> None:
        """The rest of the running epoch, its validation and its checkpoint; a signal in the last step awaits them."""
        state, epoch = self.state, self.epoch
        self.model.train()
        saved = started = time.perf_counter()
        for x, y, batch in self.epoch_batches(epoch):
            with Passes(self.model) as passes:
                step = self.step(x, y, batch)
            state.step, state.passes, state.images = state.step + 1, state.passes + passes.total, state.images + len(y)
            self.add_up(step, y)
            display.step(state.step, epoch)
            if state.step % CHECK_EVERY == 0:
                self.check_finite()
                display.loss(state.step, float(step.loss.detach()))
            now, ended = time.perf_counter(), state.step % self.steps_per_epoch == 0
            if not ended and (stopper.asked or now - saved >= self.recipe.checkpoint_seconds):
                state.seconds, started, saved = state.seconds + now - started, now, now
                self.save()
                if stopper.asked:
                    raise Stopped(stopper.asked)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        state.seconds += time.perf_counter() - started
        display.epoch(self.finish_epoch(epoch))

    def epoch_batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, Batch]]:
        """What is left of an epoch: images, labels and what is known of them, the order keyed by seed and epoch."""
        generator = torch.Generator().manual_seed(key("order", self.recipe.seed, epoch))
        order = torch.randperm(len(self.train), generator=generator).to(self.device)
        for step in range(self.state.step, (epoch + 1) * self.steps_per_epoch):
            number = step // self.method.replays
            first = (number % self.batches) * self.recipe.batch_size
            rows = order[first : first + self.recipe.batch_size]
            x, shift, flip = self.augment(
                as_floats(self.train.images[rows]), StepNoise(key("augment", self.recipe.seed), number)
            )
            noise = StepNoise(self.recipe.seed, step)
            batch = Batch(index=rows, shift=shift, flip=flip, noise=noise)
            yield x.contiguous(memory_format=self.layout), self.train.labels[rows], batch

    def step(self, x: Tensor, y: Tensor, batch: Batch) -> Step:
        """One optimizer step at the rate that its place in the run gives."""
        progress = self.state.step / self.steps
        self.set_rates(progress)
        self.method.progress = progress
        torch.manual_seed(key("model", self.recipe.seed, self.state.step))  # the model's own draws, such as dropout's
        with autocast(self.precision, self.device):
            try:
                step: Step = self.method(self.model, x, y, batch)
            except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # a singular value of NaN
                raise Diverged(f"the loss is not finite ({error})") from None
        self.optimizer.zero_grad(set_to_none=True)
        step.loss.backward()
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.method.after_step(self.model)
        return step

    def set_rates(self, progress: float) -> None:
        """Learning rate and momentum as the schedule has them."""
        momentum = self.recipe.schedule.momentum(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.optimizer.lr * self.recipe.schedule.factor(progress)
            if momentum is not None and "momentum" in group:
                group["momentum"] = momentum
            elif momentum is not None and "betas" in group:
                group["betas"] = (momentum, group["betas"][1])

    def add_up(self, step: Step, y: Tensor) -> None:
        """Add a step's figures to the epoch's sums, without waiting for the device."""
        right = (step.logits.detach().argmax(1) == y).sum()
        figures = {"loss": step.loss.detach() * len(y), "right": right}
        figures |= {name: value.detach() * len(y) for name, value in step.terms.items()}
        for name, value in figures.items():
            total = self.state.totals.setdefault(name, torch.zeros((), dtype=torch.float64, device=self.device))
            total += value

    def check_finite(self) -> None:
        """See that training is still about numbers.

        Raises:
            Diverged: it isn't.
        """
        if not math.isfinite(float(self.state.totals["loss"])):
            raise Diverged(f"the loss became {float(self.state.totals['loss'])}")
        if not finite(self.model.state_dict()):
            raise Diverged("a weight is no longer finite")

    def finish_epoch(self, epoch: int) -> dict[str, Any]:
        """Validate, keep the best weights, write the epoch's line and the checkpoint."""
        self.check_finite()
        state, metrics = self.state, self.metrics(epoch)
        started = time.perf_counter()
        metrics["validation"] = found = self.validation(self.best_weights)
        metrics["validation_seconds"] = round(time.perf_counter() - started, 3)
        metrics["best"] = score(found) > state.best or not found
        if metrics["best"]:
            state.best = score(found)
            runs.write_model(self.folder, replace(self.record, epoch=epoch, validation=found), self.best_weights)
        self.method.after_epoch(metrics)
        state.history.append(metrics)
        state.totals, state.seconds, state.passes, state.images = {}, 0.0, 0, 0
        self.save()
        runs.write_history(self.folder, state.history)
        return metrics

    def metrics(self, epoch: int) -> dict[str, Any]:
        """The running epoch's figures: means over its images, and its cost."""
        state = self.state
        means = {name: float(total) / state.images for name, total in state.totals.items()}
        return {
            "epoch": epoch,
            "step": state.step,
            "lr": self.optimizer.param_groups[0]["lr"],
            "loss": means.pop("loss"),
            "accuracy": means.pop("right"),  # on the images that the loss was taken on
            "terms": means,
            "passes": state.passes / state.images,  # forward equivalents for each training image
            "flops": state.passes * self.forward_flops,
            "seconds": round(state.seconds, 3),
            "images_per_second": round(state.images / state.seconds, 1),
        }

    def save(self) -> None:
        """Write a checkpoint, unless its weights would be useless."""
        if self.state.totals:
            self.check_finite()
        checkpoint.save(self.folder, self.state, self.modules, self.optimizer)

    def resume(self) -> bool:
        """Continue where the run directory's checkpoint stands; False where there is none yet."""
        state = checkpoint.load(self.folder, self.modules, self.optimizer, self.device)
        if state is None:
            return False
        self.state = state
        return True


def forward_flops(model: nn.Module, x: Tensor) -> int:
    """Floating-point operations of one forward pass of one image, counted where they happen (a multiply-add is two)."""
    with mode(model, "eval"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    return int(counter.get_total_flops())

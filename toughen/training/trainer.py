"""The one training loop: every method, resumable at any step, bit for bit.

What happens around its steps, from validation to the progress line, is in ``callbacks``.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from itertools import count, takewhile
from pathlib import Path

import torch
from torch import Tensor, nn

from toughen import runs
from toughen.core.cost import PassCounter, flops, trained_share
from toughen.core.distributed import world
from toughen.core.rng import StepNoise, derive_seed
from toughen.core.types import Batch, Step, check_returned
from toughen.data import Data, Streamed
from toughen.data.feed import Feed
from toughen.engine.device import autocast, choose_kernels, pick_device, pick_layout, pick_precision, synchronize
from toughen.engine.memory import keep_freed_memory
from toughen.evaluation.harness import as_floats
from toughen.methods.base import Method
from toughen.methods.own_method import check_image_rows
from toughen.training import fine_tuning
from toughen.training.averaging import ExponentialAverage
from toughen.training.callbacks.base import Callback, end_epoch, end_session
from toughen.training.callbacks.selection import callbacks_of, state_names
from toughen.training.collapse import CollapseDetector, rescuers
from toughen.training.compiled import Compiled
from toughen.training.cuda_graphs import recorder_of
from toughen.training.distributed_step import step_of, synchronised_batch_norm
from toughen.training.divergence import check_step, not_finite
from toughen.training.loader import augment_of, feed_of
from toughen.training.recipe import Recipe
from toughen.training.replayed_step import ReplayedStep
from toughen.training.training_state import TrainingState
from toughen.training.transform import Transform
from toughen.training.validation import Validation
from toughen.utils.signals import GracefulShutdown, Stopped


class Trainer:
    """One run. Everything that changes is in its modules, its optimizer, its callbacks and ``state``.

    Args:
        recipe: the settings.
        data: what is trained on; validation images come out of its training images.
        model: the net to train.
        folder: the run directory.
        record: what is known of the run's weights before they are trained.
        callbacks: the user's own.
        transform: the user's own augmentation.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: Data | Streamed,
        model: nn.Module,
        folder: Path,
        record: runs.Record,
        callbacks: Sequence[Callback] = (),
        transform: Transform | None = None,
    ) -> None:
        self.recipe, self.folder, self.method = recipe, folder, recipe.method
        keep_freed_memory()
        self.device = pick_device(recipe.device)
        choose_kernels(self.device, deterministic=recipe.deterministic)
        self.precision = pick_precision(recipe.precision, self.device)
        self.dtype = torch.float64 if self.precision == "fp64" else torch.float32
        self.layout = pick_layout(model, self.device, channels_last=recipe.channels_last)
        train, held_out, _ = data.split(recipe.validation, recipe.seed)
        self.train = train.to(self.device)
        self.feed: Feed = feed_of(recipe, self.train, held_out, self.device)
        self.augment, self.transform = augment_of(recipe, data.shape), transform
        self.image = torch.zeros(1, *data.shape, dtype=self.dtype, device=self.device)
        self.model = model.to(self.device, self.dtype, memory_format=self.layout)  # type: ignore[call-overload]
        self.methods = self._prepared(data)
        more, classes = self.method.parameters(), len(data.classes)
        trained = fine_tuning.prepare(self.model, more, recipe.frozen, recipe.layer_decay, classes)
        self.frozen_modules = trained.frozen_modules
        self.optimizer = recipe.optimizer.build_checked(trained.parameters)
        self.forward_flops = flops(self.model, self.image)
        self.trained_share = trained_share(self.model, self.image)
        self.costs: dict[int, float] = {}  # of the method's companions, in forward passes of the model
        self.compiled = Compiled(self.model, recipe.compile)
        average = None if recipe.averaging is None else ExponentialAverage(self.model, recipe.averaging)
        held_out = held_out.to(self.device)
        self.detector = CollapseDetector(held_out, recipe.threat, recipe.watch, recipe.seed)
        self.callbacks = callbacks_of(recipe, self.detector, callbacks)
        self.state = TrainingState(
            recipe=recipe,
            images=len(self.train),
            replays=self.method.replays,
            folder=folder,
            record=record,
            device=self.device,
            precision=self.precision,
            model=self.model,
            average=average,
            main=self.method,
            rescuers=self.methods[1:],
            method=self.method,
            optimizer=self.optimizer,
            validation=Validation(recipe, held_out, self.precision),
            distributed_step=step_of(self.model, self.methods, len(self.train)),
            callbacks=state_names(self.callbacks),
        )
        self.replayed_step = ReplayedStep(self.model, self.methods, recorder_of(self.device, wanted=recipe.cuda_graphs))

    def by_epoch(self, shutdown: GracefulShutdown) -> Iterator[float]:
        """Train to the end, pausing after each epoch.

        Args:
            shutdown: asks to stop.

        Yields:
            The share of the run that is done, 0..1.

        Raises:
            Stopped: a signal asked for it; the state is saved.
            Diverged: the loss or the weights stopped being finite.
        """
        state, ended = self.state, None
        for method in self.methods:
            method.start(state.plan)
        state.distributed_step.begin(self.image)
        try:
            for callback in self.callbacks:
                callback.on_fit_start(state)
            while not state.finished:
                self.run_epoch(shutdown)
                if world().any(bool(shutdown.requested))[0] and not state.finished:
                    raise Stopped(shutdown.requested or signal.SIGTERM)
                yield state.step / state.last_step
        except GeneratorExit:  # nobody goes on with it
            raise
        except BaseException as error:
            ended = error
            end_session(self.callbacks, "on_exception", state, error, ended=ended)
            raise
        finally:
            state.distributed_step.end()
            self.replayed_step.forget()
            end_session(self.callbacks, "on_fit_end", state, ended=ended)

    def run_epoch(self, shutdown: GracefulShutdown) -> None:
        """Train the rest of the current epoch; a signal during its last step takes effect after its callbacks."""
        state, epoch = self.state, self.state.epoch
        self.train_mode()
        state.start_clock()
        for callback in self.callbacks:
            callback.on_epoch_start(state)
        for x, y, batch in self.epoch_batches(epoch):
            if not all(module.training for module in self.model.modules()):  # a callback may have changed the mode
                self.train_mode()
            step = self.counted_step(x, y, batch)
            state.scalars.clear()
            for callback in self.callbacks:
                callback.on_step_end(state, step)
            if state.step == state.end_of(epoch):  # maybe before the epoch's last batch
                break
            self._pause(shutdown)
        synchronize(self.device)
        state.count_seconds()
        metrics = world().broadcast(state.epoch_figures(epoch, self.forward_flops))  # methods decide by them
        state.close_epoch(metrics)
        end_epoch(self.callbacks, state, metrics)

    def train_mode(self) -> None:
        """Put the model into training mode, but for frozen layers, so that their batch-norm statistics stay."""
        self.model.train()
        for module in self.frozen_modules:
            module.eval()

    def epoch_batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, Batch]]:
        """The remaining batches of an epoch, in an order keyed by seed and epoch: images, labels and a ``Batch``.

        Only this process's part of each batch; where that is empty, two of the batch's images as padding.
        """
        state, first, replays = self.state, self.state.step, self.state.replays
        fed = self.feed.batches(epoch, first // replays % state.batches, world().padded_shard)
        for number in takewhile(lambda at: at * replays < state.end_of(epoch), count(first // replays)):  # it may move
            images, labels, rows = next(fed)
            size = state.size_of(number * replays)
            place = world().noise_place(size)
            noise = StepNoise(derive_seed("augment", self.recipe.seed), number, *place)
            x, shift, flip = self.augment(as_floats(images).to(self.dtype), noise)
            if self.transform is not None:
                seed = world().seed("transform", self.recipe.seed, number)
                x = self.transform(x, seed, rows, check_range=number == 0)
            x = x.contiguous(memory_format=self.layout)
            steps = range(max(first, number * replays), (number + 1) * replays)
            for step in takewhile(lambda at: at < state.end_of(epoch), steps):
                noise = StepNoise(self.recipe.seed, step, *place)
                yield x, labels, Batch(index=rows, shift=shift, flip=flip, noise=noise)

    def counted_step(self, x: Tensor, y: Tensor, batch: Batch) -> Step:
        """A step whose loss, accuracy and passes are added to the epoch's totals."""
        state = self.state
        with self.pass_counter() as passes:
            step = self.step(x, y, batch)
        own = y[: state.own_of(state.step)]
        state.step += 1
        self.add_up(step, own, passes)
        return step

    def pass_counter(self) -> PassCounter:
        """Counts the passes of a step."""
        return PassCounter(self.model, self.state.method.companions(), self.image, self.costs, self.trained_share)

    def step(self, x: Tensor, y: Tensor, batch: Batch) -> Step:
        """One optimizer step, with the learning rate of the schedule."""
        state, method, progress = self.state, self.state.method, self.state.progress(self.state.step)
        self.recipe.schedule.set(self.optimizer, self.recipe.optimizer.lr, progress)
        method.progress = progress
        method.perturbation_scale = state.eps_scale
        state.adversarial_steps += method.is_adversarial
        self.optimizer.zero_grad(set_to_none=True)
        key = None if method.graph_key is None else (method, method.graph_key, method.perturbation_scale < 1)
        seed = world().seed("model", self.recipe.seed, state.step)  # such as for dropout
        logged = self.replayed_step(key, x, y, batch, seed, self.loss_and_gradients, self.pass_counter)
        if self.replayed_step.failure:
            state.note("cuda graphs", f"CUDA graphs are no longer used: {self.replayed_step.failure}")
            self.replayed_step.failure = ""
        self.optimizer.step()
        if state.average is not None:
            state.average.update_parameters(self.model)
        method.after_step(self.model)
        return logged

    def loss_and_gradients(self, x: Tensor, y: Tensor, batch: Batch) -> Step:
        """Compute a step's loss and leave its gradients in ``.grad``; the returned tensors have no graph."""
        state = self.state
        with self.compiled():
            with autocast(self.precision, self.device):
                try:
                    sizes = (state.size_of(state.step), state.own_of(state.step))
                    step, logged = state.distributed_step.step(state.method, x, y, batch, *sizes)
                except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # a singular value of NaN
                    raise not_finite(self.model, x, batch, state.step + 1, error) from None
            check_returned(step, type(state.method).__name__)
            step.loss.backward()
        check_step(self.model, x, step, batch, state.step + 1)
        return Step(logged.loss.detach(), logged.logits.detach(), logged.terms)

    def add_up(self, step: Step, y: Tensor, passes: PassCounter | None = None) -> None:
        """Add a step's figures for this process's images to the epoch's sums, without synchronising with the device."""
        totals, n = self.state.totals, len(y)
        if passes is not None:
            totals.passes, totals.crafted = totals.passes + passes.total, totals.crafted + passes.crafted
        if not n:
            return
        right = (step.logits.detach().argmax(1) == y).sum()
        figures = {"loss": step.loss.detach() * n, "right": right}
        figures |= {name: value.detach() * n for name, value in step.terms.items()}
        for name, value in figures.items():
            total = totals.sums.setdefault(name, torch.zeros((), dtype=torch.float64, device=self.device))
            total += value
            totals.counts[name] = totals.counts.get(name, 0) + n
        totals.images += n

    def _pause(self, shutdown: GracefulShutdown) -> None:
        """Call ``on_due`` of callbacks that are due, and stop on a signal: in all processes after the same step."""
        raised = world().any(bool(shutdown.requested), *[callback.due(self.state) for callback in self.callbacks])
        for callback, due in zip(self.callbacks, raised[1:], strict=True):
            if due:
                callback.on_due(self.state)
        if raised[0]:
            raise Stopped(shutdown.requested or signal.SIGTERM)

    def _prepared(self, data: Data | Streamed) -> list[Method]:
        """The recipe's method and its rescue methods, with all buffers allocated."""
        self._prepare(self.method, data)
        if self.recipe.sync_batch_norm:
            self.model = synchronised_batch_norm(self.model, self.device)
        after = rescuers(self.method) if self.recipe.watch == "rescue" else []
        for rescuer in after:
            self._prepare(rescuer, data)
            rescuer.replays = self.method.replays  # an epoch stays as many steps
        return [self.method, *after]

    def _prepare(self, method: Method, data: Data | Streamed) -> None:
        method.prepare(self.model, data.shape, len(data.classes), len(self.train))
        names = {"transform": self.transform, "crop": self.augment.pad, "flip": self.augment.flip}
        check_image_rows(method, data.shape, next((name for name, used in names.items() if used), ""))
        method.to(self.device)
        for each in method.modules():
            if isinstance(each, Method):
                each.label_smoothing = self.recipe.label_smoothing

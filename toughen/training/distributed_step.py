"""The loss of a training step: of one process, or of several that take a batch in parts, with one gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parallel import DistributedDataParallel

from toughen.core.distributed import world
from toughen.core.gradients import logits, mode
from toughen.core.types import Batch, Step
from toughen.methods.base import Method

_ROWS = 4096  # of a buffer per image, synchronised at a time


class _Loss(nn.Module):
    """A method over its model as one module, so that attack and loss are within one synchronised forward pass."""

    def __init__(self, model: nn.Module, methods: Sequence[Method]) -> None:
        super().__init__()
        self.model, self.methods = model, nn.ModuleList(methods)

    def forward(
        self, number: int, x: Tensor, y: Tensor, batch: Batch, weight: float
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        step: Step = self.methods[number](self.model, x, y, batch)
        # unweighted, so that what is logged is a mean over this process's images
        return step.loss * weight, step.loss.detach(), step.logits.detach(), step.terms


class LocalStep:
    """The loss of a step in the only process of a run.

    Args:
        model: what is trained.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def begin(self, image: Tensor) -> None:
        """Called before the first step.

        Args:
            image: any one, [1, c, h, w].
        """

    def end(self) -> None:
        """Called after the last step."""

    def step(self, method: Method, x: Tensor, y: Tensor, batch: Batch, whole: int, own: int) -> tuple[Step, Step]:
        """The loss to differentiate, and the step as it is logged.

        Args:
            method: the one that trains.
            x, y, batch: this process's part.
            whole: images of the batch in all processes.
            own: how many of them are this process's; 0 where ``x`` is a padding batch.
        """
        step: Step = method(self.model, x, y, batch)
        return step, step

    def sync_image_buffers(self) -> None:
        """Give every process each image's rows of the methods' buffers from the process that saw the image."""

    def forget_images(self) -> None:
        """The buffers are those of an earlier state, which are the same in all processes."""


class DistributedStep(LocalStep):
    """What the processes of a run share in each step.

    Each takes its part of every batch. Attack and loss see that part alone, and so do batch norm's statistics and a
    loss that couples images, such as the nuclear norm. Gradients are averaged, each image counting alike.

    Args:
        model, methods: what is trained, and how, the same in all processes; each step takes one of the methods.
        images: size of the training set.
    """

    def __init__(self, model: nn.Module, methods: Sequence[Method], images: int) -> None:
        super().__init__(model)
        self.whole = _Loss(model, methods)
        self.images = images
        self.synchronised: nn.Module | None = None  # only then, since nothing can copy it
        self.touched: Tensor | None = None  # images that this process saw since buffers were synchronised

    def begin(self, image: Tensor) -> None:
        """Tie the processes' weights together."""
        self.synchronised = DistributedDataParallel(
            self.whole, broadcast_buffers=False, find_unused_parameters=_some_idle(self.whole, image)
        )

    def end(self) -> None:
        """Let go of the other processes."""
        self.synchronised = None

    def step(self, method: Method, x: Tensor, y: Tensor, batch: Batch, whole: int, own: int) -> tuple[Step, Step]:
        assert self.synchronised is not None  # by begin
        number, weight = list(self.whole.methods).index(method), own * world().world_size / whole
        for each in self.whole.methods.modules():
            if isinstance(each, Method):
                each.batch_share = own / whole
        loss, plain, logits, terms = self.synchronised(number, x, y, batch, weight)
        if batch.index is not None and own:
            if self.touched is None:
                self.touched = torch.zeros(self.images, dtype=torch.bool, device=x.device)
            self.touched[batch.index] = True
        self._average_statistics(own / whole)
        return Step(loss, logits, terms), Step(plain, logits, terms)

    @torch.no_grad()
    def _average_statistics(self, weight: float) -> None:
        """Give every process the mean of all batch norms' running statistics."""
        kept: list[Tensor] = [
            statistics
            for module in self.whole.modules()
            if isinstance(module, _NormBase) and module.training
            for statistics in (module.running_mean, module.running_var)
            if statistics is not None
        ]
        if not kept:
            return
        flat = torch.cat([statistics.flatten() for statistics in kept]).mul_(weight)
        for statistics, mean in zip(kept, world().all_reduce(flat).split([len(s) for s in kept]), strict=True):
            statistics.data.copy_(mean)  # autograd keeps them for the backward to come, which uses the batch's own

    @torch.no_grad()
    def sync_image_buffers(self) -> None:
        buffers = [
            getattr(method, name)
            for method in self.whole.modules()
            if isinstance(method, Method)
            for name in method.per_image_buffers
            if getattr(method, name, None) is not None
        ]
        if not buffers:
            return
        device = buffers[0].device
        mine = torch.zeros(self.images, dtype=torch.bool, device=device) if self.touched is None else self.touched
        self.touched = None
        anyone = world().all_reduce(mine.to(torch.uint8)).bool()
        for buffer in (each for each in buffers if len(each)):
            for rows in torch.arange(len(buffer), device=device).split(_ROWS):
                part = buffer[rows] * _like(mine[rows], buffer)
                summed = world().all_reduce(part.to(torch.uint8) if part.dtype == torch.bool else part).to(buffer.dtype)
                buffer[rows] = torch.where(_like(anyone[rows], buffer), summed, buffer[rows])

    def forget_images(self) -> None:
        self.touched = None


def step_of(model: nn.Module, methods: Sequence[Method], images: int) -> LocalStep:
    """What takes a run's steps, in one process or in many.

    Args:
        model, methods, images: as for ``DistributedStep``.
    """
    return DistributedStep(model, methods, images) if world().is_distributed else LocalStep(model)


def _some_idle(whole: _Loss, x: Tensor) -> bool:
    """Whether a step may leave parameters without a gradient; torch must then look for them in each."""
    if any(parameter.requires_grad for parameter in whole.methods.parameters()):
        return True  # a wrapper's other method need not use them
    parameters = [parameter for parameter in whole.model.parameters() if parameter.requires_grad]
    with mode(whole.model, "eval"):
        slopes = torch.autograd.grad(logits(whole.model, x).sum(), parameters, allow_unused=True)
    return any(slope is None for slope in slopes)


def _like(mask: Tensor, buffer: Tensor) -> Tensor:
    """A mask of rows, to be put beside a buffer."""
    return mask.view(-1, *[1] * (buffer.ndim - 1))


def synchronised_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with batch norms whose statistics are those of the whole batch.

    Raises:
        ValueError: torch has them on GPUs only.
    """
    if device.type != "cuda":
        raise ValueError("sync_batch_norm needs GPUs: leave it out; each process then uses its own images' statistics")
    synchronised: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return synchronised

"""Training steps recorded as CUDA graphs: on a GPU a small net's step takes longer to launch than to compute.

https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Protocol

import torch
from torch import Tensor, nn

from toughen.core.cost import PassCounter, add_passes, uncounted
from toughen.core.distributed import world
from toughen.core.rng import StepNoise
from toughen.core.types import Batch, Step

WARM_UP = 2  # steps without a graph: libraries choose their kernels in the first ones
BETWEEN_CHECKS = 200  # steps, at least
TOLERANCE = 1e-3  # by which a replayed loss and gradient may differ, relative to their size

Take = Callable[[Tensor, Tensor, Batch], Step]
"""A step's loss and gradients, which are left in ``.grad``; what it returns is detached."""


class Recorder(Protocol):
    """Records kernels and replays them."""

    def apart(self, take: Callable[[], Step]) -> Step:
        """Run something without recording it, where what is recorded later runs."""

    def record(self, take: Callable[[], Step], generator: torch.Generator) -> Step:
        """Record what something would do. Its tensors are those that a replay fills.

        Args:
            take: runs without effect.
            generator: random numbers in it come from there, and from torch's own.
        """

    def replay(self) -> None:
        """Do what was recorded."""


class CudaRecorder:
    """Records with ``torch.cuda.CUDAGraph``."""

    def __init__(self) -> None:
        self.stream, self.graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()

    def apart(self, take: Callable[[], Step]) -> Step:
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            step = take()
        torch.cuda.current_stream().wait_stream(self.stream)
        return step

    def record(self, take: Callable[[], Step], generator: torch.Generator) -> Step:
        self.graph.register_generator_state(generator)
        with _no_garbage_collected():
            # a loader's thread may copy images meanwhile
            with torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
                return take()

    def replay(self) -> None:
        self.graph.replay()


@contextmanager
def _no_garbage_collected() -> Iterator[None]:
    """Within the block nothing of an earlier step is freed, which would spoil a recording."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@dataclass
class Recording:
    """A recorded step.

    Attributes:
        x, y, batch: the tensors it reads.
        step: the tensors it fills, beside the gradients.
        gradients: it fills these too, each beside its parameter.
        passes: what it costs: forward passes, gradients to the input, to weights, and of these that crafted images.
    """

    x: Tensor
    y: Tensor
    batch: Batch
    step: Step
    gradients: list[tuple[nn.Parameter, Tensor | None]]
    passes: PassCounter

    def fill(self, x: Tensor, y: Tensor, batch: Batch) -> None:
        """Show it another batch."""
        for own, new in zip(_tensors(self.x, self.y, self.batch), _tensors(x, y, batch), strict=True):
            own.copy_(new)


class StepGraphs:
    """Takes a step's loss and gradients, by replaying a recorded step where that gives the same.

    The first steps run as they are. Then one is recorded, and replayed from there on. Now and then a step is taken both
    ways from the same state: a net that changes from step to step by itself, such as by Python's own random numbers,
    would stay what it was when it was recorded. Where they differ, or where recording fails, no more steps are
    replayed.

    Args:
        take: takes a step.
        model: what is trained.
        methods: those that may train it; their buffers are part of a step's state.
        counter: makes a counter of passes for a method's companions.
        recorder: makes what records a step; None where nothing can.
        give_up: is told why there are no more replays.
    """

    def __init__(
        self,
        take: Take,
        model: nn.Module,
        methods: Sequence[nn.Module],
        counter: Callable[[], PassCounter],
        recorder: Callable[[], Recorder] | None,
        give_up: Callable[[str], None],
    ) -> None:
        self.take, self.modules, self.counter, self.give_up = take, [model, *methods], counter, give_up
        self.new_recorder = recorder
        self.recorder: Recorder | None = None
        self.recording: Recording | None = None
        self.generator: torch.Generator | None = None
        self.key: Hashable = None
        self.seen = self.unchecked = 0  # steps of this key; replays since the last one that was checked

    def __call__(self, key: Hashable, x: Tensor, y: Tensor, batch: Batch, seed: int) -> Step:
        """A step's loss and gradients.

        Args:
            key: names all that a step depends on besides tensors; None where it must not be recorded.
            x, y, batch: what is trained on.
            seed: of torch's own generators.
        """
        if self.new_recorder is None or key is None or not isinstance(batch.noise, StepNoise):
            torch.manual_seed(seed)
            return self.take(x, y, batch)
        key = (key, x.shape, x.dtype)
        if key != self.key:
            self.key, self.seen, self.recording, self.recorder = key, 0, None, self.new_recorder()
            self.generator = torch.Generator(x.device)
        self.seen += 1
        if self.seen <= WARM_UP:
            return self._apart(x, y, batch, seed)
        if self.recording is None or self.unchecked >= BETWEEN_CHECKS:
            return self._checked(x, y, batch, seed)
        self.unchecked += 1
        add_passes(self.recording.passes)
        return self._replay(self.recording, x, y, batch, seed)

    def _apart(self, x: Tensor, y: Tensor, batch: Batch, seed: int) -> Step:
        assert self.recorder is not None
        own = self._seeded(batch, seed)
        return self.recorder.apart(lambda: self.take(x, y, own))

    def _seeded(self, batch: Batch, seed: int) -> Batch:
        """The batch with noise out of the generator that a recording knows; both generators stand at its start."""
        assert self.generator is not None and isinstance(batch.noise, StepNoise)
        torch.manual_seed(seed)
        self.generator.manual_seed(batch.noise.generator_seed)
        return replace(batch, noise=replace(batch.noise, generator=self.generator))

    def _checked(self, x: Tensor, y: Tensor, batch: Batch, seed: int) -> Step:
        """A step taken as it is and by a replay, one after the other from the same state."""
        before = self._state()
        with self.counter() as passes:
            plain = self._apart(x, y, batch, seed)
        plain_gradients, after = self._gradients(), self._state()
        try:
            self._restore(before)
            if self.recording is None:
                with uncounted():
                    self.recording = self._record(x, y, batch, seed, passes)
            step = self._replay(self.recording, x, y, batch, seed)
            apart = _distance([plain.loss, *plain_gradients], [step.loss, *self._gradients()])
            reason = "" if apart <= TOLERANCE else f"a replayed step differs by {apart:.1e} from the step itself"
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
        if not reason:
            self.unchecked = 0
            return step
        self._restore(after)
        for parameter, gradient in zip(self._parameters(), plain_gradients, strict=True):
            parameter.grad = gradient
        self.new_recorder = self.recorder = self.recording = None
        self.give_up(reason)
        return plain

    def _record(self, x: Tensor, y: Tensor, batch: Batch, seed: int, passes: PassCounter) -> Recording:
        assert self.recorder is not None and self.generator is not None
        x, y = x.clone(memory_format=torch.preserve_format), y.clone()
        batch = _copied(self._seeded(batch, seed))
        for parameter in self._parameters():
            parameter.grad = None  # a replay then writes gradients instead of adding to them
        step = self.recorder.record(lambda: self.take(x, y, batch), self.generator)
        gradients = list(zip(self._parameters(), self._gradients(), strict=True))
        return Recording(x, y, batch, step, gradients, passes)

    def _replay(self, recording: Recording, x: Tensor, y: Tensor, batch: Batch, seed: int) -> Step:
        assert self.recorder is not None
        recording.fill(x, y, batch)
        self._seeded(batch, seed)
        self.recorder.replay()
        for parameter, gradient in recording.gradients:
            parameter.grad = gradient
        step = recording.step  # the next replay fills it anew
        return Step(step.loss.clone(), step.logits.clone(), {name: term.clone() for name, term in step.terms.items()})

    def _parameters(self) -> list[nn.Parameter]:
        return [each for module in self.modules for each in module.parameters()]

    def _gradients(self) -> list[Tensor | None]:
        return [each.grad for each in self._parameters()]

    def _state(self) -> list[tuple[Tensor, Tensor]]:
        """All buffers, each with what it holds now."""
        return [(each, each.clone()) for each in chain(*(module.buffers() for module in self.modules))]

    def _restore(self, state: list[tuple[Tensor, Tensor]]) -> None:
        with torch.no_grad():
            for buffer, value in state:
                buffer.copy_(value)


def _copied(batch: Batch) -> Batch:
    index, shift, flip = (None if each is None else each.clone() for each in (batch.index, batch.shift, batch.flip))
    return replace(batch, index=index, shift=shift, flip=flip)


def _tensors(x: Tensor, y: Tensor, batch: Batch) -> list[Tensor]:
    return [x, y, *(each for each in (batch.index, batch.shift, batch.flip) if each is not None)]


def _distance(one: Sequence[Tensor | None], other: Sequence[Tensor | None]) -> float:
    """How far apart a loss and its gradients are from others, relative to their size; the larger of the two."""
    if [each is None for each in one] != [each is None for each in other]:
        return float("inf")
    pairs = [(a.double(), b.double()) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    tiny, apart = torch.finfo(torch.float64).tiny, []
    for part in (pairs[:1], pairs[1:]):
        size = sum((a.square().sum() for a, _ in part), torch.zeros_like(pairs[0][0]))
        far = sum(((a - b).square().sum() for a, b in part), torch.zeros_like(pairs[0][0]))
        apart.append(far.sqrt() / (size.sqrt() + tiny))
    return float(torch.stack(apart).max())


def recorder_of(device: torch.device, *, wanted: bool) -> Callable[[], Recorder] | None:
    """What records steps on this device; None where nothing does: many processes wait for each other within a step."""
    return CudaRecorder if wanted and device.type == "cuda" and not world().is_distributed else None

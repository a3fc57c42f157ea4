"""Training steps recorded as CUDA graphs: on a GPU a small net's step takes longer to launch than to compute.

https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Protocol, runtime_checkable

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


@runtime_checkable
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
        # "thread_local": a loader's thread may copy images meanwhile
        graph = torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local")
        try:
            with _no_garbage_collected(), graph:
                return take()
        except BaseException:
            for each in (torch.cuda.default_generators[self.stream.device.index], generator):
                each.graphsafe_set_state(torch.Generator(generator.device).graphsafe_get_state())  # they still record
            raise

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
        recorder: replays it.
        x, y, batch: the tensors it reads.
        step: the tensors it fills, beside the gradients.
        gradients: it fills these too, each beside its parameter.
        passes: what it costs: forward passes, gradients to the input, to weights, and of these that crafted images.
    """

    recorder: Recorder
    x: Tensor
    y: Tensor
    batch: Batch
    step: Step
    gradients: list[tuple[nn.Parameter, Tensor | None]]
    passes: PassCounter

    def replay(self, x: Tensor, y: Tensor, batch: Batch) -> Step:
        """The step on another batch; the gradients are left in ``.grad``."""
        for own, new in zip(_tensors(self.x, self.y, self.batch), _tensors(x, y, batch), strict=True):
            own.copy_(new)
        self.recorder.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        step = self.step  # the next replay fills it anew
        return Step(step.loss.clone(), step.logits.clone(), {name: term.clone() for name, term in step.terms.items()})


@dataclass
class Kind:
    """The steps of one kind, on batches of one shape.

    Attributes:
        recorder: records one.
        generator: random numbers in them come from there.
        seen: how many there were.
        unchecked: replays since the last one that was checked.
        recording: what is replayed.
    """

    recorder: Recorder
    generator: torch.Generator
    seen: int = 0
    unchecked: int = 0
    recording: Recording | None = None

    def seeded(self, batch: Batch, seed: int) -> Batch:
        """The batch with noise out of the generator that a recording knows; it and torch's own stand at their start."""
        assert isinstance(batch.noise, StepNoise)
        torch.manual_seed(seed)
        self.generator.manual_seed(batch.noise.generator_seed)
        return replace(batch, noise=replace(batch.noise, generator=self.generator))


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
        self.recorder = recorder
        self.key: Hashable = None
        self.kinds: dict[Hashable, Kind] = {}  # by their batches' shapes

    def __call__(self, key: Hashable, x: Tensor, y: Tensor, batch: Batch, seed: int) -> Step:
        """A step's loss and gradients.

        Args:
            key: names all that a step depends on besides tensors; None where it must not be recorded.
            x, y, batch: what is trained on.
            seed: of torch's own generators.
        """
        if self.recorder is None or key is None or not isinstance(batch.noise, StepNoise):
            torch.manual_seed(seed)
            return self.take(x, y, batch)
        if key != self.key:
            self.key = key
            self.kinds.clear()
        if x.shape not in self.kinds:
            self.kinds[x.shape] = Kind(self.recorder(), torch.Generator(x.device))
        kind = self.kinds[x.shape]
        kind.seen += 1
        if kind.seen <= WARM_UP:
            return self._apart(kind, x, y, batch, seed)
        if kind.recording is None or kind.unchecked >= BETWEEN_CHECKS:
            return self._checked(kind, x, y, batch, seed)
        kind.unchecked += 1
        add_passes(kind.recording.passes)
        kind.seeded(batch, seed)
        return kind.recording.replay(x, y, batch)

    def _apart(self, kind: Kind, x: Tensor, y: Tensor, batch: Batch, seed: int) -> Step:
        own = kind.seeded(batch, seed)
        return kind.recorder.apart(lambda: self.take(x, y, own))

    def _checked(self, kind: Kind, x: Tensor, y: Tensor, batch: Batch, seed: int) -> Step:
        """A step taken as it is and by a replay, one after the other from the same state."""
        before = self._state()
        with self.counter() as passes:
            plain = self._apart(kind, x, y, batch, seed)
        expected = [plain.loss, *self._gradients()]
        try:
            self._restore(before)
            if kind.recording is None:
                with uncounted():
                    kind.recording = self._record(kind, x, y, batch, seed, passes)
            kind.seeded(batch, seed)
            step = kind.recording.replay(x, y, batch)
            apart = _distance(expected, [step.loss, *self._gradients()])
            reason = "" if apart <= TOLERANCE else f"a replayed step differs by {apart:.1e} from the step itself"
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
        if not reason:
            kind.unchecked = 0
            return step
        self.recorder = None
        self.kinds.clear()
        self.give_up(reason)
        self._restore(before)
        self._forget_gradients()
        with uncounted():
            return self._apart(kind, x, y, batch, seed)

    def _record(self, kind: Kind, x: Tensor, y: Tensor, batch: Batch, seed: int, passes: PassCounter) -> Recording:
        x, y, batch = x.clone(memory_format=torch.preserve_format), y.clone(), _copied(kind.seeded(batch, seed))
        self._forget_gradients()  # a replay then writes them instead of adding to them
        step = kind.recorder.record(lambda: self.take(x, y, batch), kind.generator)
        gradients = list(zip(self._parameters(), self._gradients(), strict=True))
        return Recording(kind.recorder, x, y, batch, step, gradients, passes)

    def _parameters(self) -> list[nn.Parameter]:
        return [each for module in self.modules for each in module.parameters()]

    def _gradients(self) -> list[Tensor | None]:
        return [each.grad for each in self._parameters()]

    def _forget_gradients(self) -> None:
        for parameter in self._parameters():
            parameter.grad = None

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
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    tiny, apart = torch.finfo(torch.float64).tiny, []
    for part in (pairs[:1], pairs[1:]):
        size = sum((a.double().square().sum() for a, _ in part), torch.zeros_like(pairs[0][0], dtype=torch.float64))
        far = sum((a.double() - b).square().sum() for a, b in part)
        apart.append((far / (size + tiny)) ** 0.5)
    return float(torch.stack(apart).max())


def recorder_of(device: torch.device, *, wanted: bool) -> Callable[[], Recorder] | None:
    """What records steps on this device; None where nothing does: many processes wait for each other within a step."""
    return CudaRecorder if wanted and device.type == "cuda" and not world().is_distributed else None

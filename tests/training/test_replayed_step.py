"""Replayed steps against steps that are taken; on a CPU a tape of torch's operations stands in for a GPU's kernels."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import digits, files, timeless
from contract import EPS, build
from contract import batch as a_batch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from toughen import runs
from toughen.core import nuclear_norm
from toughen.core.cost import PassCounter
from toughen.core.types import Batch, Crafted, Images, Labels, Step
from toughen.methods import REGISTRY, Method
from toughen.methods.awp import AWP
from toughen.methods.delayed import Delayed
from toughen.methods.nuat import NuAT
from toughen.methods.pgd_at import PGDAT
from toughen.methods.standard import Standard
from toughen.training import Callback, Recipe, TrainingState, cuda_graphs, replayed_step, train
from toughen.training import trainer as trainer_module
from toughen.training.cuda_graphs import CudaRecorder
from toughen.training.replayed_step import ReplayedStep

VARIANTS: dict[str, Callable[[], Method]] = {
    "NuAT, ramp by epoch": lambda: NuAT(eps=EPS, ramp_by="epoch", share_clean=False),
    "DAT": lambda: Delayed(after=PGDAT(eps=EPS, steps=2), switch_epoch=1),
    "AWP, later": lambda: AWP(inner=PGDAT(eps=EPS, steps=2), begin_at=0.5),
    "NuAT2, average": lambda: build("NuAT2", first_step="average"),
}
RECORDED = {"AWP", "FBF", "FGSMAT", "GAT", "GradAlign", "NFGSM", "NuAT", "NuAT2", "PGDAT", "PGI", "RFGSMAT"}
RECORDED |= {"Standard", "TRADES", "Delayed"}


class Read(RuntimeError):
    """A number was read back, which ends a recording on a GPU."""


class Tape(TorchDispatchMode):
    """What torch does, operation by operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.done: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            raise Read("a number was read back")
        out = func(*args, **kwargs)
        self.done.append((func, args, kwargs, out))
        return out

    def replay(self) -> None:
        for func, args, kwargs, out in self.done:
            returns = func._schema.returns
            if any(each.alias_info is not None and not each.alias_info.is_write for each in returns):
                continue  # a view shows what lies there
            new = func(*args, **kwargs)
            for old, fresh in zip(tree_leaves(out), tree_leaves(new), strict=True):
                if isinstance(old, Tensor) and old is not fresh:
                    old.copy_(fresh)


class TapeRecorder(CudaRecorder):
    """Runs a step to record it, and then undoes what it did."""

    count = replays = 0
    modules: tuple[nn.Module, ...] = ()

    def __init__(self) -> None:
        """Without a GPU."""

    def run_unrecorded(self, take: Callable[[], Step]) -> Step:
        return take()

    def record(self, take: Callable[[], Step], generator: torch.Generator) -> tuple[Step, Callable[[], None]]:
        type(self).count += 1
        tape = Tape()
        buffers = [(each, each.clone()) for module in self.modules for each in module.buffers()]
        try:
            with tape:
                step = take()
        finally:
            for buffer, value in buffers:
                buffer.copy_(value)

        def replay() -> None:
            type(self).replays += 1
            with torch.no_grad():
                tape.replay()

        return step, replay


@pytest.fixture
def tape(monkeypatch: pytest.MonkeyPatch) -> type[TapeRecorder]:
    """Lets trainers record tapes, and singular values be computed as on a GPU."""

    class Own(TapeRecorder):
        pass

    def recorder_of(device: torch.device, *, wanted: bool) -> Callable[[], CudaRecorder] | None:
        return Own if wanted else None

    def prepared(self: Any, data: Any) -> list[Method]:
        Own.modules = (self.model, *(methods := whole(self, data)))
        return methods

    whole = trainer_module.Trainer._prepared
    monkeypatch.setattr(trainer_module.Trainer, "_prepared", prepared)
    monkeypatch.setattr(trainer_module, "recorder_of", recorder_of)
    monkeypatch.setattr(trainer_module, "check_step", lambda *_: None)  # a GPU's is looked at now and then
    monkeypatch.setattr(nuclear_norm, "by_singular_values", nuclear_norm.by_polar_factor)
    return Own


class DropoutNet(nn.Module):
    """Batch norm and dropout."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        layers = [nn.Conv2d(1, 4, 5, stride=3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten()]
        self.layers = nn.Sequential(*layers, nn.Linear(256, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class MoodyNet(DropoutNet):
    """Another net in each step, by Python's random numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 + random.random() if self.training else 1)


def trained(folder: Path, method: Method, *, graphs: bool, net: type[nn.Module] = DropoutNet, **settings: Any) -> Path:
    """A run of two epochs, each of five full batches and one that is not full."""
    settings = {"epochs": 2, "batch_size": 12, "averaging": 0.9, "watch": "off", "device": "cpu", **settings}
    callbacks = settings.pop("callbacks", ())
    settings = {"precision": "fp32", "channels_last": False, "model": f"{__name__}:{net.__name__}", **settings}
    train(
        Recipe(
            data=str(digits()),
            validation=10,
            validation_steps=2,
            method=method,
            cuda_graphs=graphs,
            **settings,
        ),
        folder,
        callbacks=callbacks,
    )
    return folder


def alike(one: Path, other: Path) -> bool:
    """Whether two runs have the same weights and, but for the time, the same figures."""
    same = files(one)[runs.WEIGHTS] == files(other)[runs.WEIGHTS]
    return same and timeless(one) == timeless(other)


@pytest.mark.parametrize("name", [*sorted(RECORDED), *VARIANTS])
def test_replays_train_what_steps_train(name: str, tmp_path: Path, tape: type[TapeRecorder]) -> None:
    make = VARIANTS.get(name) or partial(build, name, **({"steps": 2} if name in ("PGDAT", "TRADES") else {}))
    one = trained(tmp_path / "one", make(), graphs=False)
    assert tape.count == 0
    other = trained(tmp_path / "other", make(), graphs=True)
    assert alike(one, other) and tape.replays > tape.count > 0
    assert all(event["event"] == "switch" for line in timeless(other) for event in line["events"])


def test_replays_follow_a_radius_that_grows(tmp_path: Path, tape: type[TapeRecorder]) -> None:
    one, other = (
        trained(tmp_path / str(graphs), PGDAT(eps=EPS, steps=2), graphs=graphs, eps_warmup=0.6)
        for graphs in (False, True)
    )
    assert alike(one, other) and tape.count == 2 and tape.replays > 4


@pytest.mark.parametrize("name", REGISTRY)
def test_which_methods_are_recorded(name: str) -> None:
    method, model = build(name), DropoutNet()
    method.prepare(model, (1, 28, 28), 10, 80)
    assert (method.graph_key is not None) is (name in RECORDED)


class Ramp(Standard):
    """A weight that rises from step to step, as a number of Python's, which a recording cannot know."""

    graph_key = "promised"

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        step = super().loss(model, x, y, crafted)
        return Step(step.loss * (1 + self.progress), step.logits, step.terms)


class Reading(Standard):
    """Reads its loss back."""

    graph_key = "promised"

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        step = super().loss(model, x, y, crafted)
        assert float(step.loss.detach()) >= 0
        return step


class Growing(Standard):
    """Counts its steps in a buffer, which must not count those that are only tried."""

    steps: Tensor

    graph_key = "promised"

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        self.steps.add_(1)
        return super().craft(model, x, y, batch)


def notes(folder: Path) -> list[str]:
    return [event["text"] for line in timeless(folder) for event in line["events"]]


@pytest.mark.parametrize(("method", "reason"), [(Ramp, "a replayed step differs by"), (Reading, "was read back")])
def test_what_cannot_be_replayed_is_noticed_and_trained_step_by_step(
    method: type[Method], reason: str, tmp_path: Path, tape: type[TapeRecorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replayed_step, "BETWEEN_CHECKS", 0)
    one = trained(tmp_path / "one", method(), graphs=False)
    other = trained(tmp_path / "other", method(), graphs=True)
    assert files(one)[runs.WEIGHTS] == files(other)[runs.WEIGHTS] and tape.count == 1
    (note,) = notes(other)
    assert reason in note and note.startswith("CUDA graphs are no longer used")


def test_a_net_that_changes_by_itself_is_noticed(
    tmp_path: Path, tape: type[TapeRecorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replayed_step, "BETWEEN_CHECKS", 2)
    (note,) = notes(trained(tmp_path / "run", Standard(), graphs=True, net=MoodyNet))
    assert "differs" in note


class AssigningNet(DropoutNet):
    """Keeps a running mean in a new tensor each time."""

    mean: Tensor

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.register_buffer("mean", torch.zeros(num_classes))

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        self.mean = 0.9 * self.mean + 0.1 * out.detach().mean(0)
        return out


def test_a_buffer_that_is_assigned_anew_is_seen(tmp_path: Path, tape: type[TapeRecorder]) -> None:
    one = trained(tmp_path / "one", Standard(), graphs=False, net=AssigningNet)
    other = trained(tmp_path / "other", Standard(), graphs=True, net=AssigningNet)
    assert files(one)[runs.WEIGHTS] == files(other)[runs.WEIGHTS] and not tape.count
    (note,) = notes(other)
    assert "a step replaces a buffer" in note


def test_a_method_does_not_inherit_what_its_parent_promised() -> None:
    class Own(Standard):
        def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
            return super().loss(model, x, y, crafted)

    class Renamed(Standard):
        pass

    assert Own().graph_key is None and Renamed().graph_key == Standard().graph_key


class Meddling(Callback):
    """Freezes a layer, puts batch norm at rest, and then listens to a layer."""

    def __init__(self) -> None:
        self.heard = 0

    def on_epoch_start(self, state: TrainingState) -> None:
        layers = next(module for module in state.model.modules() if isinstance(module, DropoutNet)).layers
        if state.epoch == 1:
            next(layers[0].parameters()).requires_grad_(False)
            layers[1].eval()
        if state.epoch == 2:
            layers[5].register_forward_hook(self.listen)

    def listen(self, *_: Any) -> None:
        self.heard += 1


def test_what_a_callback_does_to_the_net_is_heeded(tmp_path: Path, tape: type[TapeRecorder]) -> None:
    heard = []
    for graphs in (False, True):
        callback = Meddling()
        trained(tmp_path / str(graphs), Standard(), graphs=graphs, callbacks=[callback], epochs=3)
        heard.append(callback.heard)
    assert alike(tmp_path / "False", tmp_path / "True") and tape.count == 2  # one with each of the two states
    assert heard[0] == heard[1] > 0


def test_what_is_tried_leaves_no_trace(
    tmp_path: Path, tape: type[TapeRecorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replayed_step, "BETWEEN_CHECKS", 1)
    method = Growing()
    folder = trained(tmp_path / "run", method, graphs=True)
    assert not notes(folder) and tape.replays > 4 and int(method.steps) == 12


def test_a_step_keeps_its_figures_when_the_next_one_is_replayed(tape: type[TapeRecorder]) -> None:
    net, method = DropoutNet(), Standard()
    method.prepare(net, (1, 28, 28), 10, 80)
    tape.modules = (net, method)

    def take(x: Tensor, y: Tensor, batch: Batch) -> Step:
        step: Step = method(net, x, y, batch)
        step.loss.backward()
        return Step(step.loss.detach(), step.logits.detach(), step.terms)

    graphs = ReplayedStep(net, [method], tape)
    count = partial(PassCounter, net)
    images, labels = torch.rand(8, 4, 1, 28, 28), torch.arange(32).view(8, 4) % 10
    done = []
    for number in range(8):
        net.zero_grad()
        done.append(graphs("key", images[number], labels[number], a_batch(4, number), number, take, count))
    assert tape.replays == 6 and not graphs.failure
    for number, step in enumerate(done):
        torch.manual_seed(number)
        assert torch.equal(method(net, images[number], labels[number], a_batch(4, number)).loss.detach(), step.loss)


# ---- on a GPU

gpu = pytest.mark.gpu
ON_GPU: dict[str, Any] = {"device": "cuda", "deterministic": True, "epochs": 3}


LARGER = [
    (name, {"precision": "bf16", "channels_last": True, "model": "resnet18"}) for name in ("NuAT", "PGI", "TRADES")
]


@gpu
@pytest.mark.parametrize(("name", "settings"), [*((name, {}) for name in [*sorted(RECORDED), *VARIANTS]), *LARGER])
def test_a_gpu_s_replays_train_what_its_steps_train(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    make = VARIANTS.get(name) or partial(build, name)
    one = trained(tmp_path / "one", make(), graphs=False, **ON_GPU, **settings)
    other = trained(tmp_path / "other", make(), graphs=True, **ON_GPU, **settings)
    assert alike(one, other)
    assert all(event["event"] == "switch" for line in timeless(other) for event in line["events"])


@gpu
def test_a_gpu_replays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0

    class Counted(CudaRecorder):
        def record(self, take: Callable[[], Step], generator: torch.Generator) -> tuple[Step, Callable[[], None]]:
            step, replay = super().record(take, generator)

            def counted() -> None:
                nonlocal count
                count += 1
                replay()

            return step, counted

    monkeypatch.setattr(cuda_graphs, "CudaRecorder", Counted)
    trained(tmp_path / "run", NuAT(eps=EPS), graphs=True, **ON_GPU)
    assert count == (3 * 5 - 2) + (3 - 2)  # full batches, and those that end an epoch


class Drawing(Standard):
    """Draws from torch's generator on the CPU."""

    graph_key = "promised"

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        step = super().loss(model, x, y, crafted)
        return Step(step.loss * (1 + float(torch.rand(()))), step.logits, step.terms)


@gpu
@pytest.mark.parametrize(
    ("method", "reason"), [(Ramp, "a replayed step differs by"), (Reading, "captur"), (Drawing, "on the CPU")]
)
def test_a_gpu_s_run_goes_on_without_replays(
    method: type[Method], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replayed_step, "BETWEEN_CHECKS", 0)
    one = trained(tmp_path / "one", method(), graphs=False, **ON_GPU)
    other = trained(tmp_path / "other", method(), graphs=True, **ON_GPU)
    assert files(one)[runs.WEIGHTS] == files(other)[runs.WEIGHTS]
    (note,) = notes(other)
    assert reason in note


@gpu
@pytest.mark.parametrize("shape", [(64, 10), (10, 64), (128, 100), (7, 7)])
def test_a_gpu_s_nuclear_norm_is_the_sum_of_singular_values(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours, theirs = matrix.cuda().requires_grad_(), matrix.clone().requires_grad_()
    ours_norm, norm = nuclear_norm.nuclear_norm(ours), torch.linalg.matrix_norm(theirs, "nuc")
    ours_norm.backward()
    norm.backward()
    assert ours_norm.item() == pytest.approx(norm.item(), rel=1e-9)
    assert ours.grad is not None and theirs.grad is not None
    torch.testing.assert_close(ours.grad.cpu(), theirs.grad, rtol=1e-6, atol=1e-8)

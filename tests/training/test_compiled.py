"""Nets that torch.compile makes: the same steps as without it, within a step and nowhere else."""

from __future__ import annotations

import copy
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import killed_at, process, refused, small, toughen
from kills import same_end
from torch import Tensor, nn

from toughen import runs
from toughen.core.gradients import input_gradient
from toughen.core.modules import frozen_copy
from toughen.core.objectives import cross_entropy
from toughen.training.compiled import Compiled

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 26 * 26, 10))


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is compiled, in place of compiling it: the calls of each compiled forward."""
    calls: list[Any] = []

    def compile(forward: Any, **settings: Any) -> Any:
        def run(*images: Tensor) -> Tensor:
            calls.append(images)
            return forward(*images)  # type: ignore[no-any-return]

        return run

    monkeypatch.setattr(torch, "compile", compile)
    return calls


def test_only_within_the_block(compiled: list[Any]) -> None:
    model, x = net(), torch.rand(2, 1, 28, 28)
    within = Compiled(model, "default")
    model(x)
    assert not compiled
    with within():
        model(x)
        assert len(compiled) == 1
        copied = frozen_copy(model)
        copied(x)
        assert len(compiled) == 1  # a copy computes by itself
    with pytest.raises(ZeroDivisionError), within():
        raise ZeroDivisionError
    model(x)
    assert len(compiled) == 1 and "forward" not in vars(model)
    other = copy.deepcopy(within)
    assert other.model is not model and other.forward is not within.forward
    with Compiled(model, "off")():
        model(x)
    assert len(compiled) == 1


def test_weights_want_no_gradient_while_images_get_theirs(compiled: list[Any]) -> None:
    """A compiled backward pass serves all that wants a gradient; weights would double its cost for nothing."""
    model, x, y = net(), torch.rand(4, 1, 28, 28), torch.arange(4)
    model[1].weight.requires_grad_(False)
    wanted = input_gradient(model, x, y, cross_entropy).gradient
    seen: list[list[bool]] = []
    model[0].register_forward_hook(lambda *_: seen.append([weight.requires_grad for weight in model.parameters()]))
    with Compiled(model, "default")():
        found = input_gradient(model, x, y, cross_entropy).gradient
        input_gradient(model, x, y, cross_entropy, keep_graph=True)
    before = [True, True, False, True, True, True]
    assert seen == [[False] * 6, before] and [weight.requires_grad for weight in model.parameters()] == before
    assert torch.equal(found, wanted)


def test_what_cannot_be_compiled_is_said(tmp_path: Path) -> None:
    words = small("--eps", 0.2, "--compile", "default", "--out", tmp_path / "run")
    refused(toughen(*words, "--method", "GradAlign"), "GradAlign differentiates gradients", "--compile off")
    refused(toughen(*words, "--method", "AWP", "--method.inner", "GradAlign"), "AWP differentiates gradients")


# What follows runs in processes of its own: here every function checks the shapes that it is given, which Dynamo, the
# compiler's front, cannot trace.


@pytest.mark.slow
def test_a_machine_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "no-compiler"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    ended = process(
        "-m", "toughen", *small("--method", "FBF", "--eps", 0.2, "--compile", "default", "--out", tmp_path / "run")
    )
    assert ended.returncode == 1 and "--compile default failed" in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("method", ["NuAT", "TRADES", "AWP --method.inner PGDAT", "EFGSM"])
def test_steps_are_those_of_the_net_as_it_is(tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    words = small("--method", *method.split(), "--eps", 0.2, "--precision", "fp64")
    assert process("-m", "toughen", *words, "--out", tmp_path / "plain").returncode == 0
    ended = process("-m", "toughen", *words, "--compile", "default", "--out", tmp_path / "compiled")
    assert ended.returncode == 0, ended.stderr
    plain, made = (runs.load(tmp_path / name).state_dict() for name in ("plain", "compiled"))
    for name, value in plain.items():
        assert torch.allclose(made[name], value, rtol=1e-9, atol=1e-9), name
    assert list((tmp_path / "cache").rglob("*.cpp"))  # it was compiled


@pytest.mark.slow
def test_a_compiled_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """In a process that meets the epoch's short batch, for which there are other kernels, at another time."""
    words = small("--method", "NuAT", "--eps", 0.2, "--compile", "default", "--checkpoint_seconds", 0)
    assert process("-m", "toughen", *words, "--out", tmp_path / "whole").returncode == 0
    assert killed_at(7, *words, "--out", tmp_path / "cut").returncode == -signal.SIGKILL
    ended = process("-m", "toughen", *words, "--out", tmp_path / "cut", "--resume")
    assert ended.returncode == 0 and "continues after step 7 of 10" in ended.stderr, ended.stderr
    same_end(tmp_path / "whole", tmp_path / "cut")

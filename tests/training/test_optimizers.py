"""Optimizers against values worked out by hand and against torch's own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import small, toughen
from paths import ROOT
from torch import nn

from toughen.training.muon import orthogonalized
from toughen.training.optimizers import SGD, Adam, AdamW, Muon, Optimizer
from toughen.training.schedules import Constant


def test_optimizers_are_torch_s() -> None:
    def end(optimizer: torch.optim.Optimizer, weight: torch.nn.Parameter) -> float:
        for _ in range(3):
            optimizer.zero_grad()
            (weight**2 / 2).backward()
            optimizer.step()
        return float(weight.detach())

    def weight() -> torch.nn.Parameter:
        return torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    # by hand, gradient w: rate 0.1, momentum 0.5, decay 0.1 turns the gradient into 1.1 w
    w, v = 1.0, 0.0
    for _ in range(3):
        v = 0.5 * v + 1.1 * w
        w -= 0.1 * v
    assert end(SGD(lr=0.1, momentum=0.5, weight_decay=0.1).build([p := weight()]), p) == pytest.approx(w, rel=1e-12)
    # by hand: Adam's first moment and second moment, decay added to the gradient or taken off the weight
    for settings, decoupled in ((Adam, False), (AdamW, True)):
        w, m, s = 1.0, 0.0, 0.0
        for t in range(1, 4):
            gradient = w if decoupled else 1.1 * w
            w -= 0.01 * 0.1 * w if decoupled else 0.0
            m, s = 0.8 * m + 0.2 * gradient, 0.9 * s + 0.1 * gradient**2
            w -= 0.01 * (m / (1 - 0.8**t)) / ((s / (1 - 0.9**t)) ** 0.5 + 1e-8)
        made = settings(lr=0.01, beta1=0.8, beta2=0.9, weight_decay=0.1)
        assert end(made.build([p := weight()]), p) == pytest.approx(w, rel=1e-9)


def test_muon_is_torch_s_on_matrices_and_takes_convolutions_and_vectors() -> None:
    """Against torch.optim.Muon, which multiplies in bfloat16; a convolution is the matrix [out, in * h * w]."""
    wide, tall, kernel = torch.randn(6, 20), torch.randn(20, 6), torch.randn(8, 4, 3, 3)
    settings = Muon(lr=0.1, momentum=0.8, weight_decay=0.5, vector_lr_scale=3.0)
    ours = [torch.nn.Parameter(each.clone()) for each in (wide, tall, kernel)]
    ours[2] = torch.nn.Parameter(ours[2].detach().to(memory_format=torch.channels_last))
    vector = torch.nn.Parameter(torch.tensor([1.0]))
    theirs = [torch.nn.Parameter(each.flatten(1).clone()) for each in (wide, tall, kernel)]
    optimizer = settings.build([*ours, vector])
    reference = torch.optim.Muon(theirs, lr=0.1, momentum=0.8, weight_decay=0.5)
    w, v = 1.0, 0.0
    for _ in range(4):
        for mine, other in zip(ours, theirs, strict=True):
            other.grad = torch.randn(other.shape)
            mine.grad = other.grad.view(mine.shape)
        vector.grad = vector.detach().clone()
        optimizer.step()
        reference.step()
        v = 0.8 * v + w  # by hand: Nesterov's form, three times the rate, no decay
        w -= 0.3 * (w + 0.8 * v)
    for mine, other, before in zip(ours, theirs, (wide, tall, kernel), strict=True):
        moved = (other - before.flatten(1)).norm()
        assert (mine.flatten(1) - other).norm() < 0.03 * moved, mine.shape
    assert vector.item() == pytest.approx(w, rel=1e-6)


def test_a_single_row_is_a_vector_for_muon() -> None:
    """Such as a transformer's position embedding, [1, n, d]."""
    row = torch.nn.Parameter(torch.zeros(1, 3, 4))
    optimizer = Muon(lr=0.1, momentum=0.0, vector_lr_scale=3.0).build([row])
    row.grad = torch.randn(1, 3, 4)
    optimizer.step()
    assert torch.allclose(row, -0.3 * row.grad)


@pytest.mark.parametrize("shape", [(), (8,), (8, 1, 1), (8, 1), (1, 8, 1, 1), (1, 4, 8)])
def test_a_vector_of_any_shape_has_sgd_for_muon(shape: tuple[int, ...]) -> None:
    """A first step of SGD with Nesterov's momentum is 1.95 gradients long; a matrix would move by the rate."""
    parameter = torch.nn.Parameter(torch.zeros(shape))
    parameter.grad = torch.full(shape, 1e-6)
    Muon(lr=0.02, vector_lr_scale=5.0).build([parameter]).step()
    assert torch.allclose(parameter.detach(), torch.full(shape, -0.02 * 5 * 1.95e-6), rtol=1e-5, atol=0)


def test_muon_s_step_has_singular_values_near_1() -> None:
    """Of the exact singular vectors: U (about 1) V^T, in float64 by torch.linalg.svd."""
    u, _, v = torch.linalg.svd(torch.randn(16, 60, dtype=torch.float64), full_matrices=False)
    matrix = u @ torch.diag(torch.linspace(0.2, 20, 16, dtype=torch.float64)) @ v
    found = torch.diagonal(u.T @ orthogonalized(matrix) @ v.T)
    assert 0.65 < found.min() and found.max() < 1.25
    assert torch.allclose(orthogonalized(matrix), u @ torch.diag(found) @ v, atol=1e-10)
    assert torch.allclose(orthogonalized(matrix.T), orthogonalized(matrix).T * (60 / 16) ** 0.5)
    assert not orthogonalized(torch.zeros(3, 4)).any()


def test_muon_takes_each_layer_s_rate_of_the_schedule() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.eye(3))], "lr_scale": scale} for scale in (1.0, 0.5)]
    optimizer = Muon(lr=0.1, weight_decay=0.0).build(groups)
    Constant().set(optimizer, 0.1, 0.0)
    for group in optimizer.param_groups:
        group["params"][0].grad = torch.eye(3)
    optimizer.step()
    moved = [(group["params"][0].detach() - torch.eye(3)).norm().item() for group in optimizer.param_groups]
    assert moved[0] == pytest.approx(2 * moved[1], rel=1e-6) and moved[0] > 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"momentum": 1}, "momentum is 1: it must be in 0..1, below 1"),
        ({"vector_lr_scale": -1}, "optimizer.vector_lr_scale is -1: it must be a finite number, not below 0"),
        ({"weight_decay": float("inf")}, "optimizer.weight_decay is inf"),
    ],
)
def test_muon_refuses_settings_out_of_range(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Muon(**settings)


def test_the_example_in_contributing_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Add an optimizer or a schedule")[2]
    (tmp_path / "own_steps.py").write_text(section.partition("```python\n")[2].partition("```")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    words = "--optimizer own_steps.RMSprop --optimizer.alpha 0.9 --schedule own_steps.Decay --out run".split()
    ended = toughen(*small(*words))
    sys.modules.pop("own_steps", None)
    assert ended.status == 0, ended.err
    rates = [json.loads(line)["lr"] for line in Path("run/metrics.jsonl").read_text().splitlines()]
    steps = [json.loads(line)["step"] for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert rates == pytest.approx([1e-3 * 0.01 ** ((step - 1) / steps[-1]) for step in steps])
    assert "alpha: 0.9" in Path("run/config.yaml").read_text()


def test_an_optimizer_that_needs_a_closure_is_refused() -> None:
    class Own(Optimizer):
        lr = 0.1

        def build(self, parameters: Any) -> Any:
            return torch.optim.LBFGS(parameters)

    class Empty(Own):
        def build(self, parameters: Any) -> Any:
            return None

    with pytest.raises(ValueError, match="Own builds LBFGS, whose step needs a closure"):
        Own().build_checked([nn.Parameter(torch.zeros(1))])
    with pytest.raises(ValueError, match="Empty.build returned NoneType: it must return a torch.optim.Optimizer"):
        Empty().build_checked([nn.Parameter(torch.zeros(1))])

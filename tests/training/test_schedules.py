"""Schedules against values worked out by hand and against torch's own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, CyclicLR, OneCycleLR

from toughen.training.optimizers import SGD
from toughen.training.schedules import Constant, Cosine, Cyclic, CyclicStep, OneCycle, Piecewise, Schedule

STEPS = 20


def rates(schedule: Schedule, steps: int = STEPS) -> list[float]:
    return [schedule.factor(step / steps) for step in range(steps)]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Constant(), {0: 1, 0.5: 1, 1: 1}),
        (Piecewise(), {0: 1, 0.499: 1, 0.5: 0.1, 0.749: 0.1, 0.75: 0.01, 1: 0.01}),
        (Piecewise(milestones=(), gamma=0.5), {0: 1, 1: 1}),
        (Cosine(), {0: 1, 0.5: 0.5, 1: 0, 1 / 3: 0.75}),
        (Cosine(warmup=0.2), {0: 0, 0.1: 0.5, 0.2: 1, 0.6: 0.5, 1: 0}),
        (Cyclic(), {0: 0, 0.25: 0.5, 0.5: 1, 0.75: 0.5, 1: 0}),
        (Cyclic(peak=0.2), {0: 0, 0.1: 0.5, 0.2: 1, 0.6: 0.5, 1: 0}),
        (Cyclic(peak=0), {0: 1, 0.5: 0.5, 1: 0}),
        (Cyclic(peak=1), {0: 0, 0.5: 0.5, 1: 1}),
    ],
)
def test_by_hand(schedule: Schedule, expected: dict[float, float]) -> None:
    assert {at: schedule.factor(float(at)) for at in expected} == pytest.approx(expected, abs=1e-12)
    assert schedule.momentum(0.3) is None


def test_nuat_s_schedule() -> None:
    """The released ResNet-18 of NuAT: 100 epochs at 0.1; epoch -> rate, momentum frozen once the triangle stops."""
    schedule = CyclicStep(cycle_momentum=True)
    rate = {epoch: 0.1 * schedule.factor(epoch / 100) for epoch in range(101)}
    assert rate[0] == 0 and rate[20] == pytest.approx(0.05) and rate[40] == pytest.approx(0.1)
    assert rate[65] == pytest.approx(0.05) and rate[79] == pytest.approx(0.022)
    for epochs, expected in ((range(80, 86), 0.02), (range(86, 91), 0.002), (range(91, 101), 0.0002)):
        assert [rate[epoch] for epoch in epochs] == pytest.approx([expected] * len(epochs))
    momentum = {epoch: schedule.momentum(epoch / 100) for epoch in (0, 20, 40, 65, 80, 90, 99)}
    assert momentum == pytest.approx({0: 0.9, 20: 0.85, 40: 0.8, 65: 0.85, 80: 0.88, 90: 0.88, 99: 0.88})
    assert schedule.first_drop == 0.86


def test_drops_fall_on_whole_epochs() -> None:
    """Shares such as 0.86 are no binary fractions: an epoch's first step must not miss its drop for that."""
    for epochs in range(1, 400):
        schedule = Piecewise(milestones=(0.86,))
        first = next(epoch for epoch in range(epochs + 1) if schedule.factor(epoch / epochs) < 1)
        assert first == -(-86 * epochs // 100)


def test_cyclic_is_torch_s() -> None:
    optimizer = SGD(lr=0.2, momentum=0.9).build([torch.nn.Parameter(torch.zeros(1))])
    theirs = CyclicLR(optimizer, base_lr=0, max_lr=0.2, step_size_up=STEPS // 2, step_size_down=STEPS // 2)
    ours = Cyclic(cycle_momentum=True)
    for step in range(STEPS):
        group = optimizer.param_groups[0]
        assert 0.2 * ours.factor(step / STEPS) == pytest.approx(group["lr"], abs=1e-12)
        assert ours.momentum(step / STEPS) == pytest.approx(group["momentum"], abs=1e-12)
        optimizer.step()
        theirs.step()


def test_cosine_is_torch_s() -> None:
    optimizer = SGD(lr=0.2).build([torch.nn.Parameter(torch.zeros(1))])
    theirs = CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        assert 0.2 * Cosine().factor(step / STEPS) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("peak", [0.3, 0.5])
def test_one_cycle_is_torch_s(peak: float) -> None:
    """Torch's peak lies at step pct_start T - 1 and its end at step T - 1."""
    optimizer = SGD(lr=0.2, momentum=0.9).build([torch.nn.Parameter(torch.zeros(1))])
    theirs = OneCycleLR(optimizer, max_lr=0.2, total_steps=STEPS + 1, pct_start=(peak * STEPS + 1) / (STEPS + 1))
    ours = OneCycle(peak=peak)
    for step in range(STEPS + 1):
        group = optimizer.param_groups[0]
        assert 0.2 * ours.factor(step / STEPS) == pytest.approx(group["lr"], abs=1e-12)
        assert ours.momentum(step / STEPS) == pytest.approx(group["momentum"], abs=1e-12)
        optimizer.step()
        if step < STEPS:
            theirs.step()


def test_first_drop() -> None:
    assert [s.first_drop for s in (Constant(), Cosine(), Cyclic(), OneCycle(), Piecewise(), CyclicStep())] == [
        None, None, None, None, 0.5, 0.86,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "make",
    [
        lambda: Piecewise(milestones=(0.7, 0.3)),
        lambda: Piecewise(milestones=(0.5, 1.5)),
        lambda: Cosine(warmup=-0.1),
        lambda: Cyclic(peak=40),
        lambda: OneCycle(peak=-0.1),
        lambda: OneCycle(start=2),
        lambda: OneCycle(low_momentum=1),
        lambda: CyclicStep(peak=0.85),
        lambda: CyclicStep(stop=0.9),
        lambda: Piecewise(gamma=-2),
        lambda: CyclicStep(gamma=float("inf")),
        lambda: Cyclic(low_momentum=7),
        lambda: CyclicStep(high_momentum=1),
    ],
)
def test_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(ValueError):
        make()


@pytest.mark.parametrize("returned", [None, math.nan, -1.0, math.inf, "x"])
def test_a_factor_that_is_no_number_is_refused(returned: Any) -> None:
    class Own(Schedule):
        def factor(self, progress: float) -> Any:
            return returned

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    with pytest.raises(ValueError, match=r"Own.factor\(0.25\) returned .*: it must return a number of 0 or more"):
        Own().set(optimizer, 0.1, 0.25)

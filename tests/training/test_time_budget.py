"""Runs that keep to a time, on a clock that the tests turn themselves, and once on the real one."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import digits, refused, small, toughen
from rich.console import Console
from torch import nn

from toughen.core.types import Batch, Crafted, Images, Labels
from toughen.methods.delayed import Delayed
from toughen.methods.standard import Standard
from toughen.runs.files import read_tensors
from toughen.training import SGD, Constant, Cyclic, Recipe, budget, train, training_state
from toughen.training.callbacks import time_budget
from toughen.utils import units


@pytest.mark.parametrize(
    ("text", "expected"), [("90s", 90), ("5m", 300), ("1h30m", 5400), ("1.5h", 5400), ("2m5s", 125), (" 3s ", 3)]
)
def test_a_time_is_read(text: str, expected: float) -> None:
    assert units.parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "90", "5 minutes", "-5s", "0s", "m5", "5s5m"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write one such as 90s, 5m or 1h30m"):
        units.parse_duration(text)


def test_a_time_is_spelled_as_it_is_read() -> None:
    lengths = (0.0, 1.0, 59.2, 60.0, 3661.0, 7200.0)
    assert [units.format_duration(length) for length in lengths] == ["0s", "1s", "1m", "1m", "1h1m1s", "2h"]


class Clock:
    """Seconds that pass only where a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Timed(Standard):
    """Standard training whose steps take the seconds that the clock is turned by."""

    def __init__(self, clock: Clock, seconds: float, later: float | None = None, after: int = 7) -> None:
        super().__init__()
        self.clock, self.seconds, self.later, self.after = [clock], seconds, later, after
        self.seen: list[float] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> Timed:
        made = Timed(self.clock[0], self.seconds, self.later, self.after)  # the clock is everybody's
        memo[id(self)] = made
        return made

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        self.seen.append(self.progress)
        slow = self.later is not None and len(self.seen) > self.after
        self.clock[0].now += self.later if slow and self.later is not None else self.seconds
        return super().craft(model, x, y, batch)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    turned = Clock()
    for module in (budget, time_budget, training_state):
        monkeypatch.setattr(module, "time", turned)
    return turned


def recipe(method: Standard, **settings: Any) -> Recipe:
    base: dict[str, Any] = {"data": str(digits()), "model": "fbf-mnist-cnn", "validation": 10, "batch_size": 16}
    base |= {"method": method, "precision": "fp32", "device": "cpu", "watch": "off", "schedule": Cyclic()}
    return Recipe(**{**base, "optimizer": SGD(lr=0.1), **settings})


def test_as_many_steps_as_fit(tmp_path: Path, clock: Clock) -> None:
    """Steps of a second, five an epoch, all of them tried: 0.97 x 50 - 5 leaves 43."""
    method = Timed(clock, 1.0)
    train(recipe(method, time_budget="50s"), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    tried = len(lines) and clock.now - len(method.seen)
    assert clock.now <= 50 and clock.now > 0.9 * 50
    assert lines[-1]["step"] == len(method.seen) == int(0.97 * 50 - tried)
    assert method.seen == pytest.approx([step / len(method.seen) for step in range(len(method.seen))])
    assert lines[-1]["lr"] < 0.1 / 10  # the end of the cycle


def test_steps_that_become_slower_shorten_the_rest(tmp_path: Path, clock: Clock) -> None:
    """Twice as slow after the first epoch: what is left is laid over half as many steps, without a jump."""
    method = Timed(clock, 1.0, later=2.0)
    train(recipe(method, time_budget="100s"), tmp_path / "run")
    assert 90 < clock.now <= 102
    moves = [b - a for a, b in zip(method.seen, method.seen[1:], strict=False)]
    assert min(moves) > 0 and method.seen[-1] < 1 and method.seen[-1] + moves[-1] == pytest.approx(1)
    assert moves[-1] == pytest.approx(2 * moves[0], rel=0.2)


def test_steps_that_become_much_slower_are_noticed_within_the_epoch(tmp_path: Path, clock: Clock) -> None:
    """Twenty times as slow after twelve of the first epoch's 18 steps, as where Delayed switches.

    Nine are tried, so that the thirteenth ends after 41 seconds: two more of twenty seconds fit into 97.
    """
    method = Timed(clock, 1.0, later=20.0, after=12)
    train(recipe(method, time_budget="100s", batch_size=4), tmp_path / "run")
    (line,) = (json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert line["step"] == len(method.seen) == 13 + 2 and clock.now == 9 + 12 + 3 * 20
    moves = [b - a for a, b in zip(method.seen, method.seen[1:], strict=False)]
    assert min(moves) > 0 and method.seen[-1] + moves[-1] == pytest.approx(1)


class Grown(Timed):
    """Counts as training against a threat, and notes the factor of its perturbations."""

    is_adversarial = True

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        self.scales = [*getattr(self, "scales", []), self.perturbation_scale]
        return super().craft(model, x, y, batch)


@pytest.mark.parametrize("later", [2.0, 0.5])
def test_a_warm_up_of_eps_does_not_jump_where_the_rest_is_planned_anew(
    tmp_path: Path, clock: Clock, later: float
) -> None:
    """It is a share of the run, whatever becomes of the number of steps."""
    method = Grown(clock, 1.0, later=later)
    train(recipe(method, time_budget="100s", eps_warmup=0.6), tmp_path / "run")
    assert method.scales == pytest.approx([min(1.0, progress / 0.6) for progress in method.seen])


def test_delayed_is_told_of_a_longer_run(tmp_path: Path, clock: Clock) -> None:
    """Steps before the switch are four times as fast as the ones after it, which were tried: the run grows.

    The loss does not settle, so that the switch comes after half of the epochs that the run has in the end.
    """
    before, after = Timed(clock, 1.0), Timed(clock, 4.0)
    method = Delayed(before=before, after=after, sensitivity=1e9)
    train(recipe(method, time_budget="400s"), tmp_path / "run")  # type: ignore[arg-type]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    (switch,) = (line["epoch"] + 1 for line in lines if line["events"])
    assert 0.4 * 400 < clock.now <= 400 and after.seen
    assert 0.4 < min(after.seen) < 0.55, (switch, len(lines))


def test_steps_that_become_faster_within_a_single_epoch_fill_the_time(tmp_path: Path, clock: Clock) -> None:
    """Four times as fast after 12 of the first epoch's 70 steps, as where another program was busy at first.

    Nine are tried, 36 seconds, so that 0.97 x 327 - 36 leaves 70 steps of 4 seconds, one epoch. Of the 327 seconds 84
    have passed after 12 steps; at a second each 233 more fit into 317.
    """
    method = Timed(clock, 4.0, later=1.0, after=12)
    train(recipe(method, time_budget="327s", batch_size=1), tmp_path / "run")
    assert 0.8 * 327 < clock.now <= 327 + 1 and len(method.seen) == 12 + 233
    moves = [b - a for a, b in zip(method.seen, method.seen[1:], strict=False)]
    assert min(moves) > 0 and method.seen[-1] + moves[-1] == pytest.approx(1)
    assert max(moves[40:]) < 2 * min(moves[40:])  # laid out while most of the schedule was to come
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines[:3]] == [70, 140, 210]


def test_slow_steps_are_tried_for_a_small_share_of_the_time(tmp_path: Path, clock: Clock) -> None:
    """Of 100 seconds 10 are enough to try steps of three seconds each: four of them, the first three to warm up."""
    method = Timed(clock, 3.0)
    train(recipe(method, time_budget="100s", batch_size=8), tmp_path / "run")
    assert clock.now - 3 * len(method.seen) == 4 * 3 and 80 <= clock.now <= 100


def test_too_short_a_time_is_refused_with_one_that_would_do(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(ValueError, match="--time-budget 9s is too short: an epoch of 5 steps takes 5s here") as found:
        train(recipe(Timed(clock, 1.0), time_budget="9s"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    enough = str(found.value).rsplit(" ", 1)[1]
    clock.now = 0.0
    train(recipe(Timed(clock, 1.0), time_budget=enough), tmp_path / "run")


def test_what_is_tried_leaves_no_trace(tmp_path: Path, clock: Clock) -> None:
    """The same weights as a run of as many epochs without a time, where an epoch's end is the run's."""
    method = Timed(clock, 1.0)
    made = train(recipe(method, time_budget="40s", schedule=Constant()), tmp_path / "timed")
    epochs, rest = divmod(len(method.seen), 5)
    assert epochs >= 2
    kept = [5 * epochs]
    timed = train(recipe(Timed(clock, 1.0), time_budget="40s", schedule=Constant(), keep_at=kept), tmp_path / "again")
    plain = train(recipe(Timed(clock, 1.0), epochs=epochs, schedule=Constant(), keep_at=kept), tmp_path / "plain")
    name = f"kept/step-{kept[0]}.safetensors"
    for key, value in read_tensors(plain / name)[0].items():
        assert torch.equal(value, read_tensors(timed / name)[0][key])
    assert made.exists() and rest >= 0


def test_moments_after_the_end_are_told_of(tmp_path: Path, clock: Clock) -> None:
    told = Console(file=io.StringIO(), width=200)
    timed = recipe(Timed(clock, 1.0), time_budget="50s", keep_at=[4, 500, "epoch 90"])
    folder = train(timed, tmp_path / "run", console=told)
    assert isinstance(told.file, io.StringIO)
    said = told.file.getvalue().splitlines()[-1]
    assert said == "--keep-at 500, epoch 90: no weights are kept, as the run ended after 43 steps (9 epochs)"
    assert [each.name for each in (folder / "kept").iterdir()] == ["step-4.safetensors"]


@pytest.mark.slow
def test_stopped_and_gone_on_with(tmp_path: Path) -> None:
    """The plan lies in the checkpoint; other words for the time are another run."""
    words = small("--time-budget", "12s", "--optimizer.lr", "0.01", "--out", tmp_path / "run")  # 0.1 may diverge
    ended = toughen(*words)
    assert ended.status == 0, ended.err
    again = toughen(*words, "--resume")
    assert again.status == 0 and "finished already" in again.err
    refused(toughen(*["13s" if word == "12s" else word for word in words], "--resume"), "other settings", "12s")


def test_two_ends_are_refused() -> None:
    refused(toughen("train", "demo", "--time-budget", "5m", "--stop_epoch", 2, "--out", "x"), "give one of them")


@pytest.mark.slow
def test_ninety_seconds_on_the_embedded_data(tmp_path: Path) -> None:
    started = time.perf_counter()
    ended = toughen("train", "demo", "--time-budget", "90s", "--out", tmp_path / "run")
    took = time.perf_counter() - started
    assert ended.status == 0, ended.err
    assert 81 <= took <= 99
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["lr"] < 0.01 * max(line["lr"] for line in lines)

"""Evaluations that keep to a time, where a pass costs what the tests say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest
import torch
from commands import digits, refused, toughen
from paths import NETS

import toughen as package
from toughen import data
from toughen.attacks import FGSM, PGD, Square
from toughen.evaluation import budget
from toughen.evaluation.config import EvaluationConfig
from toughen.evaluation.evaluate import from_function
from toughen.evaluation.job import Job
from toughen.evaluation.target import EvaluationTarget

NET = NETS / "pgd-at"
ATTACKS = {"fgsm": FGSM(eps=0.3), "pgd-20": PGD(eps=0.3, steps=20)}  # 3 + 41 forward equivalents an image


@pytest.fixture
def costly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass takes a hundredth of a second."""
    monkeypatch.setattr(budget, "_price", lambda *asked: 0.01)


def candidate() -> EvaluationTarget:
    test = data.load("mnist-5k").test
    return from_function(package.load(NET), test, eps=0.3, norm="linf", limit=None, seed=0)


def room(
    time: str,
    out: Path | None = None,
    *,
    verdict: bool = False,
    depth: Literal["cheap", "whole"] | None = None,
    seed: int = 0,
    details: bool = False,
) -> EvaluationTarget:
    whole = candidate()
    how = EvaluationConfig(time_budget=time, verdict=verdict, depth=depth, seed=seed, details=details)
    return budget.fit_to_budget(Job(whole, whole.split, ATTACKS, None, "fp32", how, out, None)).target


def test_as_many_images_as_fit(costly: None) -> None:
    """0.9 x 60 s at 0.44 s an image; the checks' 250,000 passes take 2,500 s, so that 2,833 s leave room for 112."""
    assert len(room("60s").split) == 122
    found = room("2833s", verdict=True, depth="whole")
    assert len(found.split) == int((0.9 * 2833 - 2500) / 0.44) == 112
    counts = torch.bincount(found.split.labels)
    assert counts.max() - counts.min() <= 1  # balanced over the classes
    test = data.load("mnist-5k").test
    assert torch.equal(test.images[found.index], found.split.images) and found.total == len(test)


def test_the_checks_of_the_quick_suite_take_as_long_as_its_attacks_or_20_s(costly: None) -> None:
    """Of 0.9 x 60 s half is for 61 images at 0.44 s; of 0.9 x 40 s all but 20 s is for 36."""
    assert len(room("60s", verdict=True).split) == int(54 / 2 / 0.44) == 61
    assert len(room("40s", verdict=True).split) == int((36 - 20) / 0.44) == 36


def test_the_closer_look_takes_its_time_too(costly: None, tmp_path: Path) -> None:
    """Its 60,000 passes take 600 s; nothing is looked at where nothing is written."""
    assert len(room("1000s", tmp_path, details=True).split) == int((900 - 600) / 0.44) == 681
    assert len(room("500s", details=True).split) == min(len(candidate().split), int(450 / 0.44))


def test_a_query_of_squares_has_a_price_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """44 s of the others' passes and 101 queries at half a second each leave room for 0.9 x 10,000 / 94.5 images."""
    monkeypatch.setattr(budget, "_price", lambda bench, attack, processes: 0.5 if isinstance(attack, Square) else 1.0)
    monkeypatch.setitem(ATTACKS, "square", Square(eps=0.3, queries=100))
    assert len(room("10000s").split) == int(9000 / (44 + 0.5 * 101)) == 95


def test_too_short_a_time_is_refused_with_one_that_would_do(costly: None) -> None:
    with pytest.raises(ValueError, match="--time-budget 4s is too short for these attacks: 10 images take about 5s"):
        room("4s")
    assert len(room("5s").split) == 10


def test_what_was_begun_keeps_its_number(costly: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever the machine does meanwhile; other words are another evaluation; what is through is forgotten."""
    assert len(room("60s", tmp_path).split) == 122
    monkeypatch.setattr(budget, "_price", lambda *asked: 0.02)
    assert len(room("60s", tmp_path).split) == 122
    assert len(room("60s", tmp_path, seed=1).split) == 61
    (tmp_path / budget.NAME).write_text("{")
    assert len(room("60s", tmp_path).split) == 61
    budget.clear_plan(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_price_is_that_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the images in twice the time: a measured budget is neither ten times too large nor too small."""
    found = room("2s")
    assert 10 <= len(found.split) <= 1000
    monkeypatch.setitem(ATTACKS, "square", Square(eps=0.3, queries=1000))
    assert 10 <= len(room("10s").split) <= 1000


def test_on_the_command_line(costly: None, tmp_path: Path) -> None:
    words = (
        "evaluate",
        NET,
        "--data",
        digits(),
        "--attacks",
        "fgsm",
        "--verdict",
        "false",
        "--details",
        "false",
        "--out",
        tmp_path,
    )
    ended = toughen(*words, "--time-budget", "1s")
    assert ended.status == 0, ended.err
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert found["images"] == int(0.9 * 1 / 0.03) == 30 and "interval" in found
    assert not (tmp_path / budget.NAME).exists()
    refused(toughen(*words, "--time-budget", "soon"), "'soon' is not a duration", "5m")
    refused(toughen(*words, "--time-budget", "0.1s"), "too short", "--attacks")

"""When Hybrid switches, on clean losses written by hand, and what it refuses, remembers and reports."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import small, state_of, toughen
from contract import EPS, batch, net
from torch import nn

from toughen.core.types import Crafted, Images, Labels, Step
from toughen.methods.base import Method
from toughen.methods.fast import FBF, FGSMAT
from toughen.methods.hybrid import Hybrid
from toughen.methods.nuat import NuAT
from toughen.methods.pgd_at import PGDAT
from toughen.methods.standard import Standard
from toughen.methods.trades import TRADES


class Told(Standard):
    """Reports the clean losses that a list holds; with ``eps`` it can be cheap or strong."""

    def __init__(self, losses: list[float], *, silent: bool = False) -> None:
        super().__init__()
        self.eps, self.losses, self.silent = EPS, losses, silent
        self.reports_clean = not silent

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        step = super().loss(model, x, y, crafted)
        return Step(step.loss, step.logits, {} if self.silent else {"clean": torch.tensor(self.losses.pop(0))})


def choices(
    losses: list[list[float]], *, silent: bool = False, missed_after: int | None = None, **settings: Any
) -> list[str]:
    """Which method trained each batch of each epoch ("c" or "s"), when the batches' clean losses are these.

    A rescue trains a further epoch after the one of the number ``missed_after``.
    """
    x, y, model = torch.rand(4, 1, 28, 28), torch.arange(4), net()
    told = [loss for epoch in losses for loss in epoch]
    method = Hybrid(cheap=Told(told), strong=Told(told, silent=silent), **settings)
    found = []
    for number, epoch in enumerate(losses):
        line = ""
        for _ in epoch:
            line += "s" if method.now is method.strong else "c"
            if silent and line[-1] == "s":
                told.pop(0)
            method(model, x, y)
            method.after_step(model)
        method.after_epoch({"epoch": number})
        if number == missed_after:
            method.missed_epoch({"epoch": number})
        found.append(line)
    return found


def test_it_answers_a_sudden_drop_and_goes_back_when_the_loss_is_back() -> None:
    """The first epoch's mean is 1.0, so below 0.7 is a drop; windows of two batches."""
    first = [1.2, 0.8, 1.1, 0.9]
    second = [1.0, 0.9, 0.6, 0.6, 0.6, 0.7, 0.9, 0.7, 0.9, 0.9]
    #  means:    0.95      0.6       0.65      0.8       0.9
    assert choices([first, second], threshold=0.3, window=2) == ["cccc", "ccccsssscc"]


def test_the_first_epoch_has_nothing_to_compare_with() -> None:
    assert choices([[9.0, 9.0, 0.1, 0.1, 0.1]], window=1) == ["ccccc"]


def test_after_a_rescue_there_is_nothing_to_compare_with() -> None:
    losses = [[1.0] * 3, [0.5] * 3, [0.5, 0.3, 0.5]]
    assert choices(losses, window=1) == ["ccc", "css", "scs"]
    assert choices(losses, window=1, missed_after=0) == ["ccc", "ccc", "ccs"]


def test_the_mean_is_the_previous_epochs() -> None:
    """Each epoch lies a fifth below the one before: learning, not a drop; the last one lies a third below."""
    losses = [[1.0] * 3, [0.8] * 3, [0.64] * 3, [0.43] * 3]
    assert choices(losses, threshold=0.3, window=1) == ["ccc", "ccc", "ccc", "css"]


def test_a_window_may_span_two_epochs() -> None:
    losses = [[1.0] * 3, [0.5] * 3, [0.5] * 3]  # windows of 2: (1 1) (1 .5) (.5 .5) (.5 .5)
    assert choices(losses, threshold=0.3, window=2) == ["ccc", "ccc", "ssc"]  # the last against the mean 0.5


def test_a_strong_method_without_a_clean_loss_trains_one_window_at_a_time() -> None:
    losses = [[1.0] * 2, [0.1] * 8]
    assert choices(losses, silent=True, threshold=0.3, window=2) == ["cc", "ccssccss"]


def test_more_batches_are_strong_at_a_lower_threshold() -> None:
    losses = [[1.0] * 4, [0.95, 0.85, 0.75, 0.65, 0.55, 0.65, 0.75, 0.85, 0.95, 1.0]]
    counts = [choices(copy.deepcopy(losses), threshold=t, window=1)[1].count("s") for t in (0.1, 0.2, 0.3, 0.4)]
    assert counts == [7, 5, 3, 1]


def test_it_reports_how_much_was_strong() -> None:
    x, y, model = torch.rand(4, 1, 28, 28), torch.arange(4), net()
    told = [1.0] * 4 + [0.1] * 4
    method = Hybrid(cheap=Told(told), strong=Told(told), window=1)
    lines: list[dict[str, Any]] = []
    for epoch in range(2):
        for _ in range(4):
            method(model, x, y)
            method.after_step(model)
        lines.append({"epoch": epoch})
        method.after_epoch(lines[-1])
    assert lines[0] == {"epoch": 0, "strong_share": 0.0, "effective_epochs": "1+0"}
    assert lines[1] == {"epoch": 1, "strong_share": 0.75, "effective_epochs": "2+0.75"}


def test_its_memory_survives_a_stop_within_an_epoch() -> None:
    x, y, model = torch.rand(4, 1, 28, 28), torch.arange(4), net()
    told = [1.0, 1.0, 0.9, 0.2, 0.3, 0.9, 0.9, 0.1, 0.1, 0.1]
    method = Hybrid(cheap=Told(list(told)), strong=Told([]), window=2)
    method.strong.losses = method.cheap.losses
    found = []
    for step in range(len(told)):
        again = Hybrid(cheap=Told(told[step:]), strong=Told([]), window=2)
        again.strong.losses = again.cheap.losses
        again.load_state_dict({**method.state_dict(), **_plain(method)})
        for each in (method, again):
            each(model, x, y)
            each.after_step(model)
            if step == 1:
                each.after_epoch({"epoch": 0})
        assert again.use_strong == method.use_strong and again.get_extra_state() == method.get_extra_state()
        found.append(method.use_strong)
    assert found == [False, False, False, True, True, True, True, True, True, True]


def _plain(method: Method) -> dict[str, Any]:
    extra: dict[str, Any] = json.loads(json.dumps({"_extra_state": method.get_extra_state()}))
    return extra


def test_with_nuat_the_strong_method_is_its_two_step_form() -> None:
    strong = Hybrid(cheap=NuAT(eps=EPS, lam=3)).strong
    assert type(strong).__name__ == "NuAT2" and strong.eps == EPS and vars(strong)["lam"] == 3


@pytest.mark.parametrize("cheap", [FGSMAT(eps=EPS), FBF(eps=EPS), PGDAT(eps=EPS)])
def test_a_cheap_method_without_a_clean_loss_is_refused(cheap: Method) -> None:
    with pytest.raises(ValueError, match=f"clean loss, which {type(cheap).__name__} does not report: take one"):
        Hybrid(cheap=cheap, strong=TRADES(eps=EPS))


class Twice(Standard):
    replays = 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cheap": Standard()}, "Standard trains against no threat, so Hybrid needs strong"),
        ({"cheap": Standard(), "strong": Twice()}, "Standard, which trains 1 times.*Twice, which does 2"),
        ({"cheap": NuAT(eps=EPS), "strong": PGDAT(eps=0.2)}, "different threats"),
        ({"cheap": NuAT(eps=EPS), "strong": PGDAT(eps=EPS, norm="l2")}, "different threats"),
        ({"cheap": NuAT(eps=EPS), "threshold": 0}, "threshold"),
        ({"cheap": NuAT(eps=EPS), "threshold": 1}, "threshold"),
        ({"cheap": NuAT(eps=EPS), "window": 0}, "window"),
    ],
)
def test_what_cannot_work_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Hybrid(**settings)


def test_only_the_method_that_is_its_turn_trains(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method = Hybrid(cheap=NuAT(eps=EPS), strong=PGDAT(eps=EPS, steps=2))
    for strong, term in ((False, "nuclear"), (True, "robust")):
        method.use_strong = strong
        assert term in method(copy.deepcopy(model), x, y, batch(len(x))).terms


def test_a_run_prints_effective_epochs(tmp_path: Path) -> None:
    """A threshold next to 0 calls the strong method as soon as the clean loss falls at all."""
    out = tmp_path / "run"
    words = "--method Hybrid --method.cheap TRADES --method.strong TRADES --method.strong.steps 2 --method.window 2"
    ended = toughen(*small("--out", out, *words.split(), "--method.threshold", 1e-6, "--eps", 0.1))
    assert ended.status == 0, ended.err
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["effective_epochs"] == "1+0" and lines[1]["strong_share"] > 0
    explained = f"  effective epochs {lines[1]['effective_epochs']} (epochs so far + those of the strong method)"
    assert explained in ended.err.splitlines() and len(explained) < 80
    assert "method.window_sum" in state_of(out)

"""When Delayed switches, by hand-made losses and in a real run, and that the switch is told and remembered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import refused, small, toughen
from contract import EPS, batch, net

from toughen.core.types import Images, Labels, Plan
from toughen.methods.base import Method
from toughen.methods.delayed import Delayed
from toughen.methods.nuat import NuAT
from toughen.methods.pgd_at import PGDAT
from toughen.methods.standard import Standard


def epochs_before(method: Delayed, losses: list[float], first_drop: float | None = None) -> tuple[int, list[Any]]:
    """After how many epochs with these clean losses the method switches, and the events it wrote."""
    epochs = len(losses)
    method.start(Plan(epochs=epochs, steps=10 * epochs, images=640, first_drop=first_drop))
    events: list[Any] = []
    for epoch, loss in enumerate(losses):
        method.progress = epoch / epochs
        if method.now is method.after:
            return epoch, events
        metrics: dict[str, Any] = {"epoch": epoch, "terms": {"clean": loss}, "events": events}
        method.after_epoch(metrics)
    return epochs, events


def test_it_switches_when_the_loss_has_settled() -> None:
    """1.0 -> 0.5 changes by 50 %, 0.5 -> 0.4 by 20 %, 0.4 -> 0.37 by 7.5 %."""
    losses = [1.0, 0.5, 0.4, 0.37, 0.36, 0.35, 0.34, 0.33, 0.33, 0.33]
    for threshold, expected in [(0.6, 2), (0.21, 3), (0.1, 4)]:
        method = Delayed(after=PGDAT(eps=EPS), threshold=threshold, latest=1)
        found, events = epochs_before(method, losses)
        assert found == expected
        (event,) = events
        assert event["event"] == "switch" and event["to"] == "PGDAT" and event["epoch"] == expected
        assert "settled" in event["text"]


def test_a_loss_that_rises_again_has_not_settled() -> None:
    found, _ = epochs_before(Delayed(after=PGDAT(eps=EPS), threshold=0.1, latest=1), [0.4, 0.6, 0.9, 0.95, 0.9])
    assert found == 4  # 0.9 -> 0.95 is the first change below 10 %


@pytest.mark.parametrize(
    ("first_drop", "latest", "expected"), [(0.6, None, 6), (0.65, None, 6), (None, None, 5), (0.6, 0.3, 3)]
)
def test_it_switches_at_the_latest_before_the_rate_drops(
    first_drop: float | None, latest: float | None, expected: int
) -> None:
    method = Delayed(after=PGDAT(eps=EPS), threshold=0, latest=latest)
    found, events = epochs_before(method, [2.0**-n for n in range(10)], first_drop)
    assert found == expected and "about to drop" in events[0]["text"]


def test_it_switches_when_it_is_told() -> None:
    assert epochs_before(Delayed(after=PGDAT(eps=EPS), switch_epoch=3), [1.0] * 6)[0] == 3
    assert epochs_before(Delayed(after=PGDAT(eps=EPS), switch_epoch=0), [1.0] * 6)[0] == 0


def test_a_run_of_one_epoch_trains_what_it_is_for() -> None:
    assert epochs_before(Delayed(after=PGDAT(eps=EPS)), [1.0])[0] == 0


def test_a_bare_loop_trains_what_it_is_for(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method = Delayed(after=PGDAT(eps=EPS, steps=2))
    assert "robust" in method(model, x, y, batch(len(x))).terms


def test_the_switch_is_remembered() -> None:
    method = Delayed(after=PGDAT(eps=EPS), threshold=0.5, latest=1)
    method.start(Plan(epochs=9, steps=90, images=640))
    method.progress = 0.1
    method.after_epoch({"epoch": 0, "terms": {"clean": 1.0}})
    again = Delayed(after=PGDAT(eps=EPS), threshold=0.5, latest=1)
    again.load_state_dict(json.loads(json.dumps(method.state_dict())))
    again.progress = 0.2
    assert again.now is again.before
    again.after_epoch({"epoch": 1, "terms": {"clean": 0.9}})  # against the 1.0 that it was told
    assert again.now is again.after
    third = Delayed(after=PGDAT(eps=EPS))
    third.load_state_dict(json.loads(json.dumps(again.state_dict())))
    third.progress = 0.3
    assert third.now is third.after


def test_it_is_threatened_only_after_the_switch() -> None:
    method = Delayed(after=PGDAT(eps=EPS), switch_epoch=2)
    method.start(Plan(epochs=4, steps=40, images=640))
    method.progress = 0.1
    assert not method.threatened and method.threat is not None
    method.switched = True
    assert method.threatened


class Twice(Standard):
    replays = 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"after": PGDAT(eps=EPS), "switch_epoch": -1}, "must be 0 or more"),
        ({"after": PGDAT(eps=EPS), "threshold": -1}, "threshold"),
        ({"after": PGDAT(eps=EPS), "latest": 2}, "share of the run"),
        ({"after": PGDAT(eps=EPS), "before": PGDAT(eps=EPS)}, "PGDAT reports no clean loss.*switch_epoch"),
        ({"after": PGDAT(eps=EPS), "before": Twice()}, "Twice, which trains 2 times.*PGDAT, which does 1 times"),
    ],
)
def test_what_cannot_work_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Delayed(**settings)


@pytest.mark.parametrize("more", [(), ("--epochs", 9, "--stop_epoch", 2), ("--method.switch_epoch", 2)])
def test_a_switch_that_is_never_reached_is_refused_before_anything_is_written(
    more: tuple[object, ...], tmp_path: Path
) -> None:
    words = ("--method", "Delayed", "--method.after", "PGDAT", "--method.switch_epoch", 3, "--eps", 0.1)
    ended = toughen(*small("--out", tmp_path / "run", *words, *more))
    refused(ended, "is never reached by Delayed", "the run ends after 2 epochs, all of Standard", "give a smaller one")
    assert not (tmp_path / "run").exists()


def test_a_run_switches_says_so_and_costs_less(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ("--method", "Delayed", "--method.after", "PGDAT", "--method.switch_epoch", 1, "--eps", 0.1)
    ended = toughen(*small("--out", out, "--epochs", 3, *words))
    assert ended.status == 0 and "PGDAT from now on: as told" in ended.err
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [round(line["passes"]) for line in lines] == [3, 23, 23]
    assert [line["gamma"] for line in lines] == pytest.approx([0, 10, 10])
    assert [event["event"] for event in lines[0]["events"]] == ["switch"] and not lines[1]["events"]
    assert "clean" in lines[0]["terms"] and "robust" in lines[2]["terms"]


@pytest.mark.parametrize("after", [NuAT(eps=EPS), PGDAT(eps=EPS)])
def test_the_threat_is_that_of_the_second_method(after: Method) -> None:
    assert Delayed(after=after).threat == after.threat

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
from toughen.methods.delayed import Delayed, lead_lost
from toughen.methods.nuat import NuAT
from toughen.methods.pgd_at import PGDAT
from toughen.methods.standard import Standard


def epochs_before(
    method: Delayed, losses: list[float], first_drop: float | None = None, trained: int | None = None
) -> tuple[int, list[Any]]:
    """After how many epochs with these clean losses the method switches, and the events it wrote."""
    epochs = len(losses)
    method.start(Plan(epochs=epochs, steps=10 * epochs, images=640, first_drop=first_drop, trained=trained))
    events: list[Any] = []
    for epoch, loss in enumerate(losses):
        method.progress = epoch / epochs
        if method.now is method.after:
            return epoch, events
        metrics: dict[str, Any] = {"epoch": epoch, "terms": {"clean": loss}, "events": events}
        method.after_epoch(metrics)
    return epochs, events


def test_it_switches_at_the_knee_by_hand() -> None:
    """1, 1/2, 1/4, ...: after n epochs (1 - 2^-t) / (1 - 2^-(n - 1)) of the fall is done at epoch t of 0 to n - 1.

    n = 4: at t = 1 a fall of 1/2 out of 7/8 is 4/7, on the line 1/3; ahead by 3 * 4/7 - 1 = 5/7 epochs. n = 5: at t = 2
    4 * (3/4) / (15/16) - 2 = 6/5. n = 6: at t = 2 5 * (3/4) / (31/32) - 2 = 58/31, below 2; n = 7: at t = 2
    6 * (3/4) / (63/64) - 2 = 18/7.
    """
    losses = [2.0**-n for n in range(12)]
    assert [lead_lost(losses[:n]) for n in (4, 5, 6, 7)] == pytest.approx([5 / 7, 6 / 5, 58 / 31, 18 / 7])
    for sensitivity, expected in [(0.7, 4), (1, 5), (1.8, 6), (2, 7), (2.5, 7)]:
        method = Delayed(after=PGDAT(eps=EPS), sensitivity=sensitivity, latest=1)
        found, events = epochs_before(method, losses)
        assert found == expected
        (event,) = events
        assert event["event"] == "switch" and event["to"] == "PGDAT" and event["epoch"] == expected
        assert "settled" in event["text"]


def test_a_loop_that_tells_no_length_is_asked_for_it() -> None:
    """It switched after the first epoch, because the learning rate was about to drop, as it said."""
    method = Delayed(after=PGDAT(eps=EPS))
    method.progress = 0.1
    with pytest.raises(ValueError, match="not told the length of the run, .*: call its start with a plan"):
        method.after_epoch({"epoch": 0, "terms": {"clean": 1.0}})


def test_a_loop_that_sets_no_progress_may_end_its_epochs_as_it_likes() -> None:
    method = Delayed(after=PGDAT(eps=EPS))
    method.after_epoch({})
    assert method.now is method.after


def test_a_number_needs_no_plan_and_no_terms() -> None:
    method = Delayed(after=PGDAT(eps=EPS), switch_epoch=2)
    method.progress = 0.1
    method.after_epoch({"epoch": 0})
    assert method.now is method.before
    method.after_epoch({"epoch": 1})
    assert method.now is method.after


def test_a_flat_epoch_counts_one() -> None:
    """From 2 to 0 at once, then flat: after n epochs the curve was ahead by n - 2 epochs."""
    losses = [2.0] + 11 * [0.0]
    assert [lead_lost(losses[:n]) for n in range(1, 9)] == pytest.approx([0, 0, 1, 2, 3, 4, 5, 6])
    assert epochs_before(Delayed(after=PGDAT(eps=EPS), latest=1), losses)[0] == 7


def test_a_noisy_plateau_is_one() -> None:
    """From 1.0 to 0.2, then 0.2 +- 0.1 in turn: after 8 epochs, the last of them high, the fall is from 1.0 to 0.1.

    At epoch 2 all of it is done, 7 - 2 = 5 epochs ahead; at the end 7 * 0.7 / 0.9 - 7 = -14 / 9.
    """
    losses = [1.0] + 6 * [0.3, 0.1]
    assert lead_lost(losses[:8]) == pytest.approx(5 + 14 / 9)
    assert epochs_before(Delayed(after=PGDAT(eps=EPS), sensitivity=6.5, latest=1), losses)[0] == 8


@pytest.mark.parametrize(
    "losses",
    [
        [12.0 - n for n in range(12)],  # at the same pace to the end
        [1.0 - 2.0 ** (n - 12) for n in range(12)],  # faster and faster
        [0.4 + 0.1 * n for n in range(12)],  # rising
        [1.0] * 12,
        [1.0, 0.9, 1.1, 0.95, 1.05, 1.0, 1.1, 1.0, 1.05, 1.0, 1.1, 1.0],  # no fall to speak of
    ],
)
def test_a_loss_that_does_not_converge_has_no_knee(losses: list[float]) -> None:
    found, events = epochs_before(Delayed(after=PGDAT(eps=EPS), latest=0.75), losses)
    assert found == 9 and "about to drop" in events[0]["text"]


MNIST = [0.3187, 0.0822, 0.0547, 0.0417, 0.033, 0.0269, 0.0217, 0.0169, 0.0154, 0.0128, 0.0118, 0.0087]
CIFAR10 = [2.0155, 1.7541, 1.6140, 1.5177, 1.4368, 1.3219, 1.2317, 1.1797, 1.0978, 1.0801, 1.0271, 0.9884, 0.9663]
CIFAR10 += [0.9283, 0.9105, 0.8699, 0.8563, 0.8347, 0.8211, 0.7997, 0.7820, 0.7765, 0.7275, 0.7513]


def test_on_recorded_losses() -> None:
    """docs/results/methods.md has the commands. MNIST after 9 epochs: 0.2365 of 0.3033 are done at epoch 1."""
    assert lead_lost(MNIST[:9]) == pytest.approx(8 * 0.2365 / 0.3033 - 1)
    assert lead_lost(MNIST[:8]) == pytest.approx(7 * 0.2365 / 0.3018 - 1)
    assert [epochs_before(Delayed(after=PGDAT(eps=EPS), latest=1), each)[0] for each in (MNIST, CIFAR10)] == [9, 18]


@pytest.mark.parametrize(
    ("first_drop", "latest", "expected"), [(0.6, None, 6), (0.65, None, 6), (None, None, 5), (0.6, 0.3, 3)]
)
def test_it_switches_at_the_latest_before_the_rate_drops(
    first_drop: float | None, latest: float | None, expected: int
) -> None:
    method = Delayed(after=PGDAT(eps=EPS), sensitivity=20, latest=latest)
    found, events = epochs_before(method, [2.0**-n for n in range(10)], first_drop)
    assert found == expected and "about to drop" in events[0]["text"]


@pytest.mark.parametrize(
    ("trained", "latest", "expected", "why"),
    [(4, None, 2, "be stopped"), (1, None, 0, ""), (6, None, 5, "about to drop"), (4, 0.25, 3, "about to drop")],
)
def test_a_run_that_is_stopped_early_switches_before(
    trained: int, latest: float | None, expected: int, why: str
) -> None:
    """Of twelve epochs; the rate first drops after five (0.45)."""
    method = Delayed(after=PGDAT(eps=EPS), sensitivity=20, latest=latest)
    found, events = epochs_before(method, [2.0**-n for n in range(12)], 0.45, trained)
    assert found == expected and len(events) == bool(why)
    assert all(why in event["why"] for event in events)


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
    method = Delayed(after=PGDAT(eps=EPS), sensitivity=0.9, latest=1)
    method.start(Plan(epochs=9, steps=90, images=640))
    method.progress = 0.1
    method.after_epoch({"epoch": 0, "terms": {"clean": 1.0}})
    method.after_epoch({"epoch": 1, "terms": {"clean": 0.5}})
    again = Delayed(after=PGDAT(eps=EPS), sensitivity=0.9, latest=1)
    again.load_state_dict(json.loads(json.dumps(method.state_dict())))
    again.progress = 0.2
    assert again.now is again.before
    again.after_epoch({"epoch": 2, "terms": {"clean": 0.5}})  # after the 1.0 and 0.5 that it was told
    assert again.now is again.after
    third = Delayed(after=PGDAT(eps=EPS))
    third.load_state_dict(json.loads(json.dumps(again.state_dict())))
    third.progress = 0.3
    assert third.now is third.after


def test_it_is_threatened_only_after_the_switch() -> None:
    method = Delayed(after=PGDAT(eps=EPS), switch_epoch=2)
    method.start(Plan(epochs=4, steps=40, images=640))
    method.progress = 0.1
    assert not method.is_adversarial and method.threat is not None
    method.switched = True
    assert method.is_adversarial


class Twice(Standard):
    replays = 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"after": PGDAT(eps=EPS), "switch_epoch": -1}, "must be 0 or more"),
        ({"after": PGDAT(eps=EPS), "sensitivity": 0}, "sensitivity"),
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


def test_a_switch_is_not_undone_and_a_missed_one_is_made_up_for() -> None:
    """A rescue goes back to an earlier state, and trains epochs that this method does not hear of otherwise."""
    method = Delayed(after=PGDAT(eps=EPS), switch_epoch=3)
    method.progress = 0.1
    early = method.get_extra_state()
    for epoch, now in enumerate([method.before, method.before, method.after]):
        metrics: dict[str, Any] = {"epoch": epoch}
        method.missed_epoch(metrics)
        assert method.now is now and len(metrics.get("events", [])) == (epoch == 2)
    method.set_extra_state(early)
    assert method.now is method.after
    method.missed_epoch(metrics)
    assert len(metrics["events"]) == 1  # told once
    method.forget()
    assert method.now is method.before
    method = Delayed(after=PGDAT(eps=EPS), latest=0.5)  # of ten epochs: the sixth is the first after the switch
    method.start(Plan(epochs=10, steps=100, images=640))
    for epoch in range(5):
        method.progress = epoch / 10
        assert method.now is method.before
        method.missed_epoch({"epoch": epoch})
    assert method.now is method.after

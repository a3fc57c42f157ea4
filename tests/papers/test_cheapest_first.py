"""Several tables within a time: what is done first, where it stops, what it says is left."""

from __future__ import annotations

import _thread
import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from commands import digits, refused, toughen

from toughen.papers import cheapest_first
from toughen.papers import reproduce as command
from toughen.papers.cheapest_first import Group, first
from toughen.papers.costs import cost_of, training_cost
from toughen.papers.published import find
from toughen.papers.scales import SCALES
from toughen.papers.store import Store
from toughen.papers.tasks import make_tasks
from toughen.training.trainer import Trainer


def reproduce(out: Path, *words: object) -> Any:
    return toughen("reproduce", *words, "--scale", "smoke", "--data", digits(), "--out", out)


def test_the_cheapest_per_figure_comes_first() -> None:
    """By hand: 100 + 10 + 10 for two is 60 each, with the third 173; 65 for one; 30 + 40 is 70, + 52 is 61 each."""
    groups = [Group(100, (400, 10, 10)), Group(0, (65,)), Group(30, (40, 52))]
    assert first(groups) == (0, 2)
    groups[0] = Group(0, (400,))  # trained now, and two are measured
    assert first(groups) == (2, 2)
    assert first([groups[0], groups[1]]) == (1, 1)
    assert first([groups[0]]) == (0, 1)


def test_rows_whose_times_are_compared_are_done_whole() -> None:
    """By hand: (10 + 1 + 89) / 2 is 50, although 10 + 1 for one would be 11."""
    timed = Group(10, (1, 89), whole=True)
    assert timed.best() == (50, -2)
    assert first([timed, Group(0, (20,))]) == (1, 1) and first([timed, Group(0, (51,))]) == (0, 2)


def test_a_tie_is_for_more_figures() -> None:
    assert first([Group(0, (5, 5))]) == (0, 2)


def test_what_is_trained_for_one_table_is_cheap_in_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs by hand: each costs 100 to train and 1 for each figure, so the model that more figures need comes first."""
    monkeypatch.setattr(cheapest_first, "cost_of", lambda task, each: 1.0)
    monkeypatch.setattr(
        cheapest_first,
        "training_cost",
        lambda model, store, seen: 0.0 if model.key in seen else seen.add(model.key) or 100.0,
    )
    found = {
        name: make_tasks(find(name), ["mnist"], ["FGSM-AT", "PAP (ours)"], 1, SCALES["smoke"], None)  # type: ignore[arg-type]
        for name in ("pap-table7", "pap-table3", "pap-table5")
    }
    tasks = cheapest_first.next_tasks(found, Store(tmp_path), ())
    assert {task.run_spec.words for task in tasks} == {"fgsm-mnist"}
    assert {task.title for task in tasks} >= {"FGSM-AT on mnist, SmallCNN"} and len(tasks) == 3


def test_what_training_s_record_holds_costs_nothing_to_read(tmp_path: Path) -> None:
    found = make_tasks(find("pap-table7"), ["mnist"], ["FGSM-AT"], 1, SCALES["smoke"], None)  # type: ignore[arg-type]
    ((task, gamma),) = cheapest_first.missing(found, Store(tmp_path))
    assert gamma.of == "gamma" and cost_of(task, gamma) == 0
    assert (
        cheapest_first.cost_of_missing(found, Store(tmp_path))
        == training_cost(task.run_spec, Store(tmp_path), set())
        > 0
    )


def test_it_stops_at_the_limit_says_what_is_left_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    epochs: list[str] = []
    whole = Trainer.run_epoch

    def late(self: Trainer, *more: Any) -> None:
        epochs.append(type(self.method).__name__)
        if len(epochs) == 2:
            _thread.interrupt_main()  # as the limit's end does
            deadlines[-1].passed = True
        whole(self, *more)

    deadlines: list[cheapest_first.Deadline] = []

    class Noted(cheapest_first.Deadline):
        def __init__(self, limit: float | None) -> None:
            super().__init__(limit)
            deadlines.append(self)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "run_epoch", late)
        patched.setattr(command, "Deadline", Noted)
        ended = reproduce(tmp_path, "pap-table7", "--rows", "FGSM-AT", "--time-limit", "2h")
    assert ended.status == 0, ended.err
    lines = ended.out.splitlines()
    assert "stopped at the time limit; the same command continues" in lines
    (left,) = (line.split() for line in lines if re.match(r"pap-table7 +\d+ of", line))
    assert left[:4] == ["pap-table7", "1", "of", "1"] and left[4:] == ["under", "0.1"]
    assert max(len(line) for line in lines if not line.startswith("results: ")) <= 80

    def noted(self: Trainer, *more: Any) -> None:
        epochs.append("again")
        whole(self, *more)

    monkeypatch.setattr(Trainer, "run_epoch", noted)
    again = reproduce(tmp_path, "pap-table7", "--rows", "FGSM-AT", "--time-limit", "2h")
    assert again.status == 0 and "everything is done" in again.out
    assert epochs in (["FGSMAT", "FGSMAT", "again"], ["FGSMAT", "FGSMAT"])  # the first epoch is not trained again


def test_a_limit_counts_what_comes_before_the_first_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*given: Any) -> None:
        time.sleep(20)
        raise AssertionError("not stopped")

    with monkeypatch.context() as patched:
        patched.setattr(command, "make_plan", slow)
        started = time.monotonic()
        ended = reproduce(tmp_path, "all", "--time-limit", "1s")
    assert ended.status == 0, ended.err
    assert time.monotonic() - started < 15  # the wait itself is ended
    assert ended.out == "stopped at the time limit before the first piece of work; the same command continues\n"


def test_several_tables_say_what_is_read_before_the_first_row(tmp_path: Path) -> None:
    ended = reproduce(tmp_path, "pap-table7", "rmgm-table7", "--rows", "Normal", "--time-limit", "1s")
    assert ended.status == 2 and "reading" not in ended.err  # refused before anything is read
    ended = reproduce(tmp_path, "pap-table7", "--rows", "FGSM-AT", "--time-limit", "2h")
    sets = ["reading the images of mnist", "reading the images of cifar10"]
    assert ended.err.splitlines()[:3] == [*sets, "reading the settings of the rows of pap-table7"]


@pytest.mark.parametrize(
    "handler", [signal.default_int_handler, signal.SIG_IGN]
)  # a script's background job ignores it
def test_a_limit_ends_what_runs(handler: Any) -> None:
    before = signal.signal(signal.SIGINT, handler)
    try:
        with cheapest_first.Deadline(0.2) as deadline:
            until = time.monotonic() + 10
            while time.monotonic() < until:
                pass
        assert deadline.passed and time.monotonic() < until and signal.getsignal(signal.SIGINT) == handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_limit_that_ends_at_once_leaves_torch_whole() -> None:
    """Its first convolution imports torch._dynamo, and an import that is interrupted can't be made again."""
    script = (
        "import torch\n"
        "from toughen.papers.cheapest_first import Deadline\n"
        "step = lambda: torch.nn.Conv2d(1, 1, 3, device='meta')(torch.zeros(1, 1, 8, 8, device='meta'))\n"
        "with torch.device('meta'), Deadline(0.3):\n"
        "    while True:\n"
        "        step()\n"
        "with torch.device('meta'):\n"
        "    print(list(step().shape))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout == "[1, 1, 6, 6]\n", done.stderr


def test_only_its_own_interrupt_is_a_limits() -> None:
    with cheapest_first.Deadline(60.0) as deadline:
        pass
    assert not deadline.passed
    with pytest.raises(KeyboardInterrupt), cheapest_first.Deadline(60.0):  # one's own Ctrl-C stays one
        raise KeyboardInterrupt


def test_several_are_run_by_one_command(tmp_path: Path) -> None:
    ended = reproduce(tmp_path, "pap-table1", "pap-table7")
    refused(ended, "pap-table1 only states settings", "leave it out")
    refused(reproduce(tmp_path, "all", "--rows", "FGSM-AT"), "--rows needs exactly one table")
    refused(reproduce(tmp_path, "pap-table7", "--time-limit", "soon"), "is not a duration")


@pytest.mark.parametrize("passed", [True, False])
def test_an_interrupt_at_the_end_of_the_block_is_the_limit_s_or_the_user_s(passed: bool) -> None:
    """The timer fires, or Ctrl-C comes, between the last piece of work and the end of the block."""

    class Late:
        def __enter__(self) -> None:
            deadline.passed = passed
            signal.raise_signal(signal.SIGINT)

        def __exit__(self, *error: object) -> None: ...

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        deadline = cheapest_first.Deadline(60.0)
        deadline._lock = Late()  # type: ignore[assignment]
        with nullcontext() if passed else pytest.raises(KeyboardInterrupt), deadline:
            pass
    finally:
        signal.signal(signal.SIGINT, before)

"""What a reproduction says of how far it is."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from toughen.papers import progress_board
from toughen.papers.progress_board import ProgressBoard, Training

WORK = {"A: train": 100.0, "A: clean": 300.0}


class Clock:
    """Stands in for ``time``."""

    now = 1000.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(progress_board, "time", found)
    return found


def shown(terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100)


def lines(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_the_time_left_counts_only_what_this_call_did(tmp_path: Path, clock: Clock) -> None:
    """Half of the training was there; a quarter of it in 5 s is 5 operations a second, and 325 are left: 65 s."""
    console = shown()
    with ProgressBoard(console, WORK) as told:
        told.begin("A: train")
        training = Training(told, tmp_path, 200, 100)
        clock.now += 5
        training.step(150, 0)
        assert told._left() == "about 1m5s left"
        clock.now += 5  # 50 operations in 10 s, 300 left
        told.end()
    assert lines(console) == ["A: train: continues from 50.0 %", "A: train: done, about 1m left"]


def test_what_comes_before_the_first_step_says_nothing_of_the_time_left(tmp_path: Path, clock: Clock) -> None:
    """Reading data takes 20 s; then 2 operations of 400 take 1 s, so that 398 take 199."""
    with ProgressBoard(shown(), WORK) as told:
        told.begin("A: train")
        clock.now += 20
        training = Training(told, tmp_path, 100)
        clock.now += 1
        training.step(2, 0)
        assert told._left() == "about 3m19s left"
        told.end()
        told.begin("A: clean")
        clock.now += 20  # as a part of what there is to do from now on
        told.resume(0.0)
        assert told._left() == "about 1m3s left"  # 100 in 21 s


def test_a_log_hears_of_a_part_that_lasts(tmp_path: Path, clock: Clock) -> None:
    """Once after ten seconds, then five minutes apart; of what is over before, only that it is done."""
    console = shown()
    with ProgressBoard(console, WORK) as told:
        told.begin("A: train")
        training = Training(told, tmp_path, 1000)
        for second in range(1, 601):
            clock.now += 1
            training.step(second, 0)
        told.end()
        told.begin("A: clean")
        clock.now += 9
        told.at(0.9)
        told.end()
    assert lines(console) == [
        "A: train: 1.0 % done, about 1h6m30s left",  # an operation in 10 s, 399 left
        "A: train: 31.0 % done, about 1h1m30s left",  # 31 in 310, 369 left
        "A: train: done, about 30m left",  # 100 in 600, 300 left
        "A: clean: done",
    ]


def test_a_terminal_has_one_line_alone(tmp_path: Path, clock: Clock) -> None:
    console = shown(terminal=True)
    with ProgressBoard(console, WORK) as told:
        told.begin("A: train")
        training = Training(told, tmp_path, 200, 100)
        clock.now += 20
        training.step(150, 0)
    assert "continues" not in "".join(lines(console)) and "% done" not in "".join(lines(console))

"""Advice where other processes need the cores that training uses."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from toughen.engine import other_programs
from toughen.engine.other_programs import OtherPrograms, Reading, advice, read, used_by_others, work

STAT = """cpu  300 10 60 1900 10 3 3 7 0 0
cpu0 100 10 20 1000 5 3 2 0 0 0
cpu1 200 0 40 900 5 0 1 7 0 0
intr 5 5
ctxt 7
"""  # fields: user nice system idle iowait irq softirq steal guest guest_nice


def test_work_of_the_usable_cores() -> None:
    assert work(STAT, {0}) == 135 and work(STAT, {0, 1}) == 135 + 241 and work(STAT, {3}) == 0


def test_what_others_use_is_the_rest() -> None:
    """In 20 seconds two cores worked 35 seconds, 15 of them for this process."""
    assert used_by_others(Reading(100.0, 50.0, 5.0), Reading(120.0, 85.0, 20.0)) == pytest.approx(1.0)
    assert used_by_others(Reading(100.0, 50.0, 5.0), Reading(120.0, 60.0, 20.0)) == 0  # of clocks that differ


@pytest.mark.parametrize(
    ("others", "threads", "cores", "fewer"),
    [(1.0, 2, 2, 1), (2.0, 8, 8, 6), (0.3, 2, 2, None), (1.0, 1, 2, None), (3.0, 4, 8, None), (2.0, 2, 2, 1)],
)
def test_advice(others: float, threads: int, cores: int, fewer: int | None) -> None:
    said = advice(others, threads, cores)
    assert bool(said) is (fewer is not None)
    assert fewer is None or (f"OMP_NUM_THREADS={fewer} " in said and f"{others} of {cores} cores" in said)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the system has no /proc/stat")
def test_a_busy_process_is_seen() -> None:
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.3)
        first = read()
        time.sleep(2)
        second = read()
    finally:
        busy.kill()
        busy.wait()
    assert first is not None and second is not None and used_by_others(first, second) > 0.5


@pytest.mark.parametrize("content", [None, "", "cpu0 1 2", "cpu0 a b c d e f g"])
def test_a_system_without_the_figures(content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_programs, "STAT", tmp_path / "stat")
    if content is not None:
        (tmp_path / "stat").write_text(content)
    assert OtherPrograms().advice() == ""

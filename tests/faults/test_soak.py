"""Training and evaluation in a loop in one process, at flat memory, open files and disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest
from commands import digits, small

MINUTES = float(os.environ.get("TOUGHEN_SOAK_MINUTES", "4"))
SLACK = {"memory": 12e6, "files": 0, "disk": 0}  # bytes, open files, bytes, from one third of the loops to the next
LOOPS = """
import json, os, shutil, sys, time
from pathlib import Path
from toughen.cli.main import main

minutes, least, leak, out, train, evaluate = json.loads(sys.argv[1])
ends, kept = time.monotonic() + 60 * minutes, []

def toughen(words):
    try:
        main(words)
    except SystemExit as end:
        assert end.code == 0, (words, end.code)

def now():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files = sum(path.stat().st_size for path in Path(out).parent.rglob("*") if path.is_file())
    return {"memory": pages * os.sysconf("SC_PAGE_SIZE"), "files": len(os.listdir("/proc/self/fd")), "disk": files}

while time.monotonic() < ends or len(kept) < least:
    toughen(train)
    toughen(evaluate)
    shutil.rmtree(out)
    kept.append(bytes(range(256)) * (leak // 256))
    print(json.dumps(now()), file=sys.__stderr__, flush=True)
"""


def loops(folder: Path, minutes: float, least: int = 0, leak: int = 0) -> list[dict[str, int]]:
    """What a process held after each of its loops.

    Args:
        folder: where it works.
        minutes: for how long.
        least: loops, however long they take.
        leak: bytes that it keeps of each loop.
    """
    out, quiet = str(folder / "run"), ["--quiet", "--device", "cpu"]
    train = [*map(str, small("--method", "NuAT", "--eps", 0.2, "--averaging", 0.9)), *quiet, "--out", out]
    evaluate = ["evaluate", out, "--data", str(digits()), "--attacks", "fgsm", "pgd-3", "--limit", "20", *quiet]
    evaluate += ["--verdict", "false"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    given = json.dumps([minutes, least, leak, out, train, evaluate])
    command = [sys.executable, "-c", LOOPS, given]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60 * minutes + 500)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]


def growth(found: list[dict[str, int]], name: str) -> list[float]:
    """How much the median rose from one third of the loops to the next; the first third, a warm-up, is left out."""
    third = len(found) // 3
    parts = [found[third : 2 * third], found[2 * third :]]
    return [after - before for before, after in pairwise(median(each[name] for each in part) for part in parts)]


def rising(found: list[dict[str, int]]) -> list[str]:
    """What did not stay flat."""
    return [name for name, slack in SLACK.items() if max(growth(found, name)) > slack]


@pytest.mark.slow
@pytest.mark.timeout(60 * MINUTES + 600)
def test_nothing_grows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """TOUGHEN_SOAK_MINUTES sets how long."""
    found = loops(tmp_path, MINUTES)
    risen = {name: growth(found, name)[0] for name in SLACK}
    with capsys.disabled():
        print(f"\nsoak: {len(found)} loops, {found[-1]['memory'] / 1e6:.0f} MB, from third to third: {risen}")
    assert len(found) > 8 and rising(found) == []


@pytest.mark.slow
def test_a_leak_is_seen(tmp_path: Path) -> None:
    """Of 2 MB a loop: from one third of 30 loops to the next, memory rises by 20 MB."""
    assert rising(loops(tmp_path, 0.0, least=30, leak=2_000_000)) == ["memory"]

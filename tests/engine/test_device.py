"""Which kernels a run uses, and what a result says of where it comes from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import toughen
from toughen.engine.device import choose_kernels


@pytest.fixture(autouse=True)
def kept() -> Iterator[None]:
    before = torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled()
    yield
    torch.backends.cudnn.benchmark = before[0]
    torch.use_deterministic_algorithms(before[1])


def test_kernels_are_timed_unless_they_must_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    choose_kernels(torch.device("cuda"), deterministic=False)
    assert torch.backends.cudnn.benchmark and not torch.are_deterministic_algorithms_enabled()
    choose_kernels(torch.device("cuda"), deterministic=True)
    assert not torch.backends.cudnn.benchmark and torch.are_deterministic_algorithms_enabled()


def test_a_cpu_is_left_alone() -> None:
    before = torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled()
    choose_kernels(torch.device("cpu"), deterministic=True)
    assert (torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled()) == before


def test_a_result_names_the_commit_of_the_checkout(tmp_path: Path) -> None:
    """Asked of git itself; with "+" where a file of the package is another; nothing where there is no checkout."""
    source = Path(toughen.__file__).parent
    shutil.copytree(source, tmp_path / "toughen", ignore=shutil.ignore_patterns("__pycache__"))
    asked = "from toughen.engine.device import commit; print(commit())"

    def said() -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", asked]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True).stdout.strip()

    def git(*words: str) -> str:
        person = ["-c", "user.name=somebody", "-c", "user.email=somebody@localhost"]
        return subprocess.run(["git", *person, *words], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert said() == ""
    git("init", "-q")
    git("add", "toughen/core", "toughen/utils", "toughen/engine/device.py")
    git("commit", "-q", "-m", "some of it")
    assert said() == git("rev-parse", "HEAD")[:12] + "+"  # the rest of the package is not in it
    git("add", "toughen")
    git("commit", "-q", "-m", "all")
    (tmp_path / "notes.txt").write_text("not the package")
    assert said() == git("rev-parse", "HEAD")[:12]

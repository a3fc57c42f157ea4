"""Which kernels a run uses, and of which commit it says it is."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
import torch
from paths import ROOT

from toughen.engine.device import choose_kernels, commit


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


def test_the_commit_is_what_git_says() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("needs a checkout with its history")
    said = [
        subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout
        for words in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "toughen"])
    ]
    commit.cache_clear()
    assert commit() == said[0].strip() + "+" * bool(said[1])

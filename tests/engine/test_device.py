"""Which kernels a run uses, and of which commit it says it is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from paths import ROOT

from toughen import models
from toughen.engine.device import choose_kernels, commit, pick_device, pick_layout


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


@pytest.mark.parametrize("name", ["meta", "nonsense", "cpux"])
def test_a_device_that_computes_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"device '{name}' is not available here"):
        pick_device(name)


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


NARROW_STEPS = """import torch
import torch.nn.functional as F
from toughen import models
from toughen.engine.device import pick_layout
model = models.create("resnet18", 3, (3, 48, 48), width=4).train()
layout = pick_layout(model, torch.device("cpu"), channels_last=True)
model.to(memory_format=layout)
for _ in range(10):
    x = torch.rand(16, 3, 48, 48).contiguous(memory_format=layout)
    F.cross_entropy(model(x), torch.arange(16) % 3).backward()
"""


def test_narrow_strided_convolutions_do_not_crash() -> None:
    """Within ten steps the layout that is quicker elsewhere ended the process; with one thread it may not."""
    done = subprocess.run(
        [sys.executable, "-c", NARROW_STEPS], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-500:])


@pytest.mark.parametrize(("width", "device", "last"), [(8, "cpu", False), (16, "cpu", True), (8, "cuda", True)])
def test_the_layout_of_images(width: int, device: str, last: bool) -> None:
    model = models.create("resnet18", 10, (3, 32, 32), width=width)
    found = [pick_layout(model, torch.device(device), channels_last=wanted) for wanted in (True, False)]
    assert found == [torch.channels_last if last else torch.contiguous_format, torch.contiguous_format]

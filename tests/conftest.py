"""What tests share: a fixed seed, real images, and the data sets that lie outside the repository."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from network import Guard

if TYPE_CHECKING:
    from toughen.core.types import Images, Labels


WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if WORKERS > 1:  # each takes its share of the cores, and so do the commands that it starts
    threads = max(1, (os.cpu_count() or 1) // WORKERS)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)


os.environ["HF_UPDATE_DOWNLOAD_COUNTS"] = "0"  # `datasets`, which tests read with, counts each load on a server
GUARD = Guard()


SLOW_MINUTES = float(os.environ.get("TOUGHEN_SLOW_MINUTES", "inf"))  # a slow test that has not begun by then is skipped
ORDER = os.environ.get("TOUGHEN_SLOW_ORDER", "")  # a commit, so that a slow machine skips others at the next one
STARTED = time.monotonic()
LONGEST = ("test_crash_anywhere.py", "test_installation.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files begin first, so that no core waits for them at the end (`make test-slow` keeps this order)."""

    def place(item: pytest.Item) -> tuple[bool, str]:
        shuffled = sha256(f"{ORDER} {item.nodeid.partition('::')[0]}".encode()).hexdigest() if ORDER else ""
        return item.path.name not in LONGEST, shuffled

    items.sort(key=place)


@pytest.hookimpl(tryfirst=True)  # before fixtures of a module or the session, too
def pytest_runtest_setup(item: pytest.Item) -> None:
    GUARD.on = item.get_closest_marker("network") is None
    GUARD.refused.clear()
    if item.get_closest_marker("slow") and time.monotonic() - STARTED > 60 * SLOW_MINUTES:
        pytest.skip(f"TOUGHEN_SLOW_MINUTES: not begun within {SLOW_MINUTES:g} minutes")
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def refused() -> Iterator[list[str]]:
    """Calls to other machines that were refused: a test that made one fails, even where the error was caught."""
    yield GUARD.refused
    assert not GUARD.refused, f"asked other machines: {GUARD.refused}; a test that must has the mark `network`"


@pytest.fixture(autouse=True)
def seed() -> None:
    """Every test starts from the same state of torch's global generator."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of full data sets that the variable TOUGHEN_DATA names; CI may not do without it."""
    root = os.environ.get("TOUGHEN_DATA")
    if root:
        return Path(root)
    if os.environ.get("CI") == "true":
        pytest.fail("CI needs the data sets: set TOUGHEN_DATA to their folder")
    pytest.skip("needs data sets: set TOUGHEN_DATA to their folder")


@cache
def _first_images() -> tuple[Images, Labels]:
    from toughen.data import load

    train = load("mnist-5k").train
    some = train.take(torch.arange(0, len(train), len(train) // 64)[:64])  # of all classes, even if they lie in order
    return some.images.float() / 255, some.labels


@pytest.fixture
def mnist() -> tuple[Images, Labels]:
    """64 real images, [64, 1, 28, 28] in [0, 1], and their labels; each test has its own copy."""
    x, y = _first_images()
    return x.clone(), y.clone()

"""A net whose robustness is known exactly: no attack may leave less, and a good one leaves hardly more."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from commands import toughen

EXACT, PUBLISHED_PGD, CLEAN = (
    0.9562,
    0.9589,
    0.9811,
)  # of all 10,000 test images (vtjeng/MIPVerify_data: WK17a, eps 0.1)


@pytest.mark.slow
def test_pgd_finds_what_there_is_to_find(data_root: Path, tmp_path: Path) -> None:
    weights = data_root / "models" / "wk17a.pth"
    if not weights.exists():
        needed = f"{weights.name} of vtjeng/MIPVerify_data beside the data sets, in models/"
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI needs {needed}")
        pytest.skip(f"needs {needed}")
    words = f"fbf-mnist-cnn --weights {weights} --data {data_root / 'mnist'} --eps 0.1 --verdict false --details false"
    ended = toughen("evaluate", *words.split(), "--attacks", "pgd-50x2", "pgd-margin-50", "--out", tmp_path / "out")
    assert ended.status == 0, ended.err
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert found["images"] == 10_000 and found["clean_accuracy"] == CLEAN
    assert EXACT <= found["robust_accuracy"] <= PUBLISHED_PGD

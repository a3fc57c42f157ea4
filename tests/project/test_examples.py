"""The scripts in examples/, run as a reader runs them, on real images."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from commands import process
from paths import ROOT

EXAMPLES = ROOT / "examples"
NEEDS = {
    "plain_loop": "torch",
    "timm_style": "timm",
    "with_accelerate": "accelerate",
    "with_lightning": "lightning",
    "with_transformers": "transformers",
}


def test_all_are_here_and_short() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == NEEDS.keys()
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < 60, path


@pytest.mark.parametrize("name", NEEDS)
def test_an_example_runs(name: str, data_root: Path) -> None:
    """Its figures are few images', so that they only have to be figures: nothing stands under attack that was wrong."""
    if importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"needs {NEEDS[name]}: pip install {NEEDS[name]}")
    ended = process(EXAMPLES / f"{name}.py", "--data", data_root / "mnist", "--images", 256, "--epochs", 1)
    assert ended.returncode == 0, ended.stderr
    found = re.search(r"^clean (0\.\d+|1\.000), robust (0\.\d+|1\.000)$", ended.stdout, re.M)
    assert found is not None and 0 < float(found[1]) and float(found[2]) <= float(found[1]), ended.stdout

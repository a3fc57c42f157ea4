"""The page for those who come from another library: both sides of its tables do the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchattacks
from paths import NETS, ROOT

import toughen
from toughen.core.types import Images, Labels

PAGE = (ROOT / "docs" / "how-to" / "come-from-another-library.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(torchattacks\..+)` \| `(toughen\..+)` \|$", PAGE, re.M)
SIZES = {"8/255": "0.25", "2/255": "0.05", "1.0": "2.0", "0.2)": "0.4)"}  # that this net does not withstand


def larger(code: str) -> str:
    for small, large in SIZES.items():
        code = code.replace(small, large)
    return code


@pytest.mark.parametrize(("theirs", "ours"), [row for row in ROWS if "AutoAttack" not in row[0]])
def test_both_sides_find_as_much(theirs: str, ours: str, mnist: tuple[Images, Labels]) -> None:
    """Random starts differ, so that a few images may fall to one alone; of another step size 20 do."""
    x, y = mnist
    model = toughen.load(NETS / "fgsm-at")
    names: dict[str, Any] = {"torchattacks": torchattacks, "toughen": toughen, "model": model, "x": x, "y": y}
    right = [int((model(eval(larger(code), names)).argmax(1) == y).sum()) for code in (theirs, ours)]
    assert abs(right[0] - right[1]) <= 4, right
    assert "FGSM" in theirs or right[0] < int((model(x).argmax(1) == y).sum()) - 5, right  # this net withstands FGSM


def test_the_blocks_of_the_page_run(
    mnist: tuple[Images, Labels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound, module = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
    x, y = mnist
    model = toughen.load(NETS / "fgsm-at")
    names: dict[str, Any] = {"model": model, "x": x, "y": y}
    exec(bound, names)
    assert 0 < float((names["x_adv"] - x).abs().max()) <= 8 / 255 + 1e-6
    (tmp_path / "myattacks.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    settings: dict[str, Any] = {"eps": 0.2, "verdict": False, "details": False}
    theirs = toughen.evaluate(model, (x, y), attacks=["myattacks.TheirPGD-10"], **settings)["robust_accuracy"]
    ours = toughen.evaluate(model, (x, y), attacks=["pgd-10@0.05"], **settings)["robust_accuracy"]
    assert abs(theirs - ours) <= 4 / 64 and ours < 0.9


def test_the_last_rows_are_what_they_say(mnist: tuple[Images, Labels]) -> None:
    model = torch.nn.Sequential(toughen.models.Normalize([0.5], [0.25]), torch.nn.Identity())
    assert torch.equal(model(mnist[0]), (mnist[0] - 0.5) / 0.25)

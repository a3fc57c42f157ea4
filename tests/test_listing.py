"""What the terminal says of results: a model that is blind to single steps must not pass for a robust one."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from commands import toughen
from rich.console import Console

from toughen import listing


def result(fgsm: float, pgd: float, **others: Any) -> dict[str, Any]:
    """What evaluation.json holds, with these accuracies."""
    attacks = {
        "fgsm": {"robust_accuracy": fgsm, "seconds": 0.5, "passes": 300},
        "pgd-20": {"robust_accuracy": pgd, "seconds": 10.0, "passes": 4000},
    }
    return {
        "clean_accuracy": 0.99,
        "robust_accuracy": min(fgsm, pgd),
        "attacks": attacks,
        "images": 100,
        "threat": {"norm": "linf", "eps": 0.3},
        "data": "mnist-5k",
        **others,
    }


def printed(show: Any, *arguments: Any) -> str:
    """What is written to a terminal of 80 columns."""
    console = Console(file=io.StringIO(), width=80)
    show(console, *arguments)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.parametrize(("fgsm", "pgd", "warned"), [(0.98, 0.02, True), (0.92, 0.73, False), (0.50, 0.29, True)])
def test_a_gap_between_fgsm_and_pgd_is_said(fgsm: float, pgd: float, warned: bool) -> None:
    text = printed(listing.print_evaluation, Path("run"), result(fgsm, pgd))
    assert f"{100 * fgsm:.1f} %" in text and f"{100 * pgd:.1f} %" in text
    assert ("not robust" in text) is warned
    assert max(map(len, text.splitlines())) <= 80


def run_with(folder: Path, found: dict[str, Any]) -> Path:
    """A run directory with this evaluation, two epochs of 3 + 5 seconds and 8 passes."""
    folder.mkdir()
    (folder / "evaluation.json").write_text(json.dumps(found))
    lines = [{"seconds": seconds, "passes": 8.0} for seconds in (3.0, 5.0)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_runs_side_by_side(tmp_path: Path) -> None:
    robust, blind = run_with(tmp_path / "a", result(0.92, 0.86)), run_with(tmp_path / "b", result(0.98, 0.0))
    text = printed(listing.print_comparison, [robust, blind])
    assert "92.0 %" in text and "86.0 %" in text and "0.0 %" in text
    assert " 8 " in text and "8.0" in text  # 3 + 5 seconds, 8 passes
    assert "blind" in text and "not measured alike" not in text


def test_runs_that_were_not_measured_alike_are_marked(tmp_path: Path) -> None:
    one = run_with(tmp_path / "a", result(0.9, 0.8))
    other = run_with(tmp_path / "b", result(0.9, 0.8, threat={"norm": "linf", "eps": 0.1}))
    assert "not measured alike" in printed(listing.print_comparison, [one, other])


def test_every_recipe_says_what_it_is() -> None:
    from toughen.settings import recipes

    summaries = {name: listing.recipe_summary(path) for name, path in recipes().items()}
    assert len(summaries) >= 10
    assert all(summary.endswith(".") and len(summary) > 40 for summary in summaries.values()), summaries


@pytest.mark.slow
def test_a_collapsed_model_does_not_pass_for_a_robust_one(tmp_path: Path) -> None:
    words = "demo --method FGSMAT --eps 0.1 --epochs 10 --optimizer Adam --optimizer.lr 0.002 --crop 0 --averaging null"
    assert toughen("train", *words.split(), "--out", tmp_path / "run").status == 0
    found = toughen("evaluate", tmp_path / "run", "--eps", 0.2)  # beyond what it was trained for, FGSM alone is blind
    attacks = json.loads((tmp_path / "run/evaluation.json").read_text())["attacks"]
    assert attacks["fgsm"]["robust_accuracy"] - attacks["pgd-20"]["robust_accuracy"] > 0.2
    assert "not robust" in found.out

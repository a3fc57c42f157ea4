"""`make demo` keeps its promise: it is run whole, with the kernels of an older processor, which CI's own may be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from browser import Browser, check_whole
from commands import refused, toughen
from PIL import Image

from toughen.utils.statistics import percent

AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_demo_ends_with_a_broken_and_a_robust_model(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "toughen", "demo", "--out", str(tmp_path / "demo")]
    environment = {**os.environ, **AVX2}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    results = {
        name: json.loads((tmp_path / "demo" / name / "evaluation.json").read_text()) for name in ("standard", "robust")
    }
    assert all(result["threat"] == {"norm": "linf", "eps": 0.3} for result in results.values())
    assert all(result["images"] == 1000 and "pgd-100x5@0.01" in result["attacks"] for result in results.values())
    assert results["standard"]["robust_accuracy"] < 0.2 < 0.9 < results["standard"]["clean_accuracy"]
    assert results["robust"]["robust_accuracy"] >= 0.8
    trained_by = json.loads((tmp_path / "demo/robust/provenance.json").read_text())["kernels"]
    assert trained_by == "AVX2"
    assert "clean" in ended.stdout and "FGSM" in ended.stdout and "passes a step" in ended.stdout
    assert all(result["verdict"] == "sound" for result in results.values())
    page = (tmp_path / "demo/report.html").read_text(encoding="utf-8")
    assert str(tmp_path / "demo/report.html") in ended.stdout and "So it is not robust" in page
    assert all(percent(result["robust_accuracy"]) in page for result in results.values())
    browser = Browser()
    for width in (360, 1200):
        opened = browser.open(tmp_path / "demo" / "report.html", width)
        check_whole(opened, tmp_path / "demo" / "report.html", width)
        opened.close()
    browser.close()
    with Image.open(tmp_path / "demo" / "picture.png") as picture:
        assert picture.width > 900


@pytest.mark.parametrize("name", ["picture.png", "report.html"])
def test_the_demo_leaves_foreign_files_alone(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"mine")
    refused(toughen("demo", "--out", tmp_path), name, "choose another --out")
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_bytes() == b"mine"


def test_the_demo_asks_for_a_folder_where_out_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("toughen.cli.demo.train", lambda *arguments, **more: pytest.fail("it trains"))
    refused(toughen("demo", "--out", ""), "--out is empty: name a folder, or leave it out")
    assert not any(tmp_path.iterdir())

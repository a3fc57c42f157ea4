"""`toughen doctor`: what it says of this machine, checked against what Python itself says."""

from __future__ import annotations

import io
import json
import platform
import re
import time
import tomllib
from importlib.metadata import PackageNotFoundError, version

import pytest
import torch
from commands import refused, toughen
from paths import ROOT
from rich.console import Console
from torch import nn

from toughen.cli import doctor
from toughen.core.types import Images, Logits
from toughen.engine.speed import passes_per_second


class Slow(nn.Module):
    """Takes 10 ms for a pass of any number of images."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Images) -> Logits:
        time.sleep(0.01)
        return x.flatten(1)[:, :2] * self.weight


def test_passes_are_counted_by_the_clock() -> None:
    """By hand: 20 images in 10 ms are 2,000 a second at most, and on a busy machine not much fewer."""
    assert 700 < passes_per_second(Slow(), torch.rand(20, 1, 2, 2), 0.3) <= 2000


def test_it_says_what_is_here() -> None:
    ended = toughen("doctor", "--json", "--seconds", 0)
    assert ended.status == 0, ended.err
    found = {each["name"]: each for each in json.loads(ended.out)}
    assert found["torch"]["value"] == version("torch") and found["python"]["value"] == platform.python_version()
    assert found["threads"]["figure"] == torch.get_num_threads() and found["gpu"]["figure"] == torch.cuda.device_count()
    assert found["memory"]["figure"] > 1e6 and "passes" not in found


def test_speed_is_measured_within_ten_seconds() -> None:
    started = time.monotonic()
    found = {each.name: each for each in doctor.speed(torch.device("cpu"), 1.0)}
    assert time.monotonic() - started < 10
    assert (found["passes"].figure or 0) > 1 and (found["bf16"].figure or 0) > 0 and "compile" in found


def test_every_package_that_the_project_needs_is_looked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(doctor.NEEDED) == {re.split(r"[>\[]", each)[0] for each in project["dependencies"]}


def test_what_is_missing_is_said_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toughen.cli.doctor.installed", lambda name: "" if name == "onnx" else "1.0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    ended = toughen("doctor", "--quiet", "--seconds", 0)
    assert ended.out == "onnx: missing, for toughen export: pip install 'toughen[onnx]'\n" and ended.status == 0


@pytest.mark.parametrize("package", ["mlflow-skinny", "mlflow"])  # toughen[mlflow] installs the first
def test_mlflow_is_found_as_either_of_its_packages(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def one(name: str) -> str:
        if name == package:
            return "3.17.2"
        raise PackageNotFoundError

    monkeypatch.setattr("toughen.cli.doctor.version", one)
    (found,) = [each for each in doctor.installation() if each.name == "mlflow"]
    assert found.value == "3.17.2" and not found.advice


def test_nothing_is_coloured_under_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[3" not in toughen("doctor", "--seconds", 0).out


def test_bad_words_are_refused() -> None:
    refused(toughen("doctor", "--seconds", -1), "--seconds is -1")
    refused(toughen("doctor", "--seconds", "soon"), "seconds")
    refused(toughen("doctor", "--device", "tpu9"), "device 'tpu9' is not available here")


def test_extras_are_printed_whole() -> None:
    """Brackets are markup to rich, which would swallow them."""
    out = io.StringIO()
    Console(width=100, file=out).print(
        doctor.table([doctor.Finding("timm", "no", None, "pip install 'toughen[timm]'")])
    )
    assert "pip install 'toughen[timm]'" in out.getvalue()

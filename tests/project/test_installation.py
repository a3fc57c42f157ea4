"""An ordinary installation: the wheel, with whatever PyTorch pip takes today, works and says nothing but its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import pytest
from commands import digits
from paths import ROOT

ROOM = 12  # GB: PyTorch's CUDA build as it comes and unpacked, with all the rest
MINUTES = 15  # for pip: some 3 GB from an index
UNREACHED = re.compile(r"No matching distribution found|Could not find a version|ConnectionError|Max retries|timed out")
PERCENT = r"[\d.]+ %"
TESTING = ["mlxtend", "pytest", "pytest-timeout", "pytest-xdist", "beartype", "hypothesis"]  # for tests of timm's nets
SHOWN = ["accelerate", "lightning", "transformers"]  # by the examples
WITH_TIMM = [  # the files that have any
    "models/test_kinds_of_nets.py", "models/test_layers.py", "models/test_export.py", "cli/test_follow_up.py",
    "cli/test_push.py", "runs/test_single_file.py", "training/test_initial.py", "training/test_fine_tuning.py",
]  # fmt: skip
OURS = [  # all that the commands below may say on standard error, line by line
    r"NuAT on \S+,( linf eps 0\.1)?|  linf eps 0\.1",  # a long path takes the line
    r"\S+ \([\d,]+ parameters\), \d+ images \+ \d+ to choose the weights",
    r"2 epochs of \d+ steps, \w+ on (cpu|cuda)",
    r"warning: too few (training|test) images: \d images of each class; with fewer than 20 per",
    r"  class, (results are|accuracy is) not reliable",
    rf"epoch +\d+/2  loss +[\d.]+  clean +{PERCENT}  fgsm +{PERCENT}  pgd +{PERCENT} +[\d.]+ s(  kept)?",
    rf"collapse: accuracy {PERCENT} under FGSM, {PERCENT} under PGD, {PERCENT} on clean images.*",
    rf"(fgsm|pgd): accuracy +{PERCENT}, robust accuracy at most {PERCENT}, .* left",
    r"now the checks of whether the robust accuracy can be trusted",
    r"[\w, %-]+: (.+, \d+ of )?\d+ images; at most about [\w ]+ left",
    r"now some diagnostics on a few images, for the report(; at most about [\w ]+)?",
]


def lacking(reason: str) -> NoReturn:
    """CI may not do without; elsewhere the test is skipped."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI needs {reason}")
    pytest.skip(f"needs {reason}")


def wheel(folder: Path) -> Path:
    """The package's wheel, built from a copy of the sources."""
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "toughen", source / "toughen", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, ".", "-w", str(folder)], cwd=source, check=True)
    (built,) = folder.glob("toughen-*.whl")
    return built


def said(command: Sequence[str | Path], folder: Path, seconds: int) -> subprocess.CompletedProcess[str]:
    """A program run in a folder, without what would lead it to other packages than its own environment's."""
    own = ("PYTHONPATH", "PYTHONHOME", "PYTHONWARNINGS", "VIRTUAL_ENV")
    rest = {name: value for name, value in os.environ.items() if name not in own}
    return subprocess.run(command, cwd=folder, env=rest, capture_output=True, text=True, timeout=seconds)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The programs of a fresh environment that pip filled: toughen, its torch, timm, trackers, what examples need."""
    folder = tmp_path_factory.mktemp("installation")
    free = shutil.disk_usage(folder).free / 1e9
    if free < ROOM:
        lacking(f"{ROOM} GB of disk for a whole PyTorch, and {folder} has {free:.0f}")
    programs = folder / "environment" / ("Scripts" if os.name == "nt" else "bin")
    subprocess.run([sys.executable, "-m", "venv", folder / "environment"], check=True)
    pip = [str(programs / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-cache-dir"]
    try:
        packages = [f"toughen[timm,onnx,mlflow,wandb] @ {wheel(folder).as_uri()}", *TESTING, *SHOWN]
        done = said([*pip, *packages], folder, 60 * MINUTES)
    except subprocess.TimeoutExpired:
        lacking(f"a package index that gives a PyTorch within {MINUTES} minutes")
    if done.returncode and UNREACHED.search(done.stderr):
        lacking(f"a package index ({done.stderr.strip().splitlines()[-1]})")
    assert done.returncode == 0, done.stderr
    yield programs
    shutil.rmtree(folder)  # pytest would keep the gigabytes of three sessions


@pytest.fixture(scope="module")
def command(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Runs `toughen WORDS` in a folder of its own: ends with status 0 and says nothing foreign; its standard output."""
    folder = tmp_path_factory.mktemp("work")

    def run(*words: object) -> str:
        done = said([str(installed / "toughen"), *map(str, words)], folder, 600)
        assert done.returncode == 0, (words, done.stderr)
        assert foreign(done.stderr) == [], words
        return done.stdout

    return run


def foreign(err: str) -> list[str]:
    """The lines of a standard error that are not ours; a progress bar's last state counts as the line it is."""
    lines = [line.rstrip().split("\r")[-1] for line in err.splitlines()]
    return [line for line in lines if line and not any(re.fullmatch(own, line) for own in OURS)]


def test_what_is_not_ours_is_seen() -> None:
    said = 'nanobind: leaked 3 types!\n - leaked type "x"\n'
    assert len(foreign(said)) == 2
    assert foreign("/lib/torch/nn.py:3: UserWarning: old\n  warn('old')\n") and foreign("Traceback (most recent call")
    assert foreign("more restarts change little: restart 0, 4 of 4 images; at most about 32 s left\n") == []
    assert foreign("accuracy falls with eps: PGD-20 at 0.3, 4 of 4 images; at most about 0 s left\n") == []
    assert foreign("an unbounded attack reaches 0 %: unbounded, 4 of 4 images; at most about 9 s left\n") == []
    assert foreign("logits, not probabilities: 20 images; at most about 9 s left\n") == []
    assert foreign("pgd: accuracy 10.0 %, robust accuracy at most 10.0 %, 0 s, about 0 s left\n") == []


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(60 * MINUTES + 900)
@pytest.mark.parametrize("words", ["", "--model timm:resnet10t"], ids=["chosen", "timm"])
def test_a_run_from_its_training_to_its_report(words: str, command: Callable[..., str]) -> None:
    run = "runs/timm" if words else "runs/chosen"
    settings = f"--eps 0.1 --epochs 2 {words} --out {run}"
    assert "images" in command("plan", "--data", digits(), "--eps", "0.1")
    assert f"evaluate them: toughen evaluate {run}" in command("train", "--data", digits(), *settings.split())
    assert "verdict" in command("evaluate", run, "--attacks", "fgsm", "pgd", "--limit", 20)
    assert f"written: {run}.html" in command("report", run, "--out", f"{run}.html")
    assert run.removeprefix("runs/") in command("compare", run)


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(60 * MINUTES + 900)
@pytest.mark.parametrize("what", ["methods", "attacks", "models", "data", "recipes"])
def test_lists(what: str, command: Callable[..., str]) -> None:
    assert len(command("list", what).splitlines()) > 2


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(60 * MINUTES + 900)
def test_trackers(command: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, each in its own form of that."""
    own = {"MLFLOW_TRACKING_URI": (tmp_path / "store").as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"}
    own |= {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path)}
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    words = f"--data {digits()} --eps 0.1 --epochs 2 --out runs/tracked"
    command("train", *words.split(), "--callbacks", "[MLflow, WandB]")
    (metric,) = tmp_path.glob("store/*/*/metrics/validation/pgd")
    assert len(metric.read_text().splitlines()) == 2  # a line for each epoch
    (kept,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert b"validation/pgd" in kept.read_bytes()


def test_every_file_with_tests_of_timm_s_nets_is_named() -> None:
    needs = re.compile(r"needs_timm|importorskip\(\"timm\"\)")
    found = {path for path in (ROOT / "tests").glob("*/test_*.py") if needs.search(path.read_text(encoding="utf-8"))}
    assert found - {Path(__file__)} == {ROOT / "tests" / name for name in WITH_TIMM}


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(60 * MINUTES + 900)
def test_every_example(installed: Path, data_root: Path) -> None:
    """The locked environment has none of the libraries that the examples show."""
    words = ["-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", str(ROOT / "tests/project/test_examples.py")]
    done = said([str(installed / "python"), *words], ROOT, 900)
    found = len(list((ROOT / "examples").glob("*.py")))
    assert done.returncode == 0 and f"{found + 1} passed" in done.stdout and "skipped" not in done.stdout, done.stdout


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(60 * MINUTES + 1800)
def test_timm_s_nets(installed: Path) -> None:
    """timm has no place in the locked environment: it brings torchvision, which is built for one PyTorch."""
    files = [str(ROOT / "tests" / name) for name in WITH_TIMM]
    words = ["-m", "pytest", "-q", "-n0", "-k", "timm", "-p", "no:cacheprovider", *files]
    done = said([str(installed / "python"), *words], ROOT, 1800)
    assert done.returncode == 0 and "needs timm" not in done.stdout, done.stdout[-5000:]
    assert int(re.findall(r"(\d+) passed", done.stdout)[-1]) > 70

"""The checks themselves are on, the environment is the locked one, and the package holds what it needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jaxtyping import TypeCheckError
from packaging.requirements import Requirement
from packaging.version import Version
from paths import ROOT
from torch import Tensor, nn

import toughen
from toughen.core.gradients import logits
from toughen.core.threat import Threat

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def pins(name: str) -> Iterator[Requirement]:
    """The requirements of one lock, without their hashes."""
    for line in (ROOT / "requirements" / name).read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            yield Requirement(line.split("--hash")[0].rstrip(" \\"))


def test_shapes_of_arguments_are_checked() -> None:
    images = torch.zeros(2, 28, 28)  # lacks the channels
    with pytest.raises(TypeCheckError, match="x_adv"):
        Threat("linf", 0.1).project(images, images)


def test_shapes_of_results_are_checked() -> None:
    class Integers(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x), 10, dtype=torch.int64)

    with pytest.raises(TypeCheckError, match="return"):
        logits(Integers(), torch.zeros(2, 1, 28, 28))


def test_warnings_are_errors() -> None:
    with pytest.raises(UserWarning, match="careful"):
        warnings.warn("careful", stacklevel=1)


def test_one_version_everywhere() -> None:
    assert version("toughen") == toughen.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == toughen.__version__
    assert f"\n## {toughen.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_environment_holds_the_locked_versions() -> None:
    for pin in pins("lock.txt"):
        if pin.marker is None or pin.marker.evaluate():
            assert pin.specifier.contains(version(pin.name)), f"{pin} is locked, {version(pin.name)} is installed"


def test_the_installed_torch_is_a_locked_one() -> None:
    (cpu,) = pins("torch-cpu.txt")
    (index,) = (pin for pin in pins("torch.txt") if pin.name == "torch")
    assert cpu.specifier.contains(version("torch")) or index.specifier.contains(version("torch"))
    assert Version(str(cpu.specifier)[2:]) <= Version(str(index.specifier)[2:])  # the index has what is newest


def test_the_old_pin_of_requests_and_torchvision_stay_out() -> None:
    locked = {pin.name: pin for pin in pins("lock.txt")}
    assert Version(str(locked["requests"].specifier)[2:]) >= Version("2.32")
    assert "torchvision" not in locked


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_locks_name_no_package_index(lock: Path) -> None:
    text = lock.read_text()
    assert "--hash=sha256:" in text
    assert "://" not in text and "index-url" not in text


def test_oracles_can_be_imported() -> None:
    for name in ("foolbox", "pyautoattack", "torchattacks"):
        __import__(name)


def test_a_missing_python_is_said_in_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "requirements")
    installer: Any = __import__("install")
    assert installer.find_python(["no-such-python", sys.executable]) == sys.executable
    with pytest.raises(SystemExit, match=r"No Python 3\.11 to 3\.14 .* make PYTHON="):
        installer.find_python(["no-such-python", "false"])


@pytest.mark.slow
def test_a_wheel_holds_the_recipes_and_the_command(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "toughen", tmp_path / "toughen")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", ".", "-w", "dist"]
    subprocess.run(command, cwd=tmp_path, check=True)
    (wheel,) = (tmp_path / "dist").glob("toughen-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    sources = [
        str(path.relative_to(ROOT))
        for kind in ("*.py", "*.yaml", "*.txt", "*.html", "*.css", "*.js")
        for path in (ROOT / "toughen").rglob(kind)
    ]
    assert any(name.endswith(".yaml") for name in sources)
    assert set(sources) <= set(names)
    entry = next(name for name in names if name.endswith("entry_points.txt"))
    assert "toughen = toughen.cli.main:main" in zipfile.ZipFile(wheel).read(entry).decode()

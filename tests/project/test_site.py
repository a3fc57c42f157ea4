"""The documentation site builds without a warning, and has what it promises."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

pytestmark = pytest.mark.slow


def built(root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a tree of files."""
    command = [sys.executable, str(root / "tools" / "build_site.py"), "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.fixture(scope="module", autouse=True)
def mkdocs() -> None:
    if importlib.util.find_spec("mkdocs") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI needs mkdocs: it is in the lock")
        pytest.skip("needs mkdocs-material: pip install 'toughen[docs]'")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "site"
    done = built(ROOT, out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_every_page_is_there_and_reached_from_home(site: Path) -> None:
    home = (site / "index.html").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        if page.name != "README.md":
            place = page.relative_to(ROOT).with_suffix("").as_posix()
            assert (site / place / "index.html").is_file() and f'href="{place}/"' in home, place


@pytest.mark.parametrize(
    ("page", "name"),
    [
        ("toughen", "toughen.evaluation.evaluate.evaluate"),
        ("toughen.methods", "toughen.methods.nuat.NuAT"),
        ("toughen.attacks", "toughen.attacks.pgd.PGD"),
        ("toughen.training", "toughen.training.recipe.Recipe"),
    ],
)
def test_the_api_has_docstrings(page: str, name: str, site: Path) -> None:
    text = (site / "api" / page / "index.html").read_text(encoding="utf-8")
    assert f'id="{name}"' in text and "eps" in text
    assert len(re.findall("doc-contents", text)) > 2


def test_a_link_that_leads_nowhere_ends_the_build(tmp_path: Path) -> None:
    for name in ("docs", "examples", "benchmarks", "tools"):
        (tmp_path / name).mkdir()
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "LICENSE"):
        (tmp_path / name).write_text(f"# {name}\n")
    (tmp_path / "docs" / "README.md").write_text("# All pages\n\n## Guides\n\n- [One](one.md)\n")
    (tmp_path / "docs" / "one.md").write_text("# One\n\n[two](two.md)\n")
    for name in ("mkdocs.yml", "tools/build_site.py"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    done = built(tmp_path, tmp_path / "site")
    assert done.returncode != 0 and "two.md" in done.stdout + done.stderr

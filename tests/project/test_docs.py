"""README and docs: links lead somewhere, the index names all pages, and the reference is what the code says."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

from toughen.evaluation import result
from toughen.evaluation.diagnostics import store
from toughen.runs import directory
from toughen.training import checkpoint, folder

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md", *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s]+)\)")


def prose(path: Path) -> str:
    """A page without its blocks and spans of code."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", lambda span: span[0].strip("`").replace("[", "").replace("(", ""), text)


def anchors(path: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    titles = re.findall(r"^#+ (.+)$", prose(path), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken(path: Path) -> list[str]:
    """The relative links of a page that lead to no file, or to no heading of it."""
    wrong = []
    for link in LINK.findall(prose(path)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_to_a_file_and_a_heading(path: Path) -> None:
    assert broken(path) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# A `Heading`, here\n```\n# no heading\n```\n")
    page = tmp_path / "page.md"
    links = "[a](there.md) [b](gone.md) [c](there.md#a-heading-here) [d](there.md#no-heading) [e](https://a.b/c)"
    page.write_text(f"{links} `[f](code.md)`\n```\n[g](block.md)\n```\n")
    assert broken(page) == ["gone.md", "there.md#no-heading"]


def test_the_index_names_each_page_once() -> None:
    named = LINK.findall((DOCS / "README.md").read_text(encoding="utf-8"))
    pages = [str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md") if path != DOCS / "README.md"]
    assert sorted(name for name in named if not name.startswith("..")) == sorted(pages)


def test_paths_in_the_code_are_those_of_pages() -> None:
    files = [path for folder in ("toughen", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    files += [*(ROOT / "toughen" / "recipes").glob("*.yaml"), ROOT / "benchmarks" / "README.md"]
    found = {name for path in files for name in re.findall(r"\bdocs/[\w/-]+\.md", path.read_text(encoding="utf-8"))}
    assert found and [name for name in found if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_of_the_repository_that_a_page_names_are_there(path: Path) -> None:
    named = re.findall(r"`((?:toughen|tests|benchmarks|results|tools)/[\w./-]+)`", path.read_text(encoding="utf-8"))
    assert [name for name in named if not ((ROOT / name).exists() or (path.parent / name).exists())] == []


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    monkeypatch.delitem(sys.modules, "reference", raising=False)
    return __import__("reference")


def test_the_reference_is_what_its_command_makes(
    reference: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["reference.py", "--out", str(tmp_path)])
    reference.main()
    made = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.glob("*.md")}
    kept = {name: (DOCS / "reference" / name).read_text(encoding="utf-8") for name in made}
    assert len(made) == 6 and made == kept, "run `make docs`"


def test_the_reference_has_every_method_attack_and_setting(reference: Any) -> None:
    page = (DOCS / "reference" / "methods.md").read_text(encoding="utf-8")
    assert "\n| `gamma` | `0.01` | length of the perturbation, relative to each layer's own" in page  # AWP, by hand
    assert "\n| `eps` | `null` | radius, in the units of the images; the step is as long. |\n" in page  # NuAT
    for name in ("methods", "attacks"):
        lines = (DOCS / "reference" / f"{name}.md").read_text(encoding="utf-8").splitlines()
        assert [line for line in lines if re.fullmatch(r"\| `\w+` \| .* \|  \|", line)] == []  # each has a meaning


def test_the_page_of_the_run_directory_names_its_files_and_the_fields_of_its_record() -> None:
    page = (DOCS / "reference" / "run-directory.md").read_text(encoding="utf-8")
    files = {folder.CONFIG, folder.PROVENANCE, directory.METRICS, directory.WEIGHTS, directory.RECORD, directory.SEEN}
    files |= {checkpoint.NAME, checkpoint.PREVIOUS, checkpoint.HEALTHY, result.RESULT, result.LEDGER, result.GALLERY}
    record = page.split("\n## model.json\n")[1].split("\n## ")[0]
    fields = {field.name for field in dataclasses.fields(directory.Record)}
    assert {name for name in files | {store.RESULT} if f"| `{name}` |" not in page} == set()
    assert set(re.findall(r"`(\w+)`", record)) == fields


def test_the_picture_of_methods_is_that_of_the_results(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("method_picture", ROOT / "tools" / "method_picture.py")
    assert spec is not None and spec.loader is not None
    picture = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(picture)
    picture.draw(tmp_path / "methods.svg")
    drawn, kept = ((place / "methods.svg").read_text() for place in (tmp_path, ROOT / "docs" / "images"))
    marks = re.compile(r"<use [^>]*fill: #3f51b5[^>]*>|<text[^>]*>[^<]*</text>")
    assert marks.findall(drawn) == marks.findall(kept) and len(marks.findall(kept)) > 30

"""Build the documentation site: the pages of the repository at their own paths, and API pages from docstrings.

python tools/build_site.py [--out site]

Home is README.md. The navigation is that of docs/README.md, whose headings become sections. A link that leads nowhere
ends the build with an error.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "LICENSE", "docs", "examples", "benchmarks")
ROOMS = {  # of the API pages -> what they hold
    "toughen": "The package",
    "toughen.methods": "Training methods",
    "toughen.attacks": "Attacks",
    "toughen.training": "Training",
    "toughen.evaluation": "Evaluation",
    "toughen.models": "Models",
    "toughen.data": "Data",
}
LINK = re.compile(r"\[([^\]]+)\]\(([^)#]+\.md)")


def public(room: str) -> list[str]:
    """The import paths, where they are defined, of a room's public classes and functions."""
    module = importlib.import_module(room)
    names = [name for name in getattr(module, "__all__", dir(module)) if not name.startswith("_")]
    things = [getattr(module, name) for name in names]
    own = [each for each in things if inspect.isclass(each) or inspect.isfunction(each)]
    return sorted({f"{each.__module__}.{each.__qualname__}" for each in own if each.__module__.startswith("toughen")})


def api(folder: Path) -> dict[str, str]:
    """Write the API pages, and return their titles with their paths."""
    folder.mkdir()
    pages = {}
    for room, title in ROOMS.items():
        blocks = "\n\n".join(f"::: {path}" for path in public(room))
        (folder / f"{room}.md").write_text(f"# {title}: `{room}`\n\n{blocks}\n")
        pages[room] = f"{folder.name}/{room}.md"
    return pages


def navigation(page: str, pages: dict[str, str]) -> list[Any]:
    """The pages that docs/README.md lists, by heading."""
    found: list[Any] = [{"Home": "README.md"}]
    for part in page.split("\n## ")[1:]:
        title, _, rest = part.partition("\n")
        links = {name: os.path.normpath(Path("docs") / path) for name, path in LINK.findall(rest)}
        found.append({title.strip(): [{name.replace("`", ""): path} for name, path in links.items()]})
        if title.strip() == "Reference":
            found[-1]["Reference"] += [{"API": [{name: path} for name, path in pages.items()]}]
    return [*found, {"Contribute": ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "docs/README.md"]}]


def build(out: Path) -> int:
    """Build the site, and return the exit status of the site builder."""
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "source"
        source.mkdir()
        for name in PAGES:
            path = ROOT / name
            if path.is_dir():
                shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.json"))
            else:
                shutil.copy(path, source / name)
        text = (ROOT / "mkdocs.yml").read_text()
        nav = navigation((ROOT / "docs" / "README.md").read_text(), api(source / "api"))
        settings = yaml.safe_dump({"docs_dir": str(source), "site_dir": str(out.absolute()), "nav": nav})
        (Path(place) / "mkdocs.yml").write_text(f"{text}{settings}")
        command = [sys.executable, "-m", "mkdocs", "build", "--strict"]  # --quiet would count no warning
        environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
        command += ["--config-file", str(Path(place) / "mkdocs.yml")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            print(done.stderr, file=sys.stderr)
        return done.returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "site", help="the folder of the site")
    sys.exit(build(parser.parse_args().out))


if __name__ == "__main__":
    main()

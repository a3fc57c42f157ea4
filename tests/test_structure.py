"""Imports go one way, as CONTRIBUTING.md says."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "toughen"
ABOVE = ["training", "evaluation", "commands", "cli"]
FORBIDDEN = {  # a part, and what it must not import
    "types.py": ["threat", "objectives", "gradients", "attacks", "methods", "models", *ABOVE],
    "noise.py": ["threat", "objectives", "gradients", "attacks", "methods", "models", *ABOVE],
    "threat.py": ["objectives", "gradients", "attacks", "methods", "models", *ABOVE],
    "objectives.py": ["gradients", "attacks", "methods", "models", *ABOVE],
    "gradients.py": ["attacks", "methods", "models", *ABOVE],
    "attacks": ["methods", "models", *ABOVE],
    "methods": ["data", *ABOVE],
    "models": ["attacks", "methods", "data", *ABOVE],
    "data": ["attacks", "methods", "models", *ABOVE],
    "evaluation": ["methods", "training", "commands", "cli"],
    "training": ["commands", "cli"],
    "report": [  # whatever imports torch, which a report can do without
        "types",
        "noise",
        "threat",
        "objectives",
        "gradients",
        "blocks",
        "attacks",
        "methods",
        "models",
        "data",
        "device",
        "evaluation",
        "training",
        "runs",
        "settings",
        "commands",
        "cli",
    ],
    "papers": ["attacks", "methods", "models", "data", "reproduction", *ABOVE],
}


def imported(path: Path) -> set[str]:
    """The parts of toughen that a file names in its import statements, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "toughen":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("toughen."):
            found.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("toughen.")}
    return found


@pytest.mark.parametrize("part", FORBIDDEN)
def test_imports_go_one_way(part: str) -> None:
    place = ROOT / part
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    assert files
    wrong = {str(file.relative_to(ROOT)): imported(file) & set(FORBIDDEN[part]) for file in files}
    assert not {file: names for file, names in wrong.items() if names}


EACH_ALONE = """
import importlib, os, sys, torch
failed = []
for name in sys.argv[1:]:
    child = os.fork()  # of a process that has imported nothing of toughen
    if child == 0:
        try:
            importlib.import_module(name)
        except BaseException as error:
            print(name, repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    failed += [name] if os.waitpid(child, 0)[1] else []
print("failed:", failed)
"""


@pytest.mark.slow
def test_every_module_can_be_the_first_that_is_imported() -> None:
    """As processes do that are started anew: which was imported before must not matter."""
    paths = [path.relative_to(ROOT.parent).with_suffix("") for path in ROOT.rglob("*.py") if path.stem != "__main__"]
    names = sorted(".".join(path.parts).removesuffix(".__init__") for path in paths)
    assert len(names) > 200
    done = subprocess.run([sys.executable, "-c", EACH_ALONE, *names], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["failed: []"]

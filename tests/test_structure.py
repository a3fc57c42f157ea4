"""Imports go one way, as CONTRIBUTING.md says."""

from __future__ import annotations

import ast
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

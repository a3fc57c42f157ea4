"""Imports go one way, as CONTRIBUTING.md says."""

from __future__ import annotations

import ast
import subprocess
import sys
import traceback
from collections.abc import Callable, Collection, Mapping
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import digits, toughen
from paths import ROOT
from torch import Tensor

PACKAGE = ROOT / "toughen"
LOOSE = {"__init__.py", "__main__.py", "py.typed"}  # all that may lie outside a room
ROOMS = [  # each imports only rooms above it in this list
    "utils",
    "core",
    "engine",
    "data",
    "models",
    "runs",
    "attacks",
    "methods",
    "evaluation",
    "training",
    "config",
    "papers",
    "report",
    "cli",
]
FORBIDDEN = {  # what the order alone would allow
    "models": ["data"],
    "attacks": ["data", "models", "runs"],
    "methods": ["data", "engine"],
    "evaluation": ["methods"],
    # figures as data, and what reads them
    "papers/published": [room for room in ROOMS if room not in ("papers", "runs", "utils")],
    # whatever imports torch, which a report can do without
    "report": ["core", "engine", "attacks", "methods", "models", "data", "evaluation", "training", "config"],
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


def test_nothing_lies_outside_the_rooms() -> None:
    there = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert there == {*LOOSE, *ROOMS, "recipes"}


def test_attacks_do_not_know_the_engine_s_classifier() -> None:
    """AutoAttack alone makes one, of a plain net that it is called with."""
    files = [file for file in (PACKAGE / "attacks").rglob("*.py") if "engine" in imported(file)]
    assert [file.name for file in files] == ["autoattack.py"]


@pytest.mark.parametrize("room", [*ROOMS, "papers/published"])
def test_imports_go_one_way(room: str) -> None:
    later = ROOMS[ROOMS.index(room) + 1 :] if room in ROOMS else []
    forbidden = {*later, *FORBIDDEN.get(room, [])}
    files = sorted((PACKAGE / room).rglob("*.py"))
    assert files
    wrong = {str(file.relative_to(PACKAGE)): imported(file) & forbidden for file in files}
    assert not {file: names for file, names in wrong.items() if names}


def modules() -> dict[str, Path]:
    """All modules by their import path."""
    paths = {path: path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py")}
    return {".".join(name.parts).removesuffix(".__init__"): path for path, name in paths.items()}


def needed(path: Path, known: Collection[str], *, anywhere: bool = False) -> set[str]:
    """The modules that a file imports as it is imported itself; ``anywhere`` also within functions and for types."""
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if anywhere else tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "toughen":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in known else str(node.module) for name in names}
    return found


def circles(arrows: Mapping[str, Collection[str]]) -> list[set[str]]:
    """Groups of modules that import each other: what is left where modules without open imports are taken away."""
    open_ = {name: set(others) for name, others in arrows.items()}
    while done := [name for name, others in open_.items() if not others & set(open_)]:
        for name in done:
            del open_[name]
    used = set().union(*open_.values()) if open_ else set()
    return [{name} | open_[name] & set(open_) for name in open_ if name in used]


def test_circles_are_seen() -> None:
    assert circles({"a": ["b"], "b": ["c"], "c": []}) == []
    assert {"a", "b"} in circles({"a": ["b"], "b": ["a", "c"], "c": []})


def test_no_modules_import_each_other() -> None:
    known = modules()
    assert circles({name: needed(path, known) - {name, "toughen"} for name, path in known.items()}) == []


@pytest.mark.parametrize("room", ROOMS)
def test_not_even_types_and_functions_go_round_in_a_circle(room: str) -> None:
    """What knows of a type knows of its module: where that knows the first one, both are one module."""
    own = {name: path for name, path in modules().items() if name.split(".")[1:2] == [room] and path.stem != "__init__"}
    assert circles({name: needed(path, own, anywhere=True) & set(own) - {name} for name, path in own.items()}) == []


@pytest.mark.parametrize("method", ["NuAT", "FBF", "TRADES --method.steps 2", "PAP", "AWP --method.inner FBF"])
def test_a_command_only_goes_down_to_the_gradient_and_the_loss(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From `toughen train` to the first derivative towards an image and to the loss's own: few files, each lower."""
    ways: dict[str, list[str]] = {}

    def noting(what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **settings: Any) -> Any:
            files = [Path(frame.filename) for frame in traceback.extract_stack()]
            ways.setdefault(what, [str(file.relative_to(PACKAGE)) for file in files if file.is_relative_to(PACKAGE)])
            return call(*args, **settings)

        return noted

    monkeypatch.setattr(torch.autograd, "grad", noting("gradient", torch.autograd.grad))
    monkeypatch.setattr(Tensor, "backward", noting("loss", Tensor.backward))
    words = [
        "--data",
        digits(),
        "--model",
        "fbf-mnist-cnn",
        "--eps",
        0.3,
        "--epochs",
        1,
        "--validation",
        0,
        "--batch_size",
        10,
    ]
    assert toughen("train", *words, "--method", *method.split(), "--out", tmp_path / "run").status == 0
    assert ways.keys() == {"gradient", "loss"}
    for way in ways.values():
        rooms = [room for room, _ in groupby(file.split("/")[0] for file in way)]
        assert rooms[:2] == ["cli", "training"]
        assert all(ROOMS.index(lower) < ROOMS.index(upper) for upper, lower in pairwise(rooms)), way
        assert len({*way}) <= 12, way
    assert {"core", "methods"} <= {file.split("/")[0] for file in ways["gradient"]}


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
    paths = [
        path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py") if path.stem != "__main__"
    ]
    names = sorted(".".join(path.parts).removesuffix(".__init__") for path in paths)
    assert len(names) > 200
    done = subprocess.run([sys.executable, "-c", EACH_ALONE, *names], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["failed: []"]

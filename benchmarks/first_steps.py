"""Time of the tutorials' commands in a fresh clone: training a net, evaluating it, and training in a plain loop.

python benchmarks/first_steps.py [--write FILE]

The commands are read from docs/tutorials and run in a fresh clone of what is committed, in a fresh environment into
which `pip install '.[demo]'` puts the newest packages. What pip has cached already is not downloaded again.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from toughen.engine.device import provenance
from toughen.runs.files import write_json

ROOT = Path(__file__).parents[1]
OUT = Path(__file__).parent / "results" / "first-steps.json"
FIRST, JUDGE = "first-robust-net.md", "judge-a-model.md"
INSIDE = ("PYTHONPATH", "VIRTUAL_ENV")  # variables of the environment that this script runs in
VERSIONS = "from importlib.metadata import version as v; import sys; print(sys.version.split()[0], v('torch'))"


def blocks(page: str, language: str) -> list[str]:
    """The code of a tutorial in this language, block by block."""
    text = (ROOT / "docs" / "tutorials" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def steps() -> dict[str, str]:
    """What a user types, step by step, in the clone's folder."""
    install, train, *_ = blocks(FIRST, "bash")
    prepare, evaluate, *_ = blocks(JUDGE, "bash")
    return {
        "clone": f"git clone --quiet {ROOT} .",
        "install": install,
        "train a robust net": train,
        "train a net to judge": prepare,
        "evaluate it": evaluate,
        "train in a plain PyTorch loop": "python examples/plain_loop.py",
    }


def run(command: str, folder: Path) -> str:
    """A command's output, in the environment of the clone where there is one.

    Raises:
        CalledProcessError: it failed.
    """
    environment = {name: value for name, value in os.environ.items() if name not in INSIDE}
    activate = "if [ -f .venv/bin/activate ]; then . .venv/bin/activate; fi\n"
    words = ["bash", "-ec", activate + command]
    return subprocess.run(words, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, default=OUT)
    known = parser.parse_args()
    seconds: dict[str, float] = {}
    said: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, command in steps().items():
            if name == "train a net to judge":
                (folder / "theirs.py").write_text(blocks(JUDGE, "python")[0], encoding="utf-8")
            started = time.perf_counter()
            output = run(command, folder)
            seconds[name] = time.perf_counter() - started
            if name not in ("clone", "install"):
                said[name] = output.splitlines()[-8:]
            print(f"{name}: {seconds[name]:.0f} s", flush=True)
        python, installed = run(f'python -c "{VERSIONS}"', folder).split()
    about: dict[str, Any] = {**provenance(torch.device("cpu")), "python": python, "torch": installed}
    write_json(known.write, {"seconds": seconds, "end_of_output": said, "about": about})


if __name__ == "__main__":
    main()

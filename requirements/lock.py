"""Makes the locks out of pyproject.toml: ``make lock``, or ``make lock UPGRADE=--upgrade`` for newer versions.

PyTorch and the CUDA packages that only its GPU build needs go to torch.txt, everything else to lock.txt.
torch-cpu.txt is kept by hand: the CPU build is not in the package index.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
HEAD = "# Made by `make lock`, not by hand. Works on every system and Python that pyproject.toml allows.\n"
TORCH = re.compile(r"(torch|triton|nvidia-.*|cuda-.*)==")
EXTRAS = ("completion", "demo", "dev", "docs", "onnx")
UV = "uv pip compile pyproject.toml requirements/torch.in --universal"
QUIET = "--generate-hashes --no-header --no-emit-index-url --quiet"  # no file names a package index


def compile_all(options: list[str]) -> str:
    """All pins with their hashes, as uv prints them; the pins that stand are kept unless ``--upgrade`` is given."""
    known = HERE / "all.txt"
    known.write_text("".join((HERE / name).read_text() for name in ("lock.txt", "torch.txt") if (HERE / name).exists()))
    command = [
        sys.executable,
        "-m",
        *UV.split(),
        *(word for name in EXTRAS for word in ("--extra", name)),
        *QUIET.split(),
        "--output-file",
        str(known),
        *options,
    ]
    try:
        subprocess.run(command, cwd=HERE.parent, check=True, stdout=subprocess.DEVNULL)
        return known.read_text()
    finally:
        known.unlink()


def main() -> None:
    pins = re.split(r"\n(?=\S)", compile_all(sys.argv[1:]).rstrip())
    (HERE / "torch.txt").write_text(HEAD + "\n".join(pin for pin in pins if TORCH.match(pin)) + "\n")
    (HERE / "lock.txt").write_text(HEAD + "\n".join(pin for pin in pins if not TORCH.match(pin)) + "\n")


if __name__ == "__main__":
    main()

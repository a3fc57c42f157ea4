"""Makes the locks out of pyproject.toml: ``make lock``, or ``make lock UPGRADE=--upgrade`` for newer versions.

PyTorch and the CUDA packages that only its GPU build needs go to torch.txt, everything else to lock.txt. What
`make audit` asks with is in audit.txt. torch-cpu.txt is kept by hand: the CPU build is not in the package index.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
HEAD = "# Made by `make lock`, not by hand. Works on every system and Python that pyproject.toml allows.\n"
TORCH = re.compile(r"(torch|triton|nvidia-.*|cuda-.*)==")
EXTRAS = ("completion", "demo", "dev", "docs", "onnx")
UV = "uv pip compile --universal"
PACKAGE = ("pyproject.toml", "requirements/torch.in", *(word for name in EXTRAS for word in ("--extra", name)))
AUDIT = ("requirements/audit.in", "--python-version", "3.11")  # the oldest that pyproject.toml allows
QUIET = "--generate-hashes --no-header --no-emit-index-url --quiet"  # no file names a package index


def compiled(sources: Sequence[str], locks: Sequence[str], options: Sequence[str]) -> str:
    """All pins with their hashes, as uv prints them; the pins that stand are kept unless ``--upgrade`` is given.

    Args:
        sources: what uv is told to lock.
        locks: the files that hold the pins that stand.
        options: for uv besides.
    """
    known = HERE / "all.txt"
    known.write_text("".join((HERE / name).read_text() for name in locks if (HERE / name).exists()))
    command = [
        sys.executable,
        "-m",
        *UV.split(),
        *sources,
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
    options = sys.argv[1:]
    pins = re.split(r"\n(?=\S)", compiled(PACKAGE, ("lock.txt", "torch.txt"), options).rstrip())
    (HERE / "torch.txt").write_text(HEAD + "\n".join(pin for pin in pins if TORCH.match(pin)) + "\n")
    (HERE / "lock.txt").write_text(HEAD + "\n".join(pin for pin in pins if not TORCH.match(pin)) + "\n")
    (HERE / "audit.txt").write_text(HEAD + compiled(AUDIT, ("audit.txt",), options))


if __name__ == "__main__":
    main()

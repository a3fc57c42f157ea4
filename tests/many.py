"""Several processes started by torchrun, and what became of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from commands import Ended


def torchrun(count: int, program: list[object], *, timeout: float = 240) -> Ended:
    """Run a program (``-m MODULE words`` or ``FILE words``) in so many processes of this machine, a thread each."""
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count, *program]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [str(word) for word in words], env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def toughen_in(count: int, *words: object) -> Ended:
    """`toughen WORDS` in so many processes."""
    return torchrun(count, ["-m", "toughen", *words])


def script(folder: Path, text: str) -> Path:
    """A program in a file."""
    path = folder / "program.py"
    path.write_text(text, encoding="utf-8")
    return path

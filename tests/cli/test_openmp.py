"""The command line says how OpenMP's threads wait, unless the environment does, before PyTorch is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from toughen.utils.openmp import CONFIGURING

SCRIPT = """import os, sys
from toughen.cli.main import main
try:
    main(["--version"])
except SystemExit:
    print(os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules)
"""


@pytest.mark.parametrize(
    ("given", "said"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, "None")],
)
def test_how_threads_wait(given: dict[str, str], said: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in CONFIGURING}
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment | given, capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1] == f"{said} False"

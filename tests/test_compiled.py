"""Methods whose values change by step run compiled: the same steps, and nothing is compiled twice for a new value.

The steps run in a process of their own, because neither the checks of shapes that tests are imported with nor warnings
as errors go with torch's compiler.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from conftest import _first_images
from contract import EPS, net
from torch._dynamo.testing import CompileCounterWithBackend

from toughen.methods import REGISTRY
from toughen.noise import StepNoise
from toughen.types import Batch, Plan

STEPS, EPOCH, FIRST = 20, 5, 7  # steps of the run, of an epoch, and those after which nothing may be compiled any more
CHANGING: dict[str, tuple[str, dict[str, Any]]] = {
    "NuAT": ("NuAT", {}),
    "NuAT2": ("NuAT2", {}),
    "NuAT2-WA": ("NuAT2", {"first_step": "average"}),  # another net from the second epoch on
    "GAT": ("GAT", {"jump_at": 0.6}),
}


def trained(case: str, *, compiled: bool) -> dict[str, Any]:
    """Each step's loss, how much was compiled after it, and the weights at the end."""
    (x, y), (name, settings) = _first_images(), CHANGING[case]
    torch.manual_seed(0)
    torch._dynamo.reset()
    model, method = net(), REGISTRY[name](eps=EPS, **settings)
    method.prepare(model, (1, 28, 28), 10, len(x))
    method.start(Plan(epochs=STEPS // EPOCH, steps=STEPS, images=len(x)))
    counter = CompileCounterWithBackend("aot_eager")
    run = torch.compile(method, backend=counter) if compiled else method
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses, counts = [], []
    for number in range(STEPS):
        method.progress = number / STEPS
        with torch.compiler.set_stance("fail_on_recompile" if number >= FIRST else "default"):
            step = run(model, x, y, Batch(index=torch.arange(len(x)), noise=StepNoise(5, number)))
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()
        method.after_step(model)
        if number % EPOCH == EPOCH - 1:
            method.after_epoch({"epoch": number // EPOCH, "terms": {}})
        losses.append(float(step.loss.detach()))
        counts.append(counter.frame_count)
    return {"losses": losses, "counts": counts, "weights": [weight.tolist() for weight in model.parameters()]}


@pytest.fixture(scope="module")
def results() -> Any:
    """What this file prints when it is run: per case the eager run and the compiled one."""
    environment = {**os.environ, "TORCHDYNAMO_VERBOSE": "0"}
    ended = subprocess.run([sys.executable, __file__], capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", CHANGING)
def test_compiled_steps_equal_eager_ones_and_are_compiled_once(case: str, results: Any) -> None:
    eager, compiled = results[case]["eager"], results[case]["compiled"]
    assert eager["losses"] == pytest.approx(compiled["losses"], abs=1e-6, rel=0)
    assert len(set(eager["losses"])) == STEPS  # each step was another one
    for here, there in zip(eager["weights"], compiled["weights"], strict=True):
        assert (torch.tensor(here) - torch.tensor(there)).abs().max() < 1e-5
    assert eager["counts"][-1] == 0 < compiled["counts"][0]
    assert compiled["counts"][FIRST] == compiled["counts"][-1]


if __name__ == "__main__":
    found = {
        case: {"eager": trained(case, compiled=False), "compiled": trained(case, compiled=True)} for case in CHANGING
    }
    print(json.dumps(found))

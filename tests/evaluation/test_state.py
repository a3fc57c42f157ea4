"""What an evaluation left when it was killed is read again, or refused where it is not what was left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from toughen.evaluation.harness import Outcome
from toughen.evaluation.state import restore
from toughen.runs.files import read_tensors, write_tensors

N = 5
THIS = ("model", 0)


def left(folder: Path) -> Path:
    """The file of an evaluation whose attack broke one image of two that it tried."""
    state = restore(folder, THIS, N)
    rows, broken, distance = torch.tensor([1, 3]), torch.tensor([False, True]), torch.tensor([0.0, 0.25])
    counts = {"forward": 4, "gradient": 2, "confirmation": 1, "padding": 0}
    state.of("pgd").add(Outcome(rows=rows, broken=broken, distance=distance, counts=counts), "first", 1.5)
    state.save()
    assert state.path is not None
    return state.path


def test_it_is_read_again(tmp_path: Path) -> None:
    left(tmp_path)
    found = restore(tmp_path, THIS, N).of("pgd")
    assert found.broken.tolist() == [False, False, False, True, False]
    assert found.broken_by.tolist() == [-1, -1, -1, 0, -1]
    assert found.done.tolist() == [False, True, False, True, False]
    assert found.distance.tolist() == [0, 0, 0, 0.25, 0]
    assert (found.round, found.seconds, found.counts["first"]["forward"]) == (0, {"first": 1.5}, 4)
    assert not restore(tmp_path, ("another model", 0), N).attacks


DAMAGE: dict[str, Callable[[dict[str, Tensor], dict[str, Any]], object]] = {
    "round": lambda tensors, about: about["pgd"].update(round="0"),
    "seconds": lambda tensors, about: about["pgd"].update(seconds=[1.5]),
    "counts": lambda tensors, about: about["pgd"].update(counts={"first": {"forward": None}}),
    "missing": lambda tensors, about: about["pgd"].pop("round"),
    "unknown": lambda tensors, about: about["pgd"].update(evil=1),
    "no mapping": lambda tensors, about: about.update(pgd=3),
    "another attack": lambda tensors, about: about.update(fgsm=about["pgd"]),
    "length": lambda tensors, about: tensors.update({"pgd:broken": torch.zeros(N + 1, dtype=torch.bool)}),
    "type": lambda tensors, about: tensors.update({"pgd:broken": torch.zeros(N)}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_no_state_is_refused(damage: str, tmp_path: Path) -> None:
    path = left(tmp_path)
    tensors, about = read_tensors(path)
    DAMAGE[damage](tensors, about)
    write_tensors(path, tensors, about)
    with pytest.raises(ValueError, match="is damaged: remove it, and the evaluation starts again"):
        restore(tmp_path, THIS, N)

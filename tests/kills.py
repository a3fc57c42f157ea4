"""A run that dies within this process, and what must hold of one that went on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from commands import state_of, timeless

from toughen import runs
from toughen.training.trainer import Trainer


class Killed(BaseException):
    """What stands for a kill within this process: nothing may catch it."""


def same_end(one: Path, other: Path) -> None:
    """Both runs ended in the same state, to the bit, and left the same weights and figures."""
    first, second = state_of(one), state_of(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert timeless(one) == timeless(other)
    for name in (runs.RECORD, runs.WEIGHTS, "config.yaml"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def kill_at_step(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Die when this step's weights are known, before its checkpoint is written."""
    add_up = Trainer.add_up

    def dying(self: Trainer, *arguments: Any) -> None:
        add_up(self, *arguments)
        if self.state.step == step:
            raise Killed

    monkeypatch.setattr(Trainer, "add_up", dying)

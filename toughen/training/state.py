"""The state of a run that a checkpoint keeps besides its modules, and its validation when a file is read.

The state of a callback is in the callback; see ``Stateful``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Protocol, get_type_hints, runtime_checkable

import torch
from torch import Tensor

from toughen.core.distributed import world
from toughen.utils.type_hints import first_mismatch


@runtime_checkable
class Stateful(Protocol):
    """An object whose state is plain data, as JSON has it."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class EpochTotals:
    """Sums of one process over the current epoch.

    Attributes:
        sums: of each figure over this process's images, on the device.
        counts: the images in each sum; in an epoch of two methods not every image has every term.
        passes, crafted: passes through the model, as ``PassCounter`` counts them.
        images: trained on.
    """

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    passes: float = 0.0
    crafted: float = 0.0
    images: int = 0

    def plain(self) -> dict[str, Any]:
        """As numbers; synchronises with the device."""
        return {**vars(self), "sums": {name: float(total) for name, total in self.sums.items()}}

    @classmethod
    def of(cls, plain: dict[str, Any], device: torch.device) -> EpochTotals:
        """The totals from what ``plain`` returned, which was checked before."""
        sums = {k: torch.tensor(v, dtype=torch.float64, device=device) for k, v in plain["sums"].items()}
        return cls(**{**plain, "sums": sums})


def summed(totals: list[dict[str, Any]]) -> dict[str, Any]:
    """The sum of all processes' totals, as numbers."""
    whole = EpochTotals().plain()
    for each in totals:
        for name in ("sums", "counts"):
            for term, value in each[name].items():
                whole[name][term] = whole[name].get(term, 0) + value
        for name in ("passes", "crafted", "images"):
            whole[name] += each[name]
    return whole


@dataclass
class State:
    """What changes while a run goes on, besides the state of the modules and of the callbacks.

    Attributes:
        step: optimizer steps done.
        history: the lines of metrics.jsonl.
        totals: sums of this process over the current epoch.
        seconds: of the current epoch so far, without ``watched``.
        watched: seconds of the current epoch that the collapse watch took.
        adversarial_steps: steps that trained against the threat.
        stop_reason: why training ends early; a sentence here ends the run after the epoch.
        events: of the current epoch, for its line of metrics.
        healthy: the step of the last healthy state, which is in a file of its own; -1 for none.
        spent: seconds of all sessions, when the checkpoint was written.
        planned: steps of the whole run with a time budget; 0 without one.
        planned_at, planned_progress: the step at which the rest of the run was last planned, and the progress there.
        warmed, warmed_at: the factor of perturbations when a warm-up of eps was last continued at another pace or from
            an earlier state, and ``adversarial_steps`` then.
        processes: the number of processes.
    """

    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    totals: EpochTotals = field(default_factory=EpochTotals)
    seconds: float = 0.0
    watched: float = 0.0
    adversarial_steps: int = 0
    stop_reason: str | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    healthy: int = -1
    spent: float = 0.0
    planned: int = 0
    planned_at: int = 0
    planned_progress: float = 0.0
    warmed: float = 0.0
    warmed_at: int = 0
    processes: int = field(default_factory=lambda: world().world_size)

    def plain(self) -> dict[str, Any]:
        """All fields except the totals, which differ between processes, as JSON."""
        return {each.name: getattr(self, each.name) for each in fields(State) if each.name != "totals"}

    def restore(self, plain: dict[str, Any], totals: list[dict[str, Any]], device: torch.device) -> None:
        """Load what ``plain`` returned; see ``check``.

        Args:
            plain: the fields.
            totals: of each process that saved; if their number has changed, the main process gets their sum.
            device: where sums are kept.
        """
        for name, value in plain.items():
            setattr(self, name, value)
        own = world().own_of(totals, summed)
        self.totals = EpochTotals() if own is None else EpochTotals.of(own, device)
        self.processes = world().world_size


def check(plain: Any, totals: Any) -> None:
    """Check that these are values of ``State.plain`` and ``EpochTotals.plain``.

    Raises:
        ValueError: it is not; says what is wrong.
    """
    hints = get_type_hints(State)
    del hints["totals"]
    wrong = first_mismatch(plain, hints)
    if wrong is None and (plain["step"] < 0 or plain["processes"] < 1):
        wrong = "step" if plain["step"] < 0 else "processes"
    if wrong is None and not (isinstance(totals, list) and len(totals) == plain["processes"]):
        wrong = "totals"
    if wrong is None:
        sums = {**get_type_hints(EpochTotals), "sums": dict[str, float]}
        wrong = next((f"totals' {name}" for name in (first_mismatch(each, sums) for each in totals) if name), None)
    if wrong is not None:
        raise ValueError(f"its {wrong} is not what toughen writes there")

"""What changes while a run goes on, and how it comes back from a file that anyone may have changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, get_type_hints

import torch
from torch import Tensor

from toughen.core import distributed
from toughen.runs.json_types import first_mismatch


@dataclass
class Tally:
    """What one process has added up over the running epoch.

    Attributes:
        totals: sums over its images, on the device.
        counts: how many images each of these sums holds: in an epoch of two methods not all have a term.
        passes, crafted, images: spent and seen.
    """

    totals: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    passes: float = 0.0
    crafted: float = 0.0
    images: int = 0

    def plain(self) -> dict[str, Any]:
        """As numbers; waits for the device."""
        return {**vars(self), "totals": {name: float(total) for name, total in self.totals.items()}}

    @classmethod
    def of(cls, plain: dict[str, Any], device: torch.device) -> Tally:
        """Back from numbers; what holds them was checked."""
        totals = {k: torch.tensor(v, dtype=torch.float64, device=device) for k, v in plain["totals"].items()}
        return cls(**{**plain, "totals": totals})


def summed(tallies: list[dict[str, Any]]) -> dict[str, Any]:
    """All processes' tallies in one, as numbers."""
    whole = Tally().plain()
    for tally in tallies:
        for name in ("totals", "counts"):
            for term, value in tally[name].items():
                whole[name][term] = whole[name].get(term, 0) + value
        for name in ("passes", "crafted", "images"):
            whole[name] += tally[name]
    return whole


@dataclass
class State:
    """What changes while a run goes on, besides the modules' own state.

    Attributes:
        step: optimizer steps done.
        best: the best validation score so far, and the clean accuracy that breaks ties.
        history: the lines of metrics.jsonl.
        tally: what this process has added up over the running epoch.
        seconds: of the running epoch, so far, without the watch's looks.
        watched: seconds of these looks.
        threatened: steps that trained against the threat.
        stop_reason: why the method wants no more training.
        events: what happened in the running epoch.
        signals: the latest distances that the watch measured inside epochs.
        best_clean, best_pgd, best_gap: the best that the watch saw, clean and under PGD, and by how much FGSM accuracy
            then stood above PGD's.
        collapses: how often the model collapsed.
        rescue_until: the step up to which the rescue method trains.
        rescuer: which of the rescue methods, from 0: how often one of them collapsed itself.
        never_stood: whether it was said that nothing stands.
        healthy: the step of the last state that was healthy; it lies in a file of its own.
        spent: seconds of all sessions.
        planned: steps of the whole run, where a time decides; 0 where the epochs do.
        laid_at, laid_progress: the step at which the rest of the run was last laid out, and the progress there.
        processes: how many train.
    """

    step: int = 0
    best: tuple[float, float] = (-1.0, -1.0)
    history: list[dict[str, Any]] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    seconds: float = 0.0
    watched: float = 0.0
    threatened: int = 0
    stop_reason: str | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    signals: list[float] = field(default_factory=list)
    best_clean: float = 0.0
    best_pgd: float = 0.0
    best_gap: float = 0.0
    collapses: int = 0
    rescue_until: int = 0
    rescuer: int = 0
    never_stood: bool = False
    healthy: int = -1
    spent: float = 0.0
    planned: int = 0
    laid_at: int = 0
    laid_progress: float = 0.0
    processes: int = field(default_factory=distributed.count)

    def new_epoch(self) -> None:
        """Forget what was summed up over the epoch that ended."""
        self.tally, self.events, self.seconds, self.watched = Tally(), [], 0.0, 0.0

    def plain(self) -> dict[str, Any]:
        """All but the tally, which each process has its own of, as JSON takes it."""
        return {name: value for name, value in vars(self).items() if name != "tally"}

    @classmethod
    def of(cls, plain: dict[str, Any], tallies: list[dict[str, Any]], device: torch.device) -> State:
        """Back from what ``plain`` gave; see ``check``.

        Args:
            plain: the fields.
            tallies: of each process that saved; where their number has changed, the first one takes all.
            device: where sums are kept.
        """
        best, clean = plain["best"]
        return cls(**{**plain, "best": (best, clean)}, tally=_own(tallies, device))


def check(plain: Any, tallies: Any) -> None:
    """See that this is what ``State.plain`` and ``Tally.plain`` give.

    Raises:
        ValueError: it is not; says what is wrong.
    """
    fields = get_type_hints(State)
    del fields["tally"]
    wrong = first_mismatch(plain, fields)
    if wrong is None and (plain["step"] < 0 or plain["processes"] < 1):
        wrong = "step" if plain["step"] < 0 else "processes"
    if wrong is None and not (isinstance(tallies, list) and len(tallies) == plain["processes"]):
        wrong = "tallies"
    if wrong is None:
        sums = {**get_type_hints(Tally), "totals": dict[str, float]}
        wrong = next((f"tally's {name}" for name in (first_mismatch(each, sums) for each in tallies) if name), None)
    if wrong is not None:
        raise ValueError(f"its {wrong} is not what toughen writes there")


def _own(tallies: list[dict[str, Any]], device: torch.device) -> Tally:
    """This process's; where there were more or fewer of them, the first one takes all."""
    if len(tallies) == distributed.count():
        return Tally.of(tallies[distributed.rank()], device)
    return Tally.of(summed(tallies), device) if distributed.is_main_process() else Tally()

"""Probes: attacks that the checks run on a few images first, and on more where the budget allows.

An attack's result on an image doesn't depend on the images beside it, so a probe in parts equals one at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch

from toughen.core.types import Labels, Mask
from toughen.evaluation.checks.base import Check, CheckContext

Sample: TypeAlias = Literal["correct", "robust"]
HasRoom: TypeAlias = Callable[[float], bool]
"""Says whether the budget allows so many more forward passes."""


@dataclass(frozen=True)
class Probe:
    """An attack, or several in turn, on a sample of images.

    Attributes:
        name: results are stored under it.
        check: the first check that uses it.
        sample: which images it attacks: those classified correctly, or the robust ones.
        cost: forward passes per image that it takes at most; for a probe that asks ``has_room`` itself, those before it
            first asks.
        run: takes rows of images and ``has_room``; returns which of them broke, None where the budget was short.
        factor: how many times as many images as other probes it gets while few are attacked.
        worst: forward passes per image that it takes at most, with all that it asks for; 0 means ``cost``.
        after: probes of the same kind; an image that one of them broke is left out here.
    """

    name: str
    check: str
    sample: Sample
    cost: float
    run: Callable[[Labels, HasRoom], Mask | None]
    factor: int = 1
    worst: float = 0.0
    after: tuple[str, ...] = ()


class ProbeResults:
    """What probes did to the images of their samples.

    Args:
        context: the model and its images.
        limit: images of a sample.
        broken: per probe, which of the first images of its sample broke; extended in place.
    """

    def __init__(self, context: CheckContext, limit: int, broken: dict[str, list[bool]] | None = None) -> None:
        self.context = context
        self._broken = {} if broken is None else broken
        self.rows: Mapping[Sample, Labels] = {
            "correct": context.sampled_rows(context.claim.correct, limit),
            "robust": context.sampled_rows(context.claim.robust, limit),
        }

    def count(self, name: str) -> int:
        """How many images a probe was run on."""
        return len(self._broken.get(name, ()))

    def extend(self, probe: Probe, to: int, has_room: HasRoom) -> bool:
        """Run a probe on the images up to number ``to``; False where the budget was short."""
        first = self.count(probe.name)
        rows = self.rows[probe.sample][first:to]
        broken = torch.zeros(len(rows), dtype=torch.bool)
        for other in probe.after:
            known = self._broken.get(other, [])[first:to]
            broken[: len(known)] |= torch.tensor(known, dtype=torch.bool)
        left = (~broken).nonzero()[:, 0]
        fell = probe.run(rows[left.to(rows.device)], has_room) if len(left) else broken[left]
        if fell is None:
            return False
        new = torch.zeros_like(broken)
        new[left] = fell.cpu()
        self._broken[probe.name] = [*self._broken.get(probe.name, []), *new.tolist()]
        return True

    def broken(self, name: str, n: int | None = None) -> Mask:
        """Which of the first ``n`` images a probe broke; False where it was not run."""
        known = self._broken.get(name, [])
        n = len(known) if n is None else n
        return torch.tensor([*known[:n], *[False] * (n - len(known[:n]))], dtype=torch.bool)

    def any_of(self, names: Iterable[str], n: int | None = None) -> Mask:
        """Which of the first ``n`` images any of the probes broke; None means as many as the longest probe had."""
        names = list(names)
        n = max((self.count(name) for name in names), default=0) if n is None else n
        broken = torch.zeros(n, dtype=torch.bool)
        for name in names:
            broken |= self.broken(name, n)
        return broken

    def accuracies(self, names: Sequence[str]) -> list[float]:
        """Accuracy under each probe, on the images that all of them were run on."""
        n = min(self.count(name) for name in names)
        return [1 - float(self.broken(name, n).double().mean()) for name in names]


@dataclass(frozen=True, kw_only=True)
class AttackCheck:
    """A check of what probes did.

    Attributes:
        name: its name in results.
        judge: makes the check, given the probes' results and the name; may set ``images`` where it uses fewer.
        probes: names of the probes that it needs.
        gradients: whether it needs gradients.
        common: whether it uses the images that all these probes were run on; else those that any was run on.
        impossible: why it can't be made of such a model; "" where it can.
    """

    name: str
    judge: Callable[[ProbeResults, str], Check]
    probes: Sequence[str] | Callable[[CheckContext], Iterable[str]]
    gradients: bool = True
    common: bool = True
    impossible: Callable[[CheckContext], str] = lambda context: ""

"""Probes: attacks that the checks run on a few images first, and on more where the budget allows.

An attack's result on an image doesn't depend on the other images, so a probe may be run in parts.
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
    """An attack, or several one after another, on a sample of images.

    Attributes:
        name: its results are stored under it.
        check: the name of the first check that uses it.
        sample: which images it attacks: those classified correctly, or the robust ones.
        cost: forward passes per image, at most; if it calls ``has_room`` itself, those before its first call.
        run: takes rows of images and ``has_room``; returns which of them it broke, None where the budget was too small.
        factor: multiplies the number of images in each round.
        worst: forward passes per image, at most, with those that it asks ``has_room`` for; 0 means ``cost``.
        after: probes of the same kind; an image that one of them broke is not attacked again.
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
    """Which images of their samples the probes broke.

    Args:
        context: the model and its images.
        limit: size of a sample.
        broken: by probe, which of the first images of its sample it broke; extended in place.
    """

    def __init__(self, context: CheckContext, limit: int, broken: dict[str, list[bool]]) -> None:
        self.context, self._broken = context, broken
        self.rows: Mapping[Sample, Labels] = {
            "correct": context.sampled_rows(context.claim.correct, limit),
            "robust": context.sampled_rows(context.claim.robust, limit),
        }

    def count(self, name: str) -> int:
        """How many images a probe was run on."""
        return len(self._broken.get(name, ()))

    def extend(self, probe: Probe, to: int, has_room: HasRoom) -> bool:
        """Run a probe on the next images, up to number ``to``; False where the budget was too small."""
        first = self.count(probe.name)
        rows = self.rows[probe.sample][first:to]
        skipped = torch.zeros(len(rows), dtype=torch.bool)
        for other in probe.after:
            known = self._broken.get(other, [])[first:to]
            skipped[: len(known)] |= torch.tensor(known, dtype=torch.bool)
        attacked = (~skipped).nonzero()[:, 0]
        broken = probe.run(rows[attacked.to(rows.device)], has_room) if len(attacked) else skipped[attacked]
        if broken is None:
            return False
        new = torch.zeros_like(skipped)
        new[attacked] = broken.cpu()
        self._broken[probe.name] = [*self._broken.get(probe.name, []), *new.tolist()]
        return True

    def broken(self, name: str, n: int | None = None) -> Mask:
        """[n], which of the first ``n`` images a probe broke, False where it was not run; None: all it was run on."""
        known = self._broken.get(name, [])
        n = len(known) if n is None else n
        return torch.tensor([*known[:n], *[False] * (n - len(known[:n]))], dtype=torch.bool)

    def any_of(self, names: Iterable[str], n: int | None = None) -> Mask:
        """[n], which of the first ``n`` images any of the probes broke; None means all that any of them was run on."""
        names = list(names)
        n = max((self.count(name) for name in names), default=0) if n is None else n
        broken = torch.zeros(n, dtype=torch.bool)
        for name in names:
            broken |= self.broken(name, n)
        return broken

    def accuracies(self, names: Sequence[str]) -> list[float]:
        """Accuracy under each probe, 0..1, on the images that all of them were run on."""
        n = min(self.count(name) for name in names)
        return [1 - float(self.broken(name, n).double().mean()) for name in names]


@dataclass(frozen=True, kw_only=True)
class AttackCheck:
    """A check of the probes' results.

    Attributes:
        name: its name in results.
        judge: makes the check, given the probes' results and the name; sets ``images`` if it uses fewer.
        probes: the names of the probes that it needs, or a function that returns them.
        gradients: whether it needs gradients.
        common: whether it uses the images that all these probes were run on; else those that any was run on.
        impossible: returns why it can't be made of a model; "" if it can.
    """

    name: str
    judge: Callable[[ProbeResults, str], Check]
    probes: Sequence[str] | Callable[[CheckContext], Iterable[str]]
    gradients: bool = True
    common: bool = True
    impossible: Callable[[CheckContext], str] = lambda context: ""

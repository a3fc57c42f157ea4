"""What attacks did to samples of images: each look can be taken at a few images first, and at more where there is room.

An attack's result on an image does not depend on what else is attacked, so a look in parts is the look at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch

from toughen.core.types import Labels, Mask
from toughen.evaluation.checks.base import Bench, Check

Sample: TypeAlias = Literal["right", "standing"]
Fits: TypeAlias = Callable[[float], bool]


@dataclass(frozen=True)
class Look:
    """An attack, or several of them in turn, on a sample of images.

    Attributes:
        name: what results are kept by.
        check: which check it serves, the first one that does.
        sample: "right" or "standing": which images are looked at.
        cost: forwards of one image that it takes at most, for each image, where the model judges as it is searched (one
            that is tied to its batch is asked again and again); only to begin with, for one that asks on its way
            whether there is room for more.
        worst: what it takes at most with all that it asks for on its way; 0 means ``cost``.
        run: the rows, and what says whether so many forwards more can be paid, to which of the rows broke; None where
            they could not.
        factor: how many times as many images as others it has, while there is room for a few only.
        after: looks that count beside this one: an image that one of them broke is left out, and does not count here.
    """

    name: str
    check: str
    sample: Sample
    cost: float
    run: Callable[[Labels, Fits], Mask | None]
    factor: int = 1
    worst: float = 0.0
    after: tuple[str, ...] = ()


class Looks:
    """The samples, and what was found so far.

    Args:
        bench: the model and its images.
        limit: images of a sample.
        kept: per look, which of the first images of its sample broke; it is added to.
    """

    def __init__(self, bench: Bench, limit: int, kept: dict[str, list[bool]] | None = None) -> None:
        subject = bench.subject
        self.bench, self.kept = bench, {} if kept is None else kept
        self.rows: Mapping[Sample, Labels] = {
            "right": bench.in_order(subject.right, limit),
            "standing": bench.in_order(subject.standing, limit),
        }

    def count(self, name: str) -> int:
        """How many images a look had."""
        return len(self.kept.get(name, ()))

    def take(self, look: Look, to: int, fits: Fits) -> bool:
        """Look at the images up to a number; whether there was room for it."""
        first = self.count(look.name)
        rows = self.rows[look.sample][first:to]
        broken = torch.zeros(len(rows), dtype=torch.bool)
        for other in look.after:
            known = self.kept.get(other, [])[first:to]
            broken[: len(known)] |= torch.tensor(known, dtype=torch.bool)
        left = (~broken).nonzero()[:, 0]
        fell = look.run(rows[left.to(rows.device)], fits) if len(left) else broken[left]
        if fell is None:
            return False
        new = torch.zeros_like(broken)
        new[left] = fell.cpu()
        self.kept[look.name] = [*self.kept.get(look.name, []), *new.tolist()]
        return True

    def broken(self, name: str, n: int | None = None) -> Mask:
        """Which of the first ``n`` images of its sample a look broke; False for those that it did not have."""
        kept = self.kept.get(name, [])
        n = len(kept) if n is None else n
        return torch.tensor([*kept[:n], *[False] * (n - len(kept[:n]))], dtype=torch.bool)

    def any_of(self, names: Iterable[str], n: int | None = None) -> Mask:
        """Which of the first ``n`` images any of the looks broke; None means as many as the longest look had."""
        names = list(names)
        n = max((self.count(name) for name in names), default=0) if n is None else n
        broken = torch.zeros(n, dtype=torch.bool)
        for name in names:
            broken |= self.broken(name, n)
        return broken

    def stands(self, names: Sequence[str]) -> list[float]:
        """The shares that stand under each of some looks, on the images that all of them had."""
        n = min(self.count(name) for name in names)
        return [1 - float(self.broken(name, n).double().mean()) for name in names]


@dataclass(frozen=True, kw_only=True)
class AttackCheck:
    """A check of what attacks did.

    Attributes:
        name: what it is called.
        judge: makes the check, given what the looks found and the name.
        needs: the looks that it judges by.
        gradients: whether it makes sense only where there are gradients to follow.
        all_of: whether it judges the images that all of these looks had; else as many as any of them had.
        lacks: why it cannot be made of such a model; "" where it can.
    """

    name: str
    judge: Callable[[Looks, str], Check]
    needs: Sequence[str] | Callable[[Bench], Iterable[str]]
    gradients: bool = True
    all_of: bool = True
    lacks: Callable[[Bench], str] = lambda bench: ""

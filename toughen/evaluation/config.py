"""What an evaluation is told: which attacks, on how many images, how they search, and what is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from toughen.attacks.base import Attack
from toughen.engine.device import Precision
from toughen.evaluation.suite import QUICK_IMAGES, held, parse_attack, suite
from toughen.evaluation.target import EvaluationTarget
from toughen.utils.duration import seconds

PRECISIONS = ("auto", "bf16", "fp32", "fp64")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How a model is evaluated.

    Attributes:
        suite: "quick", "standard" or "papers"; None means quick, unless there are attacks.
        attacks: instead of a suite: short names, as ``parse_attack`` reads them, or attacks by names of one's own.
        limit: evaluate a stratified sample of this many images; None means all, 1,000 for the quick suite.
        time_budget: end within this time, such as 5m, by attacking fewer images, a stratified sample.
        seed: of the sample and of the attacks.
        precision: what attacks compute in; the unchanged model confirms each broken image. "auto" means bf16 where the
            processor supports it and it saves time, "fp32" is for a number that is published, "fp64" for a test.
        batch_size: images per forward pass; None chooses it for the device and the number of images.
        processes: how many processes attack at once; the result is the same for any number.
        verdict: whether to check that the robust accuracy can be trusted.
        depth: how thorough the checks are: "cheap" limits them to the time of the attacks, or 20 s, with fewer images;
            "whole" leaves nothing out. None means cheap for the quick suite, whole otherwise.
        details: whether to examine a few images more closely, for a report: gallery.parquet and diagnostics.json. Only
            where results are written.
    """

    suite: str | None = None
    attacks: Sequence[str] | Mapping[str, Attack] | None = None
    limit: int | None = None
    time_budget: str | None = None
    seed: int = 0
    precision: Precision | Literal["auto"] = "auto"
    batch_size: int | None = None
    processes: int = 1
    verdict: bool = True
    depth: Literal["cheap", "whole"] | None = None
    details: bool = True

    @property
    def images(self) -> int | None:
        """How many images are evaluated; None means all."""
        return QUICK_IMAGES if self.limit is None and self.quick else self.limit

    @property
    def quick(self) -> bool:
        """Whether this is the quick suite."""
        return self.attacks is None and self.suite in (None, "quick")

    @property
    def cheap(self) -> bool:
        """Whether the checks have a time limit."""
        return self.quick if self.depth is None else self.depth == "cheap"

    def check(self) -> None:
        """See that the numbers make sense.

        Raises:
            ValueError: they don't.
        """
        for name, value in (("limit", self.limit), ("batch_size", self.batch_size), ("processes", self.processes)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: it must be at least 1")
        if self.time_budget is not None:
            seconds(self.time_budget)
        if self.suite is not None and self.attacks is not None:
            raise ValueError("suite and attacks both say what to attack with: give one of them")
        if self.depth not in (None, "cheap", "whole"):
            raise ValueError(f"depth {self.depth!r} is unknown: use cheap or whole")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision {self.precision!r} is unknown: use {', '.join(PRECISIONS)}")
        if isinstance(self.attacks, str):
            raise ValueError(f"attacks is the text {self.attacks!r}: give a list of names")
        for each in () if self.attacks is None else self.attacks:
            if not isinstance(each, str):
                raise ValueError(f"attacks holds a {type(each).__name__}: give a list of names, or a dict of attacks")


def chosen_attacks(target: EvaluationTarget, config: EvaluationConfig) -> dict[str, Attack]:
    """The chosen attacks, by their names.

    Raises:
        ValueError: none is named, or there is none of a name, or one is bound by another threat.
    """
    if config.attacks is None:
        shape = tuple(target.split.images.shape[1:])
        return suite(config.suite or "quick", target.threat, shape, target.adaptive)
    if not config.attacks:
        raise ValueError("no attack is given: give one or more, such as --attacks fgsm pgd-20")
    if isinstance(config.attacks, Mapping):
        return {name: held(name, attack, target.threat) for name, attack in config.attacks.items()}
    attacks: dict[str, Attack] = {}
    for spec in config.attacks:
        attack = parse_attack(spec, target.threat)
        if any(
            type(each) is type(attack) and each == attack for each in attacks.values()
        ):  # noise goes by the spelling
            raise ValueError(
                f"attack {spec.strip()} is named twice: name it once (x2 behind its steps means 2 restarts)"
            )
        attacks[spec.strip()] = attack
    return attacks

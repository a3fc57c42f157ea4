"""The settings of an evaluation: attacks, images, precision, processes and checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any, Literal

from toughen.attacks.base import Attack
from toughen.engine.device import Precision
from toughen.evaluation.suite import QUICK_IMAGES, check_attack, parse_attack, suite
from toughen.evaluation.target import EvaluationTarget
from toughen.utils.units import parse_duration

PRECISIONS = ("auto", "bf16", "fp32", "fp64")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How a model is evaluated.

    Attributes:
        suite: "quick", "standard" or "papers"; None means quick, unless there are attacks.
        attacks: instead of a suite: short names, as ``parse_attack`` reads them, or attacks with names of your own.
        limit: evaluate a stratified sample of this many images; None means all, 1,000 for the quick suite.
        time_budget: end within this time, such as 5m, by attacking a smaller stratified sample.
        seed: of the sample and of the attacks.
        precision: what attacks compute in; the unchanged model confirms each broken image. "auto" means bf16 where the
            processor supports it and it saves time, "fp32" is for a number that is published, "fp64" for a test.
        batch_size: images per forward pass; None chooses it for the device, the number of images and a
            GPU's memory.
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
        """Check the values of the fields.

        Raises:
            ValueError: one of them is not valid.
        """
        for name, value in (("limit", self.limit), ("batch_size", self.batch_size), ("processes", self.processes)):
            if value is not None and (not isinstance(value, Integral) or value < 1):
                raise ValueError(f"{name} is {value!r}: it must be a whole number, at least 1")
        if not isinstance(self.seed, Integral):
            raise ValueError(f"seed is {self.seed!r}: it must be a whole number")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed {self.seed} is out of range: it must fit into 64 bits")
        if self.time_budget is not None:
            if not isinstance(self.time_budget, str):
                raise ValueError(f"time_budget is {self.time_budget!r}: give a text such as '90s', '5m' or '1h30m'")
            parse_duration(self.time_budget)
        if self.suite is not None and self.attacks is not None:
            raise ValueError("suite and attacks both say what to attack with: give one of them")
        if self.depth not in (None, "cheap", "whole"):
            raise ValueError(f"depth {self.depth!r} is unknown: use cheap or whole")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision {self.precision!r} is unknown: use {', '.join(PRECISIONS)}")
        if isinstance(self.attacks, str):
            raise ValueError(f"attacks is the text {self.attacks!r}: give a list of names")
        for name in self.attacks or ():
            if not isinstance(name, str):
                raise ValueError(f"attacks holds a {type(name).__name__}: give a list of names, or a dict of attacks")


def settings_of(given: Mapping[str, Any]) -> EvaluationConfig:
    """The settings of an evaluation out of keyword arguments, checked.

    Raises:
        TypeError: there is no setting of that name.
        ValueError: a value is not valid.
    """
    known = [each.name for each in fields(EvaluationConfig)]
    for name in given:
        if name not in known:
            raise TypeError(f"evaluate has no setting {name!r}: use {', '.join(known)}")
    settings = EvaluationConfig(**given)
    settings.check()
    return settings


def chosen_attacks(target: EvaluationTarget, config: EvaluationConfig) -> dict[str, Attack]:
    """The attacks of an evaluation, by their names in results.

    Raises:
        ValueError: there are none, a name is unknown or given twice, or an attack has another threat.
    """
    if config.attacks is None:
        shape = tuple(target.split.images.shape[1:])
        return suite(config.suite or "quick", target.threat, shape, target.adaptive)
    if not config.attacks:
        raise ValueError("no attack is given: give one or more, such as --attacks fgsm pgd-20")
    if isinstance(config.attacks, Mapping):
        for name, attack in config.attacks.items():
            check_attack(name, attack, target.threat)
        return dict(config.attacks)
    attacks: dict[str, Attack] = {}
    for spec in config.attacks:
        attack = parse_attack(spec, target.threat)
        name = spec.strip()
        # compared as attacks: random numbers are keyed by the name, so "pgd-20" and "PGD-20" would differ
        if any(type(other) is type(attack) and other == attack for other in attacks.values()):
            raise ValueError(f"attack {name} is named twice: name it once (x2 behind its steps means 2 restarts)")
        attacks[name] = attack
    return attacks

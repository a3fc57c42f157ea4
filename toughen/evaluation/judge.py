"""Judges a candidate: attacks, checks of the number that comes out, and the files of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from rich.console import Console
from torch import nn

from toughen.attacks.base import Attack
from toughen.core import distributed
from toughen.data import Split
from toughen.engine.device import provenance
from toughen.engine.fixed_batch import Blocks, Precision, block_size, search_precision
from toughen.evaluation import budget
from toughen.evaluation.candidate import Candidate
from toughen.evaluation.conclude import Asked, Unfinished, conclude
from toughen.evaluation.details import look_closer
from toughen.evaluation.diagnostics.store import add_closer_look, check_usable, set_aside
from toughen.evaluation.fit import check_fit, check_sendable, check_source
from toughen.evaluation.gallery import gallery
from toughen.evaluation.harness import as_floats
from toughen.evaluation.result import Evaluation, interval, write_results
from toughen.evaluation.runner import measure
from toughen.evaluation.suite import QUICK_IMAGES, held, parse_attack, suite
from toughen.evaluation.wrapped import Wrapped
from toughen.runs.locks import alone
from toughen.utils.duration import seconds
from toughen.utils.progress import progress_bar

PRECISIONS = ("auto", "bf16", "fp32", "fp64")


Source: TypeAlias = nn.Module | Callable[[], nn.Module]
"""A net, or what makes it."""


@dataclass(frozen=True, kw_only=True)
class How:
    """How a model is evaluated.

    Attributes:
        suite: "quick", "standard" or "papers"; None means quick, unless there are attacks.
        attacks: instead of a suite: short names, as ``parse_attack`` reads them, or attacks by names of one's own.
        limit: evaluate a stratified sample of so many images; None means all, 1,000 for the quick suite.
        time_budget: end within this time, such as 5m, by attacking fewer images, a stratified sample.
        seed: of the sample and of the attacks.
        precision: what attacks search in; what they find is confirmed by the model as it is. "auto" means bf16 where
            the processor has it and the net is worth it, "fp32" is for a number that is published, "fp64" for a test.
        block: images per forward pass; None means what suits the device and the number of images.
        processes: how many processes attack at once; the result is the same for any number.
        verdict: whether to make the checks that say if the number can be believed.
        depth: how deep the checks look: "cheap" lets them cost no more than the attacks did, or 20 s, by looking at
            fewer images; "whole" cuts nothing. None means cheap for the quick suite, whole otherwise.
        details: whether to look closer at a few images, for a report: gallery.parquet and diagnostics.json. Only where
            results are written.
    """

    suite: str | None = None
    attacks: Sequence[str] | Mapping[str, Attack] | None = None
    limit: int | None = None
    time_budget: str | None = None
    seed: int = 0
    precision: Precision | Literal["auto"] = "auto"
    block: int | None = None
    processes: int = 1
    verdict: bool = True
    depth: Literal["cheap", "whole"] | None = None
    details: bool = True

    @property
    def images(self) -> int | None:
        """How many images are looked at; None means all."""
        return QUICK_IMAGES if self.limit is None and self.quick else self.limit

    @property
    def quick(self) -> bool:
        """Whether this is the quick suite."""
        return self.attacks is None and self.suite in (None, "quick")

    @property
    def cheap(self) -> bool:
        """Whether the checks have a price."""
        return self.quick if self.depth is None else self.depth == "cheap"

    def check(self) -> None:
        """See that the numbers make sense.

        Raises:
            ValueError: they don't.
        """
        for name, value in (("limit", self.limit), ("block", self.block), ("processes", self.processes)):
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
                raise ValueError(f"attacks names a {type(each).__name__}: give a list of names, or attacks by names")


def judge(
    candidate: Candidate,
    how: How,
    *,
    device: torch.device | None,
    out: Path | None,
    source: Source | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Attack, check, and write both down.

    Args:
        candidate, how: what is judged, and how.
        device: where; None means where the model is.
        out: where to write; None writes nothing.
        source: a normally trained net for the same images, or what makes it, called when all else has been checked.
        console: where to show progress.

    Raises:
        ValueError: the model or the source doesn't fit the images, or another process is at work in ``out``.
    """
    if out is not None:
        check_usable(out)
    place = device or next(candidate.net.parameters(), candidate.split.images).device
    net, split = candidate.net.to(place), candidate.split.to(place)
    attacks, made = _checked(net, candidate, how, split, source)
    if console is not None and candidate.about.get("weights") == "as made":
        console.print(f"no --weights: {candidate.name} is evaluated as it is made", highlight=False, markup=False)
    if console is not None and candidate.split_off:
        console.print(
            f"{candidate.data} has no test images: {candidate.split_off:,} of its images are taken as such, a "
            "stratified tenth; put them below test/ to attack all",
            highlight=False, markup=False,
        )  # fmt: skip
    precision = _searched_in(net, split, how)
    if console is not None and (precision, how.precision) == ("fp32", "bf16"):
        console.print("in bf16 this model answers otherwise, so attacks search in fp32", highlight=False)
    trained_mode = None if isinstance(net, Wrapped) else net.training
    with nullcontext() if out is None or not distributed.first() else alone(out):
        if how.time_budget is not None:
            candidate = budget.within(candidate, split, how, attacks, precision, out)
            split = candidate.split.to(place)
        block = how.block or block_size(place, len(split))
        asked: dict[str, Any] = {"seed": how.seed, "precision": precision, "block": block}
        found = measure(
            net, split, attacks, **asked, index=candidate.index, processes=how.processes, folder=out, console=console
        )
        result: dict[str, Any] = {**_figures(found, candidate), "verdict": None}
        stopped: KeyboardInterrupt | None = None
        if how.verdict and distributed.first():
            if console is not None:
                console.print("now the checks that say whether the number can be believed", highlight=False)
            said = Asked(Blocks(net, block, precision), how.seed, made, trained_mode, how.cheap)
            concluded, stopped = conclude(found, candidate, said, console)
            result |= concluded
            if stopped is not None and distributed.count() > 1:  # the others are stopped, too, and can agree on nothing
                raise stopped
        result |= {**_subject(candidate), **asked, **candidate.about, "provenance": provenance(place)}
        result = distributed.agreed(result)  # the checks are the first process's
        if out is not None and distributed.first():
            blocks = Blocks(net, block, precision)
            stopped = _write(out, result, found, candidate, attacks, blocks, how, console, stopped)
            if stopped is None:
                found.state.remove()
                budget.forget(out)
    if stopped is not None:
        raise Unfinished(result, stopped)
    return result


def _searched_in(net: nn.Module, split: Split, how: How) -> Precision:
    """What attacks search in, after seeing that the model answers so as it does otherwise."""
    precision = search_precision(net, as_floats(split.images[:1]), how.precision)
    if precision != "bf16":
        return precision
    size = how.block or block_size(split.labels.device, len(split))
    blocks = Blocks(net, size, precision)
    blocks.compare(as_floats(split.images[: 2 * size]))
    return blocks.precision


def _checked(
    net: nn.Module, candidate: Candidate, how: How, split: Split, source: Source | None
) -> tuple[dict[str, Attack], nn.Module | None]:
    """The attacks and the source, made, after seeing that they and the net fit together.

    Raises:
        ValueError: they don't.
    """
    outputs = check_fit(net, candidate)
    attacks = attacks_of(candidate, how)
    if how.processes > 1:
        for name, thing in {"the model": net, **{f"attack {name}": attack for name, attack in attacks.items()}}.items():
            check_sendable(name, thing)
    made = source if source is None or isinstance(source, nn.Module) else source()
    if made is not None:
        check_source(made, outputs, split.images)
    return attacks, made


def _subject(candidate: Candidate) -> dict[str, Any]:
    """What was attacked, and what it was to withstand."""
    return {
        "model": candidate.name,
        "classes": list(candidate.class_names),
        "threat": {"norm": candidate.threat.norm, "eps": float(candidate.threat.eps)},
        "data": candidate.data,
    }


def _write(
    out: Path,
    result: dict[str, Any],
    found: Evaluation,
    candidate: Candidate,
    attacks: Mapping[str, Attack],
    blocks: Blocks,
    how: How,
    console: Console | None,
    stopped: KeyboardInterrupt | None,
) -> KeyboardInterrupt | None:
    """The files of an evaluation, after a closer look at a few images where that is wanted, and nobody stops it."""
    pictures, diagnostics = None, {}
    if how.details and stopped is None:
        if console is not None:
            console.print("now a closer look at a few images, for the report", highlight=False)
        try:
            with progress_bar(console or Console(quiet=True)) as bar:
                task = bar.add_task("gallery", total=5)  # the gallery and four diagnostics at most

                def show(name: str) -> None:
                    bar.update(task, advance=1, description=name)

                pictures = gallery(found, candidate, attacks, blocks, how.seed)
                diagnostics = look_closer(found, candidate, blocks, how.seed, show)
        except KeyboardInterrupt as signal:
            stopped = signal
    begun = found.state.name
    if stopped is not None:
        result["unfinished"] = begun
    set_aside(out)
    write_results(out, result, found.ledger(), pictures, begun)
    add_closer_look(out, diagnostics)
    return stopped


def _figures(found: Evaluation, candidate: Candidate) -> dict[str, Any]:
    """The accuracies, and for a sample what they say of the whole test set."""
    result = found.summary()
    if len(found.split) < candidate.total:
        names = ("clean_accuracy", "robust_accuracy")
        result["interval"] = {name: interval(result[name], len(found.split)) for name in names}
    return result


def attacks_of(candidate: Candidate, how: How) -> dict[str, Attack]:
    """The attacks that are asked for, by their names.

    Raises:
        ValueError: none is named, or there is none of a name, or one is bound by another threat.
    """
    if how.attacks is None:
        shape = tuple(candidate.split.images.shape[1:])
        return suite(how.suite or "quick", candidate.threat, shape, candidate.adaptive)
    if not how.attacks:
        raise ValueError("no attack was named: give one or more, such as --attacks fgsm pgd-20")
    if isinstance(how.attacks, Mapping):
        return {name: held(name, attack, candidate.threat) for name, attack in how.attacks.items()}
    found: dict[str, Attack] = {}
    for spec in how.attacks:
        attack = parse_attack(spec, candidate.threat)
        if any(type(each) is type(attack) and each == attack for each in found.values()):  # noise goes by the spelling
            raise ValueError(
                f"attack {spec.strip()} is named twice: name it once (x2 behind its steps means 2 restarts)"
            )
        found[spec.strip()] = attack
    return found

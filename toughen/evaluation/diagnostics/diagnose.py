"""Diagnoses trained runs on their test images, into diagnostics.json."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress, TaskID
from torch import nn

from toughen.attacks.base import Attack
from toughen.core.types import Eps, Norm
from toughen.engine.device import Precision, pick_device, provenance
from toughen.evaluation.diagnostics.cases import Case, load_cases, refuse_different_images
from toughen.evaluation.diagnostics.names import OF_A_RUN, chosen
from toughen.evaluation.diagnostics.store import add_diagnostics, check_usable
from toughen.evaluation.diagnostics.transfer import transfer_matrix
from toughen.evaluation.images import left_unchecked
from toughen.evaluation.suite import parse_attack
from toughen.runs import read_record
from toughen.utils.console import say
from toughen.utils.progress import progress_bar

TRANSFER = ("fgsm", "mi-fgsm-20", "pgd-20", "pgd-10")


def diagnose_runs(
    runs: Sequence[str | Path],
    *,
    data: str | None = None,
    which: Sequence[str] | None = None,
    transfer_attacks: Sequence[str] = TRANSFER,
    eps: Eps | None = None,
    norm: Norm | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: Precision = "fp32",
    out: str | Path | None = None,
    models: Mapping[str, nn.Module] | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Diagnose runs on test images, all at one threat, and write what is found as each diagnostic ends.

    A run's own diagnostics go into diagnostics.json of its directory, or of one in ``out`` that bears its name, where
    it is asked at another threat or on other data than it was trained with. The transfer matrices, and the runs' mean
    surfaces side by side as "surfaces", go into that of ``out``; without it the matrices go into every run's.
    Diagnostics of other names that these files hold stay there.

    Args:
        runs: run directories.
        data: the data set; None means the one that each run was trained on.
        which: names out of ``diagnostics.NAMES``; None means all, without transfer where there is one run.
        transfer_attacks: short names, as ``parse_attack`` reads them.
        eps, norm: the threat; None means the one that the runs were trained against.
        limit: diagnose by a stratified sample of so many images.
        seed: of the sample and of all random numbers.
        device: "auto", "cpu", "cuda" and the like.
        precision: of the search for adversarial images; the figures are taken in float32.
        out: where to write what compares the runs, and what is not at a run's own threat and data.
        models: nets of your own, by the run as it is named in ``runs``.
        console: where to show progress.

    Returns:
        ``runs``: what was found by run and diagnostic; ``shared``: what compares them, by diagnostic; ``folders``:
        where it was written.

    Raises:
        ValueError: runs, data, threat and diagnostics can't be used together.
    """
    runs = [runs] if isinstance(runs, str | Path) else runs
    own, transfer = chosen(which, len(runs))
    folders = [Path(run) for run in runs]
    for file in filter(Path.is_file, folders):
        read_record(file)  # says what to do with a file
    for folder in folders + ([Path(out)] if out else []):
        check_usable(folder)
    place = pick_device(device)
    cases = load_cases(
        runs, data=data, eps=eps, norm=norm, limit=limit, seed=seed, device=place, precision=precision,
        out=Path(out) if out else None, models=models or {},
    )  # fmt: skip
    threat = cases[0].threat
    attacks = {spec: parse_attack(spec, threat) for spec in transfer_attacks} if transfer else {}
    if transfer:
        refuse_different_images(cases)
    about = _how(cases, precision, place)
    with progress_bar(console or Console(quiet=True)) as bar:
        task = bar.add_task("", total=len(cases) * len(own) + len(attacks))
        results = _of_each(cases, own, about, bar, task)
        matrices = _between(cases, attacks, about, bar, task)
    shared, written = _compared(results, matrices, surfaces=bool(out)), [case.results for case in cases if own]
    for folder in ([Path(out)] if out else folders) if shared else []:
        add_diagnostics(folder, shared)
        written += [folder] if folder not in written else []
    return {"runs": results, "shared": shared, "folders": [str(folder) for folder in written]}


def _how(cases: Sequence[Case], precision: Precision, place: torch.device) -> dict[str, Any]:
    """What holds for all diagnostics: threat, seed, precision, and where it was measured."""
    first = cases[0]
    return {
        "threat": {"norm": first.threat.norm, "eps": float(first.threat.eps)},
        "seed": first.seed,
        "precision": precision,
        "provenance": provenance(place),
        **{name: said for case in cases for name, said in left_unchecked(case.folder).items()},
    }


def _compared(
    results: Mapping[str, Mapping[str, Any]], matrices: Mapping[str, Any], *, surfaces: bool
) -> dict[str, Any]:
    """What lies between runs: transfer matrices, and their mean surfaces where these are wanted."""
    shared: dict[str, Any] = {"transfer": {"attacks": dict(matrices)}} if matrices else {}
    means = {name: _mean_surface(each["surface"]) for name, each in results.items() if "surface" in each}
    if surfaces and means:
        shared["surfaces"] = {"runs": means}
    return shared


def _of_each(
    cases: Sequence[Case], names: Sequence[str], about: Mapping[str, Any], bar: Progress, task: TaskID
) -> dict[str, dict[str, Any]]:
    """Each run's own diagnostics, written one by one."""
    results: dict[str, dict[str, Any]] = {case.name: {} for case in cases}
    for case in cases:
        for name in names:
            bar.update(task, description=f"{case.name}: {name}")
            started, before = time.perf_counter(), _passes([case])
            result = OF_A_RUN[name](case)
            results[case.name][name] = result | _by_what(result, [case], about, started, before)
            add_diagnostics(case.results, {name: results[case.name][name]})
            _ended(f"{case.name}: {name}", results[case.name][name], bar, task)
    return results


def _between(
    cases: Sequence[Case], attacks: Mapping[str, Attack], about: Mapping[str, Any], bar: Progress, task: TaskID
) -> dict[str, dict[str, Any]]:
    """The transfer matrix of each attack."""
    results, first = {}, cases[0]
    for name, attack in attacks.items():
        bar.update(task, description=f"transfer: {name}")
        started, before = time.perf_counter(), _passes(cases)
        result = transfer_matrix({case.name: case.model for case in cases}, first.x, first.y, attack, first.seed)
        results[name] = result | _by_what(result, cases, about, started, before)
        _ended(f"transfer: {name}", results[name], bar, task)
    return results


def _ended(title: str, result: Mapping[str, Any], bar: Progress, task: TaskID) -> None:
    """One diagnostic is ready. Without a terminal, which would show the bar, a line says so."""
    bar.advance(task)
    if not bar.console.is_terminal:
        say(bar.console, f"{title}, {result['about']['seconds']:.0f} s")


def _passes(cases: Sequence[Case]) -> int:
    return sum(case.model.counts.total for case in cases)


def _by_what(
    result: Mapping[str, Any], cases: Sequence[Case], about: Mapping[str, Any], started: float, before: int
) -> dict[str, Any]:
    """What was looked at, for how long, and how many images the attacks sent through the models (forward and back)."""
    return {
        "about": {
            "images": result.get("count", len(cases[0].y)),
            "data": cases[0].data,
            "seconds": round(time.perf_counter() - started, 3),
            "passes": _passes(cases) - before,
            **about,
        }
    }


def _mean_surface(surface: Mapping[str, Any]) -> dict[str, Any]:
    """A surface without those of single images."""
    return {name: value for name, value in surface.items() if name not in ("images", "index")}

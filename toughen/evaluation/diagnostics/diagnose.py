"""Diagnoses trained runs on their test images and writes the results to diagnostics.json."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress, TaskID
from torch import nn

from toughen.attacks.base import Attack
from toughen.core.types import Eps, Norm
from toughen.engine.device import Precision, pick_device, provenance
from toughen.evaluation.diagnostics.cases import RunCase, load_cases, refuse_different_images
from toughen.evaluation.diagnostics.names import OF_A_RUN, choose
from toughen.evaluation.diagnostics.store import RESULT, add_diagnostics, check_usable, set_aside
from toughen.evaluation.diagnostics.transfer import transfer_matrix
from toughen.evaluation.images import left_unchecked
from toughen.evaluation.output import refuse_foreign
from toughen.evaluation.suite import parse_attack
from toughen.runs import read_record
from toughen.utils.console import say
from toughen.utils.paths import expanded
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
    """Diagnose runs on test images, all at one threat, and write each diagnostic when it is done.

    The diagnostics of one run are written to diagnostics.json in its directory, or, at another threat or on other data
    than it was trained with, in a folder with its name in ``out``. Comparisons between runs (the transfer matrices, and
    all mean loss surfaces as "surfaces") are written to diagnostics.json in ``out``. Without ``out``, the matrices are
    written to every run's file, and "surfaces" is left out. Diagnostics with other names remain in these files. But a
    run's file that is older than its weights is first renamed to diagnostics.1.json and so on.

    Args:
        runs: run directories.
        data: the data set; None means the one that each run was trained on.
        which: names out of ``diagnostics.NAMES``; None means all, without transfer where there is one run.
        transfer_attacks: short names, as ``parse_attack`` reads them.
        eps, norm: the threat; None means the one that the runs were trained against.
        limit: use a stratified sample of this many images; None means all.
        seed: of the sample and of all random numbers.
        device: "auto", "cpu", "cuda" and the like.
        precision: what attacks compute in; all figures are computed in float32.
        out: where to write comparisons, and diagnostics that are not at a run's own threat and data.
        models: nets of your own, by the run as it is named in ``runs``.
        console: where to show progress.

    Returns:
        ``runs``: the results by run and diagnostic; ``shared``: the comparisons, by diagnostic; ``folders``: where they
        were written.

    Raises:
        ValueError: runs, data, threat and diagnostics can't be used together.
    """
    runs = [runs] if isinstance(runs, str | Path) else runs
    own, transfer = choose(which, len(runs))
    folders, place = _usable_folders(runs, out)
    torch_device = pick_device(device)
    cases = load_cases(
        runs, data=data, eps=eps, norm=norm, limit=limit, seed=seed, device=torch_device, precision=precision,
        out=place, models=models or {},
    )  # fmt: skip
    threat = cases[0].threat
    attacks = {spec: parse_attack(spec, threat) for spec in transfer_attacks} if transfer else {}
    if transfer:
        refuse_different_images(cases)
    about = _provenance(cases, precision, torch_device)
    console = console or Console(quiet=True)
    if own or place is None:
        _set_aside(cases, console)
    with progress_bar(console) as bar:
        task = bar.add_task("", total=len(cases) * len(own) + len(attacks))
        results = _diagnose_each(cases, own, about, bar, task)
        matrices = _transfer(cases, attacks, about, bar, task)
    shared = _comparisons(results, matrices, surfaces=place is not None)
    written = [case.results for case in cases] if own else []
    for folder in ([place] if place else folders) if shared else []:
        add_diagnostics(folder, shared)
        written += [folder] if folder not in written else []
    return {"runs": results, "shared": shared, "folders": [str(folder) for folder in written]}


def _usable_folders(runs: Sequence[str | Path], out: str | Path | None) -> tuple[list[Path], Path | None]:
    """The runs' folders, and the one for comparisons.

    Raises:
        ValueError: one of them can't be used.
    """
    folders = [Path(run) for run in runs]
    for file in filter(Path.is_file, folders):
        read_record(file)  # its error says what to do with a file
    place = None if out is None else _out(out, folders)
    for folder in folders + ([place] if place else []):
        check_usable(folder)
    return folders, place


def _set_aside(cases: Sequence[RunCase], console: Console) -> None:
    """Move each run's diagnostics of other weights than it has now to another file, and say so."""
    for case in cases:
        if renamed := set_aside(case.results, case.weights):
            say(console, f"{case.results / RESULT} had diagnostics of other weights: they are in {renamed.name}")


def _out(out: str | Path, folders: Sequence[Path]) -> Path:
    """The folder for comparisons.

    Raises:
        ValueError: it is empty, or belongs to a data set or to a run that is not one of ``folders``.
    """
    if not str(out):
        raise ValueError("out is empty: name a folder, or leave it out")
    place = expanded(Path(out))
    above = [each for each in (place, place.absolute().parent) if each.exists()]
    refuse_foreign(place, next((run for run in folders if any(run.is_dir() and run.samefile(a) for a in above)), None))
    return place


def _provenance(cases: Sequence[RunCase], precision: Precision, device: torch.device) -> dict[str, Any]:
    """What all diagnostics have in common: threat, seed, precision, hardware and versions."""
    first = cases[0]
    return {
        "threat": {"norm": first.threat.norm, "eps": float(first.threat.eps)},
        "seed": first.seed,
        "precision": precision,
        "provenance": provenance(device),
        **{name: note for case in cases for name, note in left_unchecked(case.folder).items()},
    }


def _comparisons(
    results: Mapping[str, Mapping[str, Any]], matrices: Mapping[str, Any], *, surfaces: bool
) -> dict[str, Any]:
    """The transfer matrices, and, with ``surfaces``, the mean loss surfaces of all runs."""
    shared: dict[str, Any] = {"transfer": {"attacks": dict(matrices)}} if matrices else {}
    means = {name: _mean_surface(each["surface"]) for name, each in results.items() if "surface" in each}
    if surfaces and means:
        shared["surfaces"] = {"runs": means}
    return shared


def _diagnose_each(
    cases: Sequence[RunCase], names: Sequence[str], about: Mapping[str, Any], bar: Progress, task: TaskID
) -> dict[str, dict[str, Any]]:
    """Make and write each run's own diagnostics."""
    results: dict[str, dict[str, Any]] = {case.name: {} for case in cases}
    for case in cases:
        for name in names:
            bar.update(task, description=f"{case.name}: {name}")
            result = _timed(partial(OF_A_RUN[name], case), [case], about)
            results[case.name][name] = result
            add_diagnostics(case.results, {name: result})
            _report_end(f"{case.name}: {name}", result, bar, task)
    return results


def _transfer(
    cases: Sequence[RunCase], attacks: Mapping[str, Attack], about: Mapping[str, Any], bar: Progress, task: TaskID
) -> dict[str, dict[str, Any]]:
    """The transfer matrix of each attack."""
    results, first = {}, cases[0]
    for name, attack in attacks.items():
        bar.update(task, description=f"transfer: {name}")
        models = {case.name: case.model for case in cases}
        matrix = partial(transfer_matrix, models, first.x, first.y, attack, first.seed)
        results[name] = _timed(matrix, cases, about)
        _report_end(f"transfer: {name}", results[name], bar, task)
    return results


def _report_end(title: str, result: Mapping[str, Any], bar: Progress, task: TaskID) -> None:
    """One diagnostic is ready. Without a terminal, which would show the bar, a line says so."""
    bar.advance(task)
    if not bar.console.is_terminal:
        say(bar.console, f"{title}, {result['about']['seconds']:.0f} s")


def _timed(
    diagnostic: Callable[[], dict[str, Any]], cases: Sequence[RunCase], about: Mapping[str, Any]
) -> dict[str, Any]:
    """A diagnostic that runs the models of these cases, with its cost and what all have in common in "about"."""

    def passes() -> int:
        return sum(case.model.counts.total for case in cases)

    started, before = time.perf_counter(), passes()
    result = diagnostic()
    own = {
        "images": result.get("count", len(cases[0].y)),
        "data": cases[0].data,
        "weights": [case.weights for case in cases],
        "seconds": round(time.perf_counter() - started, 3),
        "passes": passes() - before,
    }
    return result | {"about": own | dict(about)}


def _mean_surface(surface: Mapping[str, Any]) -> dict[str, Any]:
    """A loss surface without those of single images."""
    return {name: value for name, value in surface.items() if name not in ("images", "index")}

"""The steps of an evaluation whose arguments were checked: attack, check the number, write the files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from toughen.core.distributed import world
from toughen.data import Split
from toughen.engine.device import provenance
from toughen.evaluation.budget import REPORT_PASSES, clear_plan, fit_to_budget
from toughen.evaluation.conclude import Unfinished, conclude
from toughen.evaluation.details import collect_report_data
from toughen.evaluation.diagnostics.store import add_missing, set_aside
from toughen.evaluation.harness import as_floats
from toughen.evaluation.job import Job
from toughen.evaluation.result import Evaluation, write_results
from toughen.evaluation.runner import measure
from toughen.evaluation.target import EvaluationTarget
from toughen.runs.locks import alone
from toughen.utils import hashing
from toughen.utils.statistics import interval
from toughen.utils.units import format_duration


def run_evaluation(job: Job) -> dict[str, Any]:
    """Run an evaluation, write its files, and return the contents of evaluation.json.

    Raises:
        Unfinished: a KeyboardInterrupt after the attacks; the results so far are in it, and are written, too.
        ValueError: the time budget is too short, or another process writes to ``job.out``.
    """
    with _lock(job.out):
        job = fit_to_budget(job)
        evaluation = _attack(job)
        try:
            result, stopped = _result(job, evaluation)
        except Exception:
            if job.out is not None and not world().is_distributed:  # the attacks' results must not be lost
                unchecked, _ = _result(replace(job, config=replace(job.config, verdict=False)), evaluation)
                _write(job, job.out, unchecked, evaluation, KeyboardInterrupt())
                job.say(f"the checks failed; the attacks' results are written to {job.out}, without a verdict")
            raise
        if job.out is not None:
            stopped = world().on_main(_write, job, job.out, result, evaluation, stopped)
    if stopped is not None:
        raise Unfinished(result, stopped)
    return result


def _lock(out: Path | None) -> AbstractContextManager[Any]:
    """A lock on the folder, which the main process takes."""
    return nullcontext() if out is None else world().on_main(alone, out) or nullcontext()


def _attack(job: Job) -> Evaluation:
    """Run the attacks."""
    return measure(
        job.target.net,
        job.split,
        job.attacks,
        seed=job.config.seed,
        index=job.target.index,
        precision=job.precision,
        batch_size=job.batch_size,
        processes=job.config.processes,
        folder=job.out,
        console=job.console,
    )


def _result(job: Job, evaluation: Evaluation) -> tuple[dict[str, Any], KeyboardInterrupt | None]:
    """The contents of evaluation.json with the verdict, and the signal that stopped the checks, if there was one."""
    target, config = job.target, job.config
    result: dict[str, Any] = {**_figures(evaluation, target), "verdict": None}
    stopped: KeyboardInterrupt | None = None
    if config.verdict:
        verdict, stopped = world().on_main(conclude, job, evaluation) or (dict[str, Any](), None)
        result |= verdict
        if stopped is not None and world().is_distributed:  # as are the others: no broadcast
            raise stopped
    result |= {
        "model": target.name,
        "classes": list(target.class_names),
        "threat": {"norm": target.threat.norm, "eps": float(target.threat.eps)},
        "data": target.data,
        "data_hash": _data_hash(job.split),
        "seed": config.seed,
        "precision": job.precision,
        "batch_size": job.batch_size,
        **target.about,
        "provenance": provenance(job.device),
    }
    return world().broadcast(result), stopped  # only the main process has the verdict


def _data_hash(split: Split) -> str:
    """A hash of images and labels, the same for bytes and for the floats that they become."""
    parts = [hashing.of_tensor(as_floats(some)) for some in split.images.split(1024)]
    return hashlib.blake2b("".join([*parts, hashing.of_tensor(split.labels)]).encode(), digest_size=16).hexdigest()


def _figures(evaluation: Evaluation, target: EvaluationTarget) -> dict[str, Any]:
    """The accuracies; for a sample also their 95 % confidence intervals for the whole test set."""
    result = evaluation.summary()
    if len(evaluation.split) < target.total:
        names = ("clean_accuracy", "robust_accuracy")
        result["interval"] = {name: interval(result[name], len(evaluation.split)) for name in names}
    return result


def _write(
    job: Job, out: Path, result: dict[str, Any], evaluation: Evaluation, stopped: KeyboardInterrupt | None
) -> KeyboardInterrupt | None:
    """Write the files of an evaluation; unless it was stopped, make those for a report first.

    Returns:
        The signal that stopped the evaluation, if there was one.
    """
    images: pa.Table | None = None
    diagnostics: dict[str, dict[str, Any]] = {}
    if job.config.details and stopped is None:
        job.say(f"now some diagnostics on a few images, for the report{_at_most(result)}")
        try:
            images, diagnostics = collect_report_data(job, evaluation)
        except KeyboardInterrupt as signal:
            stopped = signal
    name = evaluation.state.name
    if stopped is not None:
        result["unfinished"] = name
    set_aside(out, job.target.weights, by_evaluation=True)
    write_results(out, result, evaluation.ledger(), images, name)
    add_missing(out, diagnostics)
    if stopped is None:
        evaluation.state.remove()
        clear_plan(out)
    return stopped


def _at_most(result: Mapping[str, Any]) -> str:
    """How long the data for a report take, estimated by the attacks' seconds per pass; "" if they made no passes."""
    figures = result["attacks"].values()
    passes = sum(each["passes"] for each in figures)
    if not passes:
        return ""
    return f"; at most about {format_duration(REPORT_PASSES * sum(each['seconds'] for each in figures) / passes)}"

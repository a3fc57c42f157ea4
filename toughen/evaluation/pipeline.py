"""One evaluation from its attacks to its files: check, attack, judge the number, write all of it down."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from toughen.core.distributed import world
from toughen.engine.device import provenance
from toughen.evaluation import budget
from toughen.evaluation.conclude import Unfinished, VerdictInputs, conclude
from toughen.evaluation.config import EvaluationConfig
from toughen.evaluation.details import collect_report_data
from toughen.evaluation.diagnostics.store import add_missing, check_usable, set_aside
from toughen.evaluation.function_model import FunctionModel
from toughen.evaluation.gallery import gallery
from toughen.evaluation.job import Job, Source, prepare
from toughen.evaluation.result import Evaluation, write_results
from toughen.evaluation.runner import measure
from toughen.evaluation.target import EvaluationTarget
from toughen.runs.locks import alone
from toughen.utils.duration import spell
from toughen.utils.progress import progress_bar
from toughen.utils.statistics import interval


def run_evaluation(
    target: EvaluationTarget,
    config: EvaluationConfig,
    *,
    device: torch.device | None,
    out: Path | None,
    source: Source | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Attack, check, and write both down.

    Args:
        target, config: what is evaluated, and how.
        device: where; None means where the model is.
        out: where to write; None writes nothing.
        source: a normally trained net for the same images, or what makes it, called when all else has been checked.
        console: where to show progress.

    Returns:
        What evaluation.json holds.

    Raises:
        Unfinished: a KeyboardInterrupt that came after the attacks, with what is known, which is written, too.
        ValueError: the model or the source doesn't fit the images, or another process is at work in ``out``.
    """
    if out is not None:
        check_usable(out)
    job = prepare(target, config, device, out, source, console)
    with _lock(out):
        job = _fit_to_budget(job)
        attacked = _attack(job)
        result, stopped = _judge(job, attacked)
        if out is not None:
            stopped = world().on_main(_write, job, out, result, attacked, stopped)
    if stopped is not None:
        raise Unfinished(result, stopped)
    return result


def _lock(out: Path | None) -> AbstractContextManager[Any]:
    return nullcontext() if out is None else world().on_main(alone, out) or nullcontext()


def _fit_to_budget(job: Job) -> Job:
    """The same with as many images as the time allows."""
    if job.config.time_budget is None:
        return job
    fewer = budget.fit_to_budget(job.target, job.split, job.config, job.attacks, job.precision, job.out)
    return replace(job, target=fewer, split=fewer.split.to(job.device))


def _attack(job: Job) -> Evaluation:
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


def _judge(job: Job, attacked: Evaluation) -> tuple[dict[str, Any], KeyboardInterrupt | None]:
    """What evaluation.json holds, and the signal that came before all checks were made."""
    target, config = job.target, job.config
    result: dict[str, Any] = {**_figures(attacked, target), "verdict": None}
    stopped: KeyboardInterrupt | None = None
    if config.verdict:
        verdict, stopped = world().on_main(_conclude, job, attacked) or (dict[str, Any](), None)
        result |= verdict
        if stopped is not None and world().is_distributed:  # the others are stopped, too, and can agree on nothing
            raise stopped
    result |= {
        "model": target.name,
        "classes": list(target.class_names),
        "threat": {"norm": target.threat.norm, "eps": float(target.threat.eps)},
        "data": target.data,
        "seed": config.seed,
        "precision": job.precision,
        "batch_size": job.batch_size,
        **target.about,
        "provenance": provenance(job.device),
    }
    return world().broadcast(result), stopped  # the checks are the main process's


def _conclude(job: Job, attacked: Evaluation) -> tuple[dict[str, Any], KeyboardInterrupt | None]:
    """The verdict, and the signal that came before all checks were made."""
    job.say("now the checks of whether the robust accuracy can be trusted")
    mode = None if isinstance(job.target.net, FunctionModel) else job.target.net.training
    verdict = VerdictInputs(job.model(), job.config.seed, job.source, mode, job.config.cheap)
    return conclude(attacked, job.target, verdict, job.console)


def _figures(attacked: Evaluation, target: EvaluationTarget) -> dict[str, Any]:
    """The accuracies, and for a sample what they say of the whole test set."""
    result = attacked.summary()
    if len(attacked.split) < target.total:
        names = ("clean_accuracy", "robust_accuracy")
        result["interval"] = {name: interval(result[name], len(attacked.split)) for name in names}
    return result


def _write(
    job: Job, out: Path, result: dict[str, Any], attacked: Evaluation, stopped: KeyboardInterrupt | None
) -> KeyboardInterrupt | None:
    """The files of an evaluation, after a closer look at a few images where that is wanted, and nobody stops it."""
    pictures: Any = None
    diagnostics: dict[str, dict[str, Any]] = {}
    if job.config.details and stopped is None:
        job.say(f"now some diagnostics on a few images, for the report{_at_most(result)}")
        try:
            pictures, diagnostics = _closer_look(job, attacked)
        except KeyboardInterrupt as signal:
            stopped = signal
    begun = attacked.state.name
    if stopped is not None:
        result["unfinished"] = begun
    set_aside(out)
    write_results(out, result, attacked.ledger(), pictures, begun)
    add_missing(out, diagnostics)
    if stopped is None:
        attacked.state.remove()
        budget.clear_plan(out)
    return stopped


def _at_most(result: Mapping[str, Any]) -> str:
    """How long the closer look takes at most, by what the attacks' passes took; "" where they made none."""
    figures = result["attacks"].values()
    passes = sum(each["passes"] for each in figures)
    if not passes:
        return ""
    return f"; at most about {spell(budget.LOOK * sum(each['seconds'] for each in figures) / passes)}"


def _closer_look(job: Job, attacked: Evaluation) -> tuple[Any, dict[str, dict[str, Any]]]:
    """The pictures and diagnostics that a report shows."""
    model = job.model()
    with progress_bar(job.console or Console(quiet=True)) as bar:
        task = bar.add_task("gallery", total=5)  # the gallery and four diagnostics at most
        pictures = gallery(attacked, job.target, job.attacks, model, job.config.seed)
        return pictures, collect_report_data(
            attacked,
            job.target,
            model,
            job.config.seed,
            lambda name: bar.update(task, advance=1, description=name),
        )

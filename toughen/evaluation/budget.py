"""Time budgets: passes are timed, and then the budget is a number of images to attack, or of passes for the checks.

So results don't depend on the clock, and an evaluation that is resumed keeps both numbers.
"""

from __future__ import annotations

import bisect
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from toughen.attacks.base import Attack
from toughen.attacks.pgd import PGD
from toughen.attacks.square import Square
from toughen.core.distributed import world
from toughen.core.gradients import input_gradient, mode
from toughen.core.objectives import cross_entropy
from toughen.core.types import Images, Labels
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation.harness import Harness
from toughen.evaluation.images import sample
from toughen.evaluation.job import Job
from toughen.evaluation.plan import AttackRound, attack_rounds
from toughen.evaluation.workers import Workers
from toughen.runs.files import read_json, write_json
from toughen.utils.units import format_duration, parse_duration

STEPS, QUERIES = 10, 50  # of the PGD and the Square that are timed
VERDICT_PASSES = 250_000  # of all checks, at most; counted on robust nets
REPORT_PASSES = 60_000  # of the data for a report, counted likewise
FEWEST = 10  # images; an evaluation with fewer is refused
AIM = 0.9  # share of a time that is planned for: timed passes are only a sample, and loading and writing take time, too
LEAST = 20.0  # seconds that the checks of a cheap verdict may always take
CALLS, SECONDS = 20, 0.5  # limits of their timing: passes differ by a factor of ten if other programs use the cores
NAME = "evaluation-budget.json"


def fit_to_budget(job: Job) -> Job:
    """The job with as many images as its time budget allows; a resumed evaluation keeps its number of images.

    The number is stored in ``job.out`` until the evaluation ends.

    Raises:
        ValueError: the time is too short for ``FEWEST`` images.
    """
    target, config = job.target, job.config
    if config.time_budget is None:
        return job
    key = {"spec": target.name, "attacks": [repr(attack) for attack in job.attacks.values()], "total": len(job.split)}
    key |= {"time_budget": config.time_budget, "seed": config.seed, "precision": job.precision}
    images = world().broadcast(_stored_images(job.out, key))
    if images is None:
        images = _affordable(job, config.time_budget)
        if job.out is not None:
            world().on_main(_store_images, job.out, key, images)
    split, rows = sample(target.split, images, config.seed)
    return replace(job, target=replace(target, split=split, index=target.index[rows]), split=split.to(job.device))


def _affordable(job: Job, time_budget: str) -> int:
    """How many images can be attacked within the time budget if no attack breaks any of them.

    Raises:
        ValueError: the time is too short for ``FEWEST`` images.
    """
    config, threat = job.config, job.target.threat
    harness = Harness(job.model(), job.split.images, job.split.labels, job.target.index, config.seed)
    rounds = [attack_round for name, attack in job.attacks.items() for attack_round in attack_rounds(name, attack)]
    queries = sum(attack_round.cost for attack_round in rounds if isinstance(attack_round.attack, Square))
    price = _price(harness, PGD(eps=threat.eps, norm=threat.norm, steps=STEPS), config.processes)
    per_image = price * (sum(attack_round.cost for attack_round in rounds) - queries)
    if queries:  # a query may recompute only part of the net, and then it takes less time than a pass
        square = Square(eps=threat.eps, norm=threat.norm, queries=QUERIES, rescale_schedule=True)
        per_image += queries * _price(harness, square, config.processes)
    alone = price * world().world_size  # seconds of a pass in the main process, which does the rest
    report_data = config.details and job.out is not None
    report, checks = report_data * REPORT_PASSES * alone, config.verdict * VERDICT_PASSES * alone

    def needed(images: int) -> float:
        """Seconds for so many images; the checks of a cheap verdict take no longer than the attacks, or 20 s."""
        attacking = images * per_image
        return report + attacking + (min(checks, allowed_seconds(attacking)) if config.cheap else checks)

    room = AIM * parse_duration(time_budget)
    if needed(FEWEST) > room:
        raise ValueError(
            f"--time-budget {time_budget} is too short for these attacks: {FEWEST} images take about "
            f"{format_duration(needed(FEWEST) / AIM)}; give more time, or fewer attacks (--attacks), or leave the "
            "checks out (--verdict false, --details false)"
        )
    most = int((room - report) / per_image)
    return bisect.bisect_right(range(most + 1), room, key=needed) - 1


def _price(harness: Harness, attack: Attack, processes: int) -> float:
    """Seconds per pass of one image in an attack, with all workers of all processes."""
    size = harness.model.size
    rows = torch.arange(max(size, min(len(harness.images), 4 * size)), device=harness.images.device) % len(
        harness.images
    )
    attack_round = AttackRound("timing", "timing", 0, attack, 1)
    with Workers(harness, processes) as workers:
        list(workers.run(attack_round, rows.split(size)))  # a warm-up: processes start, kernels are chosen
        started = time.perf_counter()
        outcomes = list(workers.run(attack_round, rows.split(size)))
        elapsed = time.perf_counter() - started
    passes = sum(outcome.counts["forward"] + outcome.counts["gradient"] for outcome in outcomes)
    return world().broadcast(elapsed / passes) / world().world_size


def _store_images(folder: Path, key: Mapping[str, Any], images: int) -> None:
    """Store the number of images with the settings that it was chosen for."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / NAME, {"settings": key, "images": images})


def _stored_images(folder: Path | None, key: Mapping[str, Any]) -> int | None:
    """The number of images that an evaluation with the same settings stored; None where there is none."""
    if folder is None or not (folder / NAME).exists():
        return None
    try:
        stored = read_json(folder / NAME)
    except ValueError:
        return None
    same = isinstance(stored, dict) and stored.get("settings") == json.loads(json.dumps(key))
    images = stored.get("images") if same else None
    return images if isinstance(images, int) and images >= FEWEST else None


def clear_plan(folder: Path) -> None:
    """Remove the stored number of images, when the evaluation has ended."""
    world().on_main((folder / NAME).unlink, missing_ok=True)


def allowed_seconds(attacks: float) -> float:
    """How many seconds the checks of a cheap verdict may take, given the seconds of the attacks."""
    return max(attacks, LEAST)


def passes_within(model: FixedBatchModel, x: Images, y: Labels, seconds: float) -> int:
    """How many forward passes of one image fit into a time. A pass with a gradient counts as two.

    Args:
        model: the model as the checks run it.
        x, y: images and classes to time it with; at most one batch is used.
        seconds: the time.
    """
    times: list[float] = []
    with mode(model, "eval"):
        while len(times) <= CALLS and sum(times[1:]) < SECONDS:
            started = time.perf_counter()
            float(input_gradient(model, x[: model.size], y[: model.size], cross_entropy).value.sum())
            times.append(time.perf_counter() - started)
    return int(AIM * seconds * 2 * model.size / fmean(times[1:]))  # without the first, a warm-up

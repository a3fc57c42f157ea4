"""Chooses how many images an evaluation with a time budget attacks, by timing passes before it begins."""

from __future__ import annotations

import bisect
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from toughen.attacks.base import Attack
from toughen.attacks.pgd import PGD
from toughen.attacks.square import Square
from toughen.core.distributed import world
from toughen.core.threat import Threat
from toughen.data import Split
from toughen.engine.batches import block_size
from toughen.engine.device import Precision
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation.config import EvaluationConfig
from toughen.evaluation.harness import Harness
from toughen.evaluation.images import sample
from toughen.evaluation.plan import AttackRound, attack_rounds
from toughen.evaluation.price import allowed_seconds
from toughen.evaluation.target import EvaluationTarget
from toughen.evaluation.workers import Workers
from toughen.runs.files import read_json, write_json
from toughen.utils.units import format_duration, parse_duration

STEPS, QUERIES = 10, 50  # of the PGD and the Square that are timed
VERDICT_PASSES = 250_000  # of all checks, at most; counted on robust nets
REPORT_PASSES = 60_000  # of the data for a report, counted likewise
FEWEST = 10  # images; an evaluation with fewer is refused
AIM = 0.9  # share of the time budget that is planned for; loading and writing take time, too
NAME = "evaluation-budget.json"


def fit_to_budget(
    target: EvaluationTarget,
    split: Split,
    config: EvaluationConfig,
    attacks: Mapping[str, Attack],
    precision: Precision,
    out: Path | None,
) -> EvaluationTarget:
    """The target with as many images as the time budget allows; a resumed evaluation keeps its number of images.

    Args:
        target: what is evaluated.
        split: its images, on the model's device.
        config: the settings, with the time budget.
        attacks: all attacks of the evaluation.
        precision: what they compute in.
        out: where the number is stored until the evaluation ends; None doesn't store it.

    Raises:
        ValueError: the time is too short for ``FEWEST`` images.
    """
    key = {"spec": target.name, "attacks": [repr(attack) for attack in attacks.values()], "total": len(split)}
    key |= {"time_budget": config.time_budget, "seed": config.seed, "precision": precision}
    images = world().broadcast(_stored_images(out, key))
    if images is None:
        model = FixedBatchModel(target.net, block_size(split.images.device, len(split), config.batch_size), precision)
        harness = Harness(model, split.images, split.labels, target.index, config.seed)
        images = affordable(harness, attacks, target.threat, config, report_data=config.details and out is not None)
        if out is not None:
            world().on_main(_store_images, out, key, images)
    fewer, rows = sample(target.split, images, config.seed)
    return replace(target, split=fewer, index=target.index[rows])


def affordable(
    harness: Harness, attacks: Mapping[str, Attack], threat: Threat, config: EvaluationConfig, *, report_data: bool
) -> int:
    """How many images can be attacked within the time budget if no attack breaks any of them.

    Args:
        harness: the model and images to time passes with.
        attacks: all attacks of the evaluation.
        threat: norm and radius of the attacks.
        config: the settings: the time budget, the number of processes, and which checks are made.
        report_data: whether the data for a report are collected.

    Raises:
        ValueError: the time is too short for ``FEWEST`` images.
    """
    rounds = [attack_round for name, attack in attacks.items() for attack_round in attack_rounds(name, attack)]
    queries = sum(attack_round.cost for attack_round in rounds if isinstance(attack_round.attack, Square))
    price = _price(harness, PGD(eps=threat.eps, norm=threat.norm, steps=STEPS), config.processes)
    per_image = price * (sum(attack_round.cost for attack_round in rounds) - queries)
    if queries:  # a query may recompute only part of the net, and then it takes less time than a pass
        square = Square(eps=threat.eps, norm=threat.norm, queries=QUERIES, rescale_schedule=True)
        per_image += queries * _price(harness, square, config.processes)
    alone = price * world().world_size  # seconds of a pass in the main process, which does the rest
    report, checks = report_data * REPORT_PASSES * alone, config.verdict * VERDICT_PASSES * alone

    def needed(images: int) -> float:
        """Seconds for so many images; the checks of a cheap verdict take no longer than the attacks, or 20 s."""
        attacking = images * per_image
        return report + attacking + (min(checks, allowed_seconds(attacking)) if config.cheap else checks)

    room = AIM * parse_duration(str(config.time_budget))
    if needed(FEWEST) > room:
        raise ValueError(
            f"--time-budget {config.time_budget} is too short for these attacks: {FEWEST} images take about "
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
    write_json(folder / NAME, {"asked": key, "images": images})


def _stored_images(folder: Path | None, key: Mapping[str, Any]) -> int | None:
    """The number of images that an evaluation with the same settings stored; None where there is none."""
    if folder is None or not (folder / NAME).exists():
        return None
    try:
        stored = read_json(folder / NAME)
    except ValueError:
        return None
    same = isinstance(stored, dict) and stored.get("asked") == json.loads(json.dumps(key))
    images = stored.get("images") if same else None
    return images if isinstance(images, int) and images >= FEWEST else None


def clear_plan(folder: Path | None) -> None:
    """Remove the stored number of images, when the evaluation has ended."""
    if folder is not None:
        world().on_main((folder / NAME).unlink, missing_ok=True)

"""An evaluation that ends within a time: as many images as fit, measured before the first."""

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
from toughen.utils.duration import seconds, spell

STEPS, QUERIES = 10, 50  # of the PGD and the Square that are timed
VERDICT = 250_000  # passes of all the checks where images stand: counted on nets that are trained against the threat
LOOK = 60_000  # passes of the closer look for the report, counted likewise
FEWEST = 10  # images below which a number says nothing
AIM = 0.9  # share of the budget that is filled: loading and writing take time too
NAME = "evaluation-budget.json"


def fit_to_budget(
    target: EvaluationTarget,
    split: Split,
    config: EvaluationConfig,
    attacks: Mapping[str, Attack],
    precision: Precision,
    out: Path | None,
) -> EvaluationTarget:
    """The target with as many images as the time allows; an evaluation that was begun before keeps its number.

    Args:
        target: what is evaluated.
        split: its images, on the model's device.
        config: says which time.
        attacks: all of them.
        precision: what they search in.
        out: where the number is kept until the end; None keeps it nowhere.

    Raises:
        ValueError: not even a few images fit.
    """
    key = {"spec": target.name, "attacks": [repr(attack) for attack in attacks.values()], "total": len(split)}
    key |= {"time_budget": config.time_budget, "seed": config.seed, "precision": precision}
    images = world().broadcast(_remembered(out, key))
    if images is None:
        model = FixedBatchModel(target.net, block_size(split.images.device, len(split), config.batch_size), precision)
        harness = Harness(model, split.images, split.labels, target.index, config.seed)
        images = affordable(harness, attacks, target.threat, config, looked=config.details and out is not None)
        if out is not None:
            world().on_main(_remember, out, key, images)
    fewer, rows = sample(target.split, images, config.seed)
    return replace(target, split=fewer, index=target.index[rows])


def affordable(
    harness: Harness, attacks: Mapping[str, Attack], threat: Threat, config: EvaluationConfig, *, looked: bool
) -> int:
    """How many images a suite can attack within a time, if each of them stands to the end.

    Args:
        harness: the model and images to time it with.
        attacks: all of them.
        threat: what the attacks are bound by.
        config: the time, how many processes attack at once, and how deep the checks look.
        looked: whether the closer look is taken, which the first process does alone, as it makes the checks.

    Raises:
        ValueError: not even a few images fit.
    """
    parts = [attack_round for name, attack in attacks.items() for attack_round in attack_rounds(name, attack)]
    asking = sum(attack_round.cost for attack_round in parts if isinstance(attack_round.attack, Square))
    price = _price(harness, PGD(eps=threat.eps, norm=threat.norm, steps=STEPS), config.processes)
    each = price * (sum(attack_round.cost for attack_round in parts) - asking)
    if asking:  # in windows, if the net lets it: a query is less than a pass, how much less is the net's affair
        square = Square(eps=threat.eps, norm=threat.norm, queries=QUERIES, rescale_schedule=True)
        each += asking * _price(harness, square, config.processes)
    look, checks = (passes * price * world().world_size for passes in (looked * LOOK, config.verdict * VERDICT))

    def needed(images: int) -> float:
        """Seconds for so many images: the checks of a cheap verdict cost no more than the attacks, or 20 s."""
        attacking = images * each
        return look + attacking + (min(checks, allowed_seconds(attacking)) if config.cheap else checks)

    room = AIM * seconds(str(config.time_budget))
    if needed(FEWEST) > room:
        raise ValueError(
            f"--time-budget {config.time_budget} is too short for these attacks: {FEWEST} images take about "
            f"{spell(needed(FEWEST) / AIM)}; give more time, or fewer attacks (--attacks), or leave the checks out "
            "(--verdict false, --details false)"
        )
    most = int((room - look) / each)
    return bisect.bisect_right(range(most + 1), room, key=needed) - 1  # it grows with the images


def _price(harness: Harness, attack: Attack, processes: int) -> float:
    """Seconds of a pass of one image in an attack, with all workers of all processes busy."""
    size = harness.model.size
    rows = torch.arange(max(size, min(len(harness.images), 4 * size)), device=harness.images.device) % len(
        harness.images
    )
    attack_round = AttackRound("timing", "timing", 0, attack, 1)
    with Workers(harness, processes) as workers:
        list(workers.run(attack_round, rows.split(size)))  # warms up: processes start, kernels are chosen
        started = time.perf_counter()
        done = list(workers.run(attack_round, rows.split(size)))
        took = time.perf_counter() - started
    passes = sum(outcome.counts["forward"] + outcome.counts["gradient"] for outcome in done)
    return world().broadcast(took / passes) / world().world_size


def _remember(folder: Path, key: Mapping[str, Any], images: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / NAME, {"asked": key, "images": images})


def _remembered(folder: Path | None, key: Mapping[str, Any]) -> int | None:
    """How many images an evaluation that was begun with the same words had room for; None where there is none."""
    if folder is None or not (folder / NAME).exists():
        return None
    try:
        kept = read_json(folder / NAME)
    except ValueError:
        return None
    same = isinstance(kept, dict) and kept.get("asked") == json.loads(json.dumps(key))
    images = kept.get("images") if same else None
    return images if isinstance(images, int) and images >= FEWEST else None


def clear_plan(folder: Path | None) -> None:
    """The evaluation is through."""
    if folder is not None:
        world().on_main((folder / NAME).unlink, missing_ok=True)

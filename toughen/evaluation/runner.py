"""Runs attacks over a data set, round by round, and records the result of every image."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

from toughen.attacks.base import Attack
from toughen.core.distributed import world
from toughen.data import Split
from toughen.engine.batch_size import batch_size_for
from toughen.engine.device import Precision, preserved_rng_state
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation.display import AttackProgress
from toughen.evaluation.fingerprint import fingerprint
from toughen.evaluation.harness import Harness, Outcome, chunk_size
from toughen.evaluation.plan import AttackRound, attack_rounds
from toughen.evaluation.result import Evaluation
from toughen.evaluation.state import restore
from toughen.evaluation.workers import Workers

MOST_PASSES = 1_000_000  # of images in a chunk, where a batch is not more: a killed evaluation loses its current chunks


def measure(
    model: nn.Module,
    split: Split,
    attacks: Mapping[str, Attack],
    *,
    seed: int = 0,
    index: Tensor | None = None,
    precision: Precision = "fp32",
    batch_size: int | None = None,
    processes: int = 1,
    folder: Path | None = None,
    console: Console | None = None,
    show: Callable[[Evaluation, Mapping[str, list[AttackRound]], Console | None], AttackProgress] = AttackProgress,
) -> Evaluation:
    """Run each attack on all images that are classified correctly.

    Args:
        model: takes images in [0, 1], returns logits; its modes are restored.
        split: n images and labels, on the model's device.
        attacks: by their names in the results.
        seed: of all random numbers, which are further keyed by attack, restart and image.
        index: [n], each image's position in the test set; None means 0..n-1.
        precision: what attacks compute in; the unchanged model confirms each broken image.
        batch_size: images per forward pass; None chooses it for the device and the number of images.
        processes: how many processes attack; the result is the same for any number.
        folder: where the state is stored, so that a killed call can be repeated and resumes; None stores nothing.
        console: where to show progress; None shows none.
        show: makes the progress display.
    """
    device = split.labels.device
    index = torch.arange(len(split)) if index is None else index
    fixed_batch = FixedBatchModel(model, batch_size_for(model, split.images, batch_size), precision)
    harness = Harness(fixed_batch, split.images, split.labels, index, seed)
    plans = {name: attack_rounds(name, attack) for name, attack in attacks.items()}
    with world().main_first():  # it removes temporary files that a killed process left
        state = restore(folder, fingerprint(harness, attacks), len(split))
    parts = {name: [attack_round.part for attack_round in plan] for name, plan in plans.items()}
    first = torch.arange(min(fixed_batch.size, len(split)), device=device)
    random = fixed_batch.is_random(harness.floats(first))
    gradient = fixed_batch.has_gradient(harness.floats(first), split.labels[first])
    with preserved_rng_state(device):
        torch.manual_seed(seed)  # random outputs are the same where the evaluation is resumed
        predictions = harness.predict()
    evaluation = Evaluation(split, index, predictions, parts, state, random, gradient)
    with Workers(harness, processes) as workers, show(evaluation, plans, console) as display:
        for name, plan in plans.items():
            _attack(name, plan, evaluation, workers, display)
    return evaluation


def _attack(
    name: str, plan: list[AttackRound], evaluation: Evaluation, workers: Workers, display: AttackProgress
) -> None:
    """Run one attack round by round, each on the images that are still robust; save after each chunk."""
    progress, images = evaluation.state.of(name), evaluation.split.images
    for attack_round in plan[progress.round :]:
        rows = (evaluation.correct.cpu() & ~progress.broken & ~progress.done).nonzero()[:, 0]
        chunks = rows.to(images.device).split(_chunk_size(attack_round, len(rows), workers)) if len(rows) else ()
        started = time.perf_counter()
        for outcome in _outcomes(workers, attack_round, chunks):
            now = time.perf_counter()
            progress.add(outcome, attack_round.part, now - started)
            started = now
            evaluation.state.save()
            display.update(name, attack_round)
        progress.next_round()
        evaluation.state.save()
        if progress.round == len(plan) or plan[progress.round].part != attack_round.part:
            display.finished(name, attack_round.part)


def _outcomes(workers: Workers, attack_round: AttackRound, chunks: Sequence[Tensor]) -> Iterator[Outcome]:
    """The outcomes on all chunks. Each distributed process attacks its share, and all of them get every outcome."""
    group = world()
    outcomes = workers.run(attack_round, chunks[group.rank :: group.world_size])
    for _ in range(0, len(chunks), group.world_size):
        outcome = next(outcomes, None)
        own = {} if outcome is None else {name: getattr(outcome, name) for name in ("rows", "broken", "distance")}
        counts = group.all_gather({} if outcome is None else outcome.counts)
        for tensors, spent in zip(group.all_gather_tensors(own), counts, strict=True):
            if tensors:
                yield Outcome(**tensors, counts=spent)


def _chunk_size(attack_round: AttackRound, rows: int, workers: Workers) -> int:
    """How many images to attack at once: whole batches, equal shares for all workers, and at most ``MOST_PASSES``.

    An attack that couples the images of a batch gets chunks of a size that doesn't depend on the number of workers.
    """
    batch = workers.harness.model.size
    largest = chunk_size(workers.harness.images, batch)
    if getattr(attack_round.attack, "batchwise", False):
        return largest
    largest = min(largest, math.ceil(MOST_PASSES / attack_round.cost / batch) * batch)
    share = rows / (workers.count * world().world_size)
    chunks = math.ceil(share / largest)  # of each worker, all of one size: none waits for another's last one
    return math.ceil(share / chunks / batch) * batch

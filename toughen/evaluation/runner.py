"""Runs attacks over a data set, round by round, and records the result of every image."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

from toughen.attacks.base import Attack
from toughen.core.distributed import world
from toughen.data import Split
from toughen.engine.batches import block_size
from toughen.engine.device import Precision
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation.display import AttackProgress
from toughen.evaluation.fingerprint import fingerprint
from toughen.evaluation.harness import Harness, Outcome, chunk_size
from toughen.evaluation.plan import AttackRound, attack_rounds
from toughen.evaluation.result import Evaluation
from toughen.evaluation.state import restore
from toughen.evaluation.workers import Workers


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
    """Run each attack on all images that are right while clean.

    Args:
        model: takes images in [0, 1], returns logits; its modes are restored.
        split: images and labels, on the model's device.
        attacks: by the names they get in the results.
        seed: of all random numbers, which are further keyed by attack, restart and image.
        index: each image's place in the whole test set; None means 0..n-1.
        precision: what attacks search in; what they find is confirmed by the model as it is.
        batch_size: images per forward pass; None means what suits the device and the number of images.
        processes: how many processes attack; the result is the same for any number.
        folder: where the state is kept, so that this can be killed and called again; None keeps none.
        console: where to show progress; None shows none.
        show: shows it.
    """
    index = torch.arange(len(split)) if index is None else index
    blocks = FixedBatchModel(model, block_size(split.images.device, len(split), batch_size), precision)
    harness = Harness(blocks, split.images, split.labels, index, seed)
    plans = {name: attack_rounds(name, attack) for name, attack in attacks.items()}
    with world().main_first():  # it clears up what a kill has left
        state = restore(folder, fingerprint(harness, attacks), len(split))
    parts = {name: [attack_round.part for attack_round in plan] for name, plan in plans.items()}
    random = blocks.is_random(
        harness.floats(index.new_tensor(range(min(blocks.size, len(split)))).to(split.labels.device))
    )
    evaluation = Evaluation(split, index, harness.predict(), parts, state, random)
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
        rows = (evaluation.correct.cpu() & ~progress.fell & ~progress.done).nonzero()[:, 0]
        chunks = rows.to(images.device).split(_chunk(attack_round, len(rows), workers)) if len(rows) else ()
        started = time.perf_counter()
        for outcome in _everyone(workers, attack_round, chunks):
            now = time.perf_counter()
            progress.add(outcome, attack_round.part, now - started)
            started = now
            evaluation.state.save()
            display.update(name, attack_round)
        progress.next_round()
        evaluation.state.save()
        if progress.round == len(plan) or plan[progress.round].part != attack_round.part:
            display.finished(name, attack_round.part)


def _everyone(workers: Workers, attack_round: AttackRound, chunks: Sequence[Tensor]) -> Iterator[Outcome]:
    """What all processes did to the chunks, of which each takes its share; every process hears of all."""
    group = world()
    outcomes = workers.run(attack_round, chunks[group.rank :: group.world_size])
    for _ in range(0, len(chunks), group.world_size):
        outcome = next(outcomes, None)
        mine = {} if outcome is None else {name: getattr(outcome, name) for name in ("rows", "fell", "moved")}
        counts = group.all_gather({} if outcome is None else outcome.counts)
        for tensors, spent in zip(group.all_gather_tensors(mine), counts, strict=True):
            if tensors:
                yield Outcome(**tensors, counts=spent)


def _chunk(attack_round: AttackRound, rows: int, workers: Workers) -> int:
    """How many images are attacked at once: whole blocks, and as many for each worker, where images are not coupled."""
    block, most = workers.harness.blocks.size, chunk_size(workers.harness.images, workers.harness.blocks.size)
    if getattr(attack_round.attack, "batchwise", False):
        return most
    return min(most, -(-rows // (workers.count * world().world_size * block)) * block)

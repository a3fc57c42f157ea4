"""Trainers as at the start of a run, and the batches to time their steps with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from torch import Tensor

from toughen.cli import parse_train
from toughen.training.run import build
from toughen.training.trainer import Trainer
from toughen.types import Batch, Plan


def ready(words: Sequence[str]) -> Trainer:
    """The trainer of a command line's words, without a run directory."""
    recipe, _, _, _ = parse_train(words)
    trainer, _ = build(recipe, Path("."))
    trainer.method.start(Plan(epochs=recipe.epochs, steps=trainer.steps, images=len(trainer.train)))
    trainer.model.train()
    return trainer


def endless(trainer: Trainer) -> Iterator[tuple[Tensor, Tensor, Batch]]:
    """Full batches of the first epoch, over and over."""
    while True:
        yield from islice(trainer.epoch_batches(0), trainer.steps_per_epoch - 1)

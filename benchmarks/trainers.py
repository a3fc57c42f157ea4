"""Trainers as at the start of a run, and batches for timing their steps."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from toughen import models, runs
from toughen.config.train import parse_train
from toughen.core.types import Batch, Plan
from toughen.data import Data, Split, stratified
from toughen.data.ingest import Outline
from toughen.training.build import build
from toughen.training.trainer import Trainer


def ready(words: Sequence[str], data: Data | None = None) -> Trainer:
    """The trainer of a command line's words, without a run directory.

    Args:
        words: what follows `toughen train`.
        data: the images, instead of those that the words name.
    """
    if data is None:
        recipe, _, _ = parse_train(words)
        trainer, _, _ = build(recipe, Path("."))
    else:
        outline = Outline(data.shape, data.classes, len(data.train), len(data.test))
        with patch("toughen.data.peek", return_value=outline), patch("toughen.data.load_training", return_value=data):
            recipe, _, _ = parse_train(words)
            trainer, _, _ = build(recipe, Path("."))
    trainer.method.start(Plan(epochs=recipe.epochs, steps=trainer.state.steps, images=len(trainer.train)))
    trainer.model.train()
    return trainer


@cache
def untrained(model: str, shape: tuple[int, int, int], classes: int) -> Path:
    """The run directory of an untrained net, for methods that need nets; it takes as much time as a trained one."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    record = runs.Record(
        model=models.describe(model, classes, shape, None, None, {}),
        classes=[str(label) for label in range(classes)],
        shape=list(shape),
        norm="linf",
        eps=None,
        method="Standard",
        data="none",
        weights="live",
        epoch=0,
        validation={},
    )
    runs.write_model(folder, record, models.create(model, classes, shape))
    return folder


def endless(trainer: Trainer) -> Iterator[tuple[Tensor, Tensor, Batch]]:
    """Full batches of the first epoch, repeated, whatever the trainer's step."""
    full = max(1, len(trainer.train) // trainer.recipe.batch_size) * trainer.method.replays
    while True:
        step, trainer.state.step = trainer.state.step, 0
        batches = trainer.epoch_batches(0)
        first = next(batches)  # from here on they no longer look at the state
        trainer.state.step = step
        yield first
        yield from islice(batches, full - 1)


def some(data: Data, images: int) -> Data:
    """The data set with fewer training images, balanced over classes; the time of a step is unchanged."""
    train = data.train.take(stratified(data.train.labels, min(images, len(data.train)), 0))
    return Data(name=data.name, train=train, test=data.test, classes=data.classes)


def made_up(images: int, side: int, classes: int, channels: int = 3) -> Data:
    """Random images with labels, for timing steps at sizes that no data set has."""
    generator = torch.Generator().manual_seed(0)
    shape = (images, channels, side, side)
    split = Split(
        torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator), torch.arange(images) % max(classes, 1)
    )
    few = split.take(torch.arange(min(images, 2 * classes)))
    return Data(name="made up", train=split, test=few, classes=tuple(str(number) for number in range(classes)))

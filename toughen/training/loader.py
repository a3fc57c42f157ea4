"""Batches and augmentation of the training images, by a recipe."""

from __future__ import annotations

import torch

from toughen.core.distributed import world
from toughen.data import Augment, EncodedSplit, Split
from toughen.data.feed import Feed, MemoryFeed, StreamFeed
from toughen.data.ingest import SHARE
from toughen.data.workers import usual_workers
from toughen.training.recipe import Recipe
from toughen.utils.memory import available_memory


def memory_limit(recipe: Recipe, device: torch.device) -> int:
    """Bytes that images may take: as the recipe says, or half of what is available here and on the run's device."""
    if recipe.memory_bytes is not None:
        return recipe.memory_bytes
    room = available_memory()
    if device.type == "cuda":
        room = min(room, torch.cuda.mem_get_info(device)[0])
    return world().broadcast(int(SHARE * room / world().local_world_size))  # all must stream, or none


def feed_of(recipe: Recipe, train: Split | EncodedSplit, validation: Split, device: torch.device) -> Feed:
    """What gives a run its batches.

    Raises:
        ValueError: streamed images would need more memory than they may.
    """
    if isinstance(train, Split):
        return MemoryFeed(train, recipe.seed, recipe.batch_size)
    feed = StreamFeed(
        split=train,
        seed=recipe.seed,
        batch_size=recipe.batch_size,
        device=device,
        buffer=recipe.shuffle_buffer,
        resized=recipe.crop == "resized",
        workers=usual_workers() if recipe.num_workers is None else recipe.num_workers,
    )
    feed.check_memory(memory_limit(recipe, device), validation.images.numel())
    return feed


def augment_of(recipe: Recipe, shape: tuple[int, int, int]) -> Augment:
    """What is done to each image; colour images are cropped and mirrored where the recipe does not say.

    Raises:
        ValueError: images of this shape cannot be cropped so.
    """
    colour = shape[0] > 1
    augment = Augment(
        pad=(4 if colour else 0) if recipe.crop is None else recipe.pad,
        padding=recipe.padding,
        flip=colour if recipe.flip is None else recipe.flip,
    )
    augment.check(*shape[1:])
    return augment

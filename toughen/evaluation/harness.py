"""Runs an attack over many images and judges what it returns; the attack itself judges nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from toughen.attacks.base import Attack, threat_of
from toughen.gradients import logits, mode
from toughen.noise import ImageNoise
from toughen.threat import Threat
from toughen.types import ByteImages, Images, Labels, Mask, PerExample

BLOCK = 256  # images per forward; the last block is filled up, because float32 logits depend on a batch's shape


@dataclass(frozen=True)
class Verdicts:
    """Per image: whether the attack broke it, and how far it then moved it (0 where it didn't)."""

    broken: Mask
    distance: PerExample


def as_floats(images: ByteImages) -> Images:
    """Bytes 0..255 as floats in [0, 1]."""
    return images.to(torch.float32).div_(255)


def share(mask: Mask) -> float:
    """The share of images that a mask marks, 0..1."""
    return int(mask.sum()) / len(mask)


def blocks(rows: Tensor, size: int = BLOCK) -> Iterator[tuple[Tensor, int]]:
    """Cut row numbers into blocks of one size, the last one filled up with its first row; and how many are real."""
    for part in rows.split(size):
        yield torch.cat([part, part[:1].expand(size - len(part))]), len(part)


@torch.no_grad()
def predict(model: nn.Module, images: ByteImages) -> Labels:
    """The predicted classes in evaluation mode; -1 where a logit is not finite, which counts as wrong."""
    found = []
    with mode(model, "eval"):
        for rows, real in blocks(torch.arange(len(images), device=images.device)):
            found.append(_classes(model, as_floats(images[rows]))[:real])
    return torch.cat(found)


@torch.no_grad()
def _classes(model: nn.Module, x: Images) -> Labels:
    out = logits(model, x)
    return torch.where(out.isfinite().all(1), out.argmax(1), -1)


def run_attack(
    model: nn.Module,
    images: ByteImages,
    labels: Labels,
    standing: Mask,
    attack: Attack,
    *,
    name: str,
    seed: int,
    index: Tensor | None = None,
    advance: Callable[[int], None] = lambda images: None,
) -> Verdicts:
    """Attack every standing image, restart after restart; an image that fell is left alone.

    Args:
        model: the model, in any mode; it is attacked in the mode that the attack asks for.
        images: [n, c, h, w] bytes, on the model's device.
        labels: their classes.
        standing: which images to attack, those that are right on the clean image.
        attack: its ``restarts``, where it has any, are run one by one here, so that survivors share full blocks.
        name: keys the random numbers, with ``seed`` and each image's place in the evaluated set.
        seed: of the evaluation.
        index: each image's place in the evaluated set; None means 0..n-1.
        advance: told after each block how many images are done, for a progress display.

    Raises:
        RuntimeError: the attack left the threat or the box [0, 1].
    """
    index = torch.arange(len(images)) if index is None else index
    broken, distance = torch.zeros_like(standing), torch.zeros(len(images), device=images.device)
    threat, restarts = threat_of(attack), getattr(attack, "restarts", 1)
    once = _once(attack)
    with mode(model, "eval"):
        for restart in range(restarts):
            rows = (standing & ~broken).nonzero()[:, 0]
            advance(0 if restart == 0 else int(standing.sum()) - len(rows))
            for block, real in blocks(rows) if len(rows) else ():
                x, y = as_floats(images[block]), labels[block]
                noise = ImageNoise(seed, name, index[block.cpu()].tolist(), restart)
                x_adv = once(model, x, y, noise)
                moved = check(x_adv, x, threat, name)[:real]
                fell = (_classes(model, x_adv) != y)[:real]
                broken[block[:real]] = fell
                distance[block[:real]] = torch.where(fell, moved, 0.0)
                advance(real)
    return Verdicts(broken, distance)


def _once(attack: Attack) -> Attack:
    """The attack with a single restart, ending early where it can."""
    fields = {"restarts": 1, "stop_early": True}
    return replace(attack, **{name: value for name, value in fields.items() if hasattr(attack, name)})  # type: ignore[type-var]


def check(x_adv: Images, x: Images, threat: Threat, name: str) -> PerExample:
    """Each image's distance, after seeing that all of them are within the threat and the box.

    Raises:
        RuntimeError: they are not; the attack is wrong, and no figure of it can be used.
    """
    moved = threat.distance(x_adv, x)
    furthest, low, high = float(moved.max()), float(x_adv.min()), float(x_adv.max())
    if not furthest <= threat.eps * (1 + 1e-5) + 1e-6:
        raise RuntimeError(f"attack {name} moved an image by {furthest:.6g}, beyond eps {threat.eps:.6g}: mend it")
    if not (low >= 0 and high <= 1):
        raise RuntimeError(f"attack {name} returned pixels from {low:.6g} to {high:.6g}, outside [0, 1]: mend it")
    return moved

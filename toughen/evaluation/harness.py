"""Runs one round of an attack over many images and judges its result; the attack itself judges nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from toughen.attacks.base import Attack, threat_of
from toughen.core.gradients import mode
from toughen.core.rng import ImageNoise
from toughen.core.types import AnyImages, Images, Labels, Logits, Mask, PerExample
from toughen.engine.batches import block_size
from toughen.engine.device import Precision
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation.attacked import call_attack, verify_threat
from toughen.evaluation.plan import AttackRound, attack_rounds

PIXELS = 2**24  # numbers in the images that are attacked at once: what an attack keeps of them is several times this


@dataclass(frozen=True)
class Verdicts:
    """Per image: whether the attack broke it, and how far it then moved it (0 where it didn't)."""

    broken: Mask
    distance: PerExample


@dataclass(frozen=True)
class Outcome:
    """What one round of an attack did to some images.

    Attributes:
        rows: their places in the evaluated set.
        fell: which of them it broke.
        moved: the distance of the adversarial image, 0 where it broke none.
        counts: passes by kind, as ``toughen.engine.batches.Counts`` names them.
        x_adv: the images themselves, where they were asked for.
    """

    rows: Tensor
    fell: Mask
    moved: PerExample
    counts: dict[str, int]
    x_adv: Images | None = None


def as_floats(images: AnyImages) -> Images:
    """Bytes 0..255 as floats in [0, 1]; floats stay what they are."""
    return images.to(torch.float32).div_(255) if images.dtype == torch.uint8 else images


def chunk_size(images: AnyImages, block: int) -> int:
    """How many images are attacked at once: whole blocks, and no more than memory holds well."""
    return max(1, min(1024, PIXELS // max(1, images[0].numel())) // block) * block


@dataclass
class Harness:
    """A model and the images that it is judged on.

    Attributes:
        blocks: the model, asked in blocks.
        images: [n, c, h, w] bytes, on the model's device.
        labels: their classes.
        index: each image's place in the whole test set, which keys its random numbers.
        seed: of the evaluation.
    """

    blocks: FixedBatchModel
    images: AnyImages
    labels: Labels
    index: Tensor
    seed: int

    def floats(self, rows: Tensor) -> Images:
        """Some images, in [0, 1], of the precision that the model is asked in."""
        x = as_floats(self.images[rows])
        return x.double() if self.blocks.precision == "fp64" else x

    def predict(self) -> Labels:
        """The predicted classes; -1 where a logit is not finite, which counts as wrong.

        A model that draws its answer is asked once: how often it is right so is how often it is right.
        """
        rows = torch.arange(len(self.images), device=self.images.device)
        classes = []
        with mode(self.blocks, "eval"):
            for part in rows.split(chunk_size(self.images, self.blocks.size)):
                classes.append(predicted(self.blocks.exact(self.floats(part))))
        return torch.cat(classes)

    def attack(self, attack_round: AttackRound, rows: Tensor, keep: bool = False) -> Outcome:
        """Run a round of an attack on some images, and judge its result by the model itself.

        Raises:
            RuntimeError: the attack left the threat or the box [0, 1].
        """
        before = asdict(self.blocks.counts)
        x, y = self.floats(rows), self.labels[rows]
        noise = ImageNoise(self.seed, attack_round.key, self.index[rows.cpu()].tolist(), attack_round.number)
        with mode(self.blocks, "eval"):
            x_adv = call_attack(attack_round.attack, attack_round.key, self.blocks, x, y, noise)
            moved = verify_threat(x_adv, x, threat_of(attack_round.attack), attack_round.key)
            fell = self.blocks.misclassifies(x_adv, y)
        counts = {name: value - before[name] for name, value in asdict(self.blocks.counts).items()}
        return Outcome(rows, fell, torch.where(fell, moved, 0.0).float(), counts, x_adv if keep else None)


def predicted(logits: Logits) -> Labels:
    """The classes of the highest logits; -1 where a logit is not finite, which counts as wrong."""
    return torch.where(logits.isfinite().all(1), logits.argmax(1), -1)


def predict(model: nn.Module, images: AnyImages) -> Labels:
    """The predicted classes in evaluation mode; -1 where a logit is not finite, which counts as wrong."""
    return _bench(model, images, torch.zeros(len(images), dtype=torch.int64), None, 0).predict()


def run_attack(
    model: nn.Module,
    images: AnyImages,
    labels: Labels,
    robust: Mask,
    attack: Attack,
    *,
    name: str,
    seed: int,
    index: Tensor | None = None,
    precision: Precision | None = None,
    advance: Callable[[int], None] = lambda images: None,
) -> Verdicts:
    """Attack every standing image, restart after restart; an image that fell is left alone.

    Args:
        model: the model, in any mode; it is attacked in evaluation mode.
        images: [n, c, h, w] bytes, on the model's device.
        labels: their classes.
        standing: which images to attack, those that are right on the clean image.
        attack: its restarts are run one by one here, so that survivors share full blocks.
        name: keys the random numbers, with ``seed`` and each image's place in the evaluated set.
        seed: of the evaluation.
        index: each image's place in the evaluated set; None means 0..n-1.
        precision: what a copy of the model searches in; what it finds is confirmed by the model. None: no copy.
        advance: told how many images are done, for a progress display.

    Raises:
        RuntimeError: the attack left the threat or the box [0, 1].
    """
    harness = _bench(model, images, labels, index, seed, precision)
    broken, distance = torch.zeros_like(robust), torch.zeros(len(images), device=images.device)
    for attack_round in attack_rounds(name, attack):
        rows = (robust & ~broken).nonzero()[:, 0]
        for part in rows.split(chunk_size(images, harness.blocks.size)) if len(rows) else ():
            outcome = harness.attack(attack_round, part)
            broken[part], distance[part] = outcome.fell, outcome.moved
            advance(len(part))
    return Verdicts(broken, distance)


def _bench(
    model: nn.Module,
    images: AnyImages,
    labels: Labels,
    index: Tensor | None,
    seed: int,
    search: Precision | None = None,
) -> Harness:
    index = torch.arange(len(images)) if index is None else index
    precision: Precision = "fp64" if dtype_of(model) == torch.float64 else search or "fp32"
    blocks = FixedBatchModel(model, block_size(images.device, len(images)), precision, copied=search is not None)
    return Harness(blocks, images, labels, index, seed)


def dtype_of(model: nn.Module) -> torch.dtype:
    """What a model computes in: its first weights' type; float32 where it has none."""
    return next((each.dtype for each in model.parameters() if each.is_floating_point()), torch.float32)

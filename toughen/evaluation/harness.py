"""Runs one round of an attack over many images and judges its result; the attack itself judges nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from toughen.attacks.base import Attack
from toughen.core.gradients import mode
from toughen.core.modules import dtype_of
from toughen.core.rng import ImageNoise
from toughen.core.types import AnyImages, Images, Labels, Logits, Mask, PerExample
from toughen.engine.batch_size import batch_size_for
from toughen.engine.device import Precision
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation.call_attack import call_attack
from toughen.evaluation.plan import AttackRound, attack_rounds

MAX_NUMBERS = 2**24  # in the images attacked at once: what an attack keeps of them is several times as much
MAX_IMAGES = 1024


@dataclass(frozen=True)
class AttackResult:
    """What an attack did to each image.

    Attributes:
        broken: [n], whether the model misclassifies the adversarial image.
        distance: [n], of the adversarial image from the clean one; 0 where the image is not broken.
    """

    broken: Mask
    distance: PerExample


@dataclass(frozen=True)
class Outcome:
    """What one round of an attack did to a chunk of images.

    Attributes:
        rows: [n], which of the evaluated images they are.
        broken, distance: [n], as in ``AttackResult``.
        counts: passes by kind, as ``toughen.engine.batches.Counts`` names them.
        x_adv: the adversarial images [n, c, h, w]; None unless they were asked for.
    """

    rows: Tensor
    broken: Mask
    distance: PerExample
    counts: dict[str, int]
    x_adv: Images | None = None


def as_floats(images: AnyImages) -> Images:
    """Bytes 0..255 as floats in [0, 1]; floats are returned as they are."""
    return images.to(torch.float32).div_(255) if images.dtype == torch.uint8 else images


def chunk_size(images: AnyImages, block: int) -> int:
    """How many images to attack at once: a multiple of ``block``, and no more than fit well into memory."""
    return max(1, min(MAX_IMAGES, MAX_NUMBERS // max(1, images[0].numel())) // block) * block


@dataclass
class Harness:
    """A model and the images that it is evaluated on.

    Attributes:
        model: the model, run in batches of one size.
        images: [n, c, h, w], bytes or floats in [0, 1], on the model's device.
        labels: [n], their classes.
        index: [n], each image's position in the test set; its random numbers are keyed by it.
        seed: of the evaluation.
    """

    model: FixedBatchModel
    images: AnyImages
    labels: Labels
    index: Tensor
    seed: int

    def floats(self, rows: Tensor) -> Images:
        """Some of the images, in [0, 1]; float64 if the model computes in it."""
        x = as_floats(self.images[rows])
        return x.double() if self.model.precision == "fp64" else x

    def predict(self) -> Labels:
        """The predicted classes [n]; -1 where a logit is not finite, which counts as wrong.

        A model with random outputs is run once: on average, the accuracy of one run is its accuracy.
        """
        rows = torch.arange(len(self.images), device=self.images.device)
        with mode(self.model, "eval"):
            chunks = rows.split(chunk_size(self.images, self.model.size))
            return torch.cat([predicted(self.model.exact(self.floats(chunk))) for chunk in chunks])

    def attack(self, attack_round: AttackRound, rows: Tensor, keep: bool = False) -> Outcome:
        """Run a round of an attack on some images, and judge its result with the model itself.

        Args:
            attack_round: the attack, with one restart or target.
            rows: which images, on the model's device.
            keep: whether to return the adversarial images, too.

        Raises:
            RuntimeError: the attack left the threat or the box [0, 1].
        """
        before = asdict(self.model.counts)
        x, y = self.floats(rows), self.labels[rows]
        noise = ImageNoise(self.seed, attack_round.key, self.index[rows.cpu()].tolist(), attack_round.number)
        with mode(self.model, "eval"):
            x_adv, distance = call_attack(attack_round.attack, attack_round.key, self.model, x, y, noise)
            broken = self.model.misclassifies(x_adv, y)
        counts = {name: value - before[name] for name, value in asdict(self.model.counts).items()}
        return Outcome(rows, broken, torch.where(broken, distance, 0.0).float(), counts, x_adv if keep else None)


def predicted(logits: Logits) -> Labels:
    """The classes of the highest logits; -1 where a logit is not finite, which counts as wrong."""
    return torch.where(logits.isfinite().all(1), logits.argmax(1), -1)


def predict(model: nn.Module, images: AnyImages) -> Labels:
    """The predicted classes [n] in evaluation mode; -1 where a logit is not finite, which counts as wrong."""
    return _harness(model, images, torch.zeros(len(images), dtype=torch.int64), None, 0, None).predict()


def run_attack(
    model: nn.Module,
    images: AnyImages,
    labels: Labels,
    correct: Mask,
    attack: Attack,
    *,
    name: str,
    seed: int,
    index: Tensor | None = None,
    precision: Precision | None = None,
) -> AttackResult:
    """Attack images, restart after restart; a broken image is not attacked again.

    Args:
        model: the model, in any mode; it is attacked in evaluation mode.
        images: [n, c, h, w], bytes or floats in [0, 1], on the model's device.
        labels: [n], their classes.
        correct: [n], which images to attack: those that are classified correctly.
        attack: its restarts are run one by one here, so that the remaining images share full batches.
        name: keys the random numbers, with ``seed`` and ``index``.
        seed: of the evaluation.
        index: [n], each image's position in the evaluated set; None means 0..n-1.
        precision: of the copy that the attack runs on; the model confirms each broken image. None: no copy.

    Raises:
        RuntimeError: the attack left the threat or the box [0, 1].
    """
    harness = _harness(model, images, labels, index, seed, precision)
    broken, distance = torch.zeros_like(correct), torch.zeros(len(images), device=images.device)
    for attack_round in attack_rounds(name, attack):
        rows = (correct & ~broken).nonzero()[:, 0]
        for chunk in rows.split(chunk_size(images, harness.model.size)) if len(rows) else ():
            outcome = harness.attack(attack_round, chunk)
            broken[chunk], distance[chunk] = outcome.broken, outcome.distance
    return AttackResult(broken, distance)


def _harness(
    model: nn.Module, images: AnyImages, labels: Labels, index: Tensor | None, seed: int, precision: Precision | None
) -> Harness:
    """A harness in the model's own precision; with ``precision``, attacks run on a copy in it."""
    index = torch.arange(len(images)) if index is None else index
    chosen: Precision = "fp64" if dtype_of(model) == torch.float64 else precision or "fp32"
    fixed_batch = FixedBatchModel(model, batch_size_for(model, images), chosen, copied=precision is not None)
    return Harness(fixed_batch, images, labels, index, seed)

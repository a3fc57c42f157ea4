"""What every check shares: what is judged, what a check says, a sample of images, and how much chance is allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from toughen.attacks.base import Attack, threat_of
from toughen.core.classifier import misclassified
from toughen.core.gradients import input_gradient
from toughen.core.objectives import cross_entropy
from toughen.core.rng import ImageNoise, derive_seed
from toughen.core.threat import Threat
from toughen.core.types import AnyImages, Images, Labels, Logits, Mask
from toughen.engine.device import Precision
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation.attacked import verify_threat
from toughen.evaluation.harness import as_floats

DROP = 0.03  # by which the number may lie above the truth and still be believed
CONFIDENCE = 0.99  # of a model that is as good as a check wants, so many samples pass it


@dataclass(frozen=True)
class Check:
    """One sanity check.

    Attributes:
        name: what was looked at.
        passed: None where the check could not be made.
        figure: what was found; accuracies and shares 0..1.
        threshold: the figure at which the check turns, with what is allowed for chance.
        sentence: the same in words, with what it means.
        masking: it failed, and shows that attacks are kept from what they need, not only that the number is rough.
        images: how many it looked at; None where it was not made.
        of: how many it looks at where no price is set; None where none can be looked at.
    """

    name: str
    passed: bool | None
    figure: float | None
    threshold: float | None
    sentence: str
    masking: bool = False
    images: int | None = None
    of: int | None = None


def not_made(name: str, reason: str) -> Check:
    """A check that could not be made."""
    return Check(name, None, None, None, f"Not made: {reason}.")


def judge(
    name: str, figure: float, threshold: float, good: str, bad: str, *, masking: bool = False, least: bool = False
) -> Check:
    """A check whose figure must not be above its threshold (``least``: below it), in the words of either case."""
    passed = figure >= threshold if least else figure <= threshold
    return Check(name, passed, figure, threshold, good if passed else bad, masking and not passed)


@dataclass(frozen=True)
class Subject:
    """A robust accuracy, and all that is known of how it came about.

    Attributes:
        net: the model as it was handed over, in any mode.
        images, labels: all evaluated images, bytes or floats in [0, 1], on the model's device.
        index: their places in the data set.
        threat: what the images were attacked within.
        seed: of the evaluation.
        standing: which images are right under every attack that was run.
        right: which are right while clean.
        accuracies: per attack that was run, the share of all images that are right under it.
        robust_accuracy: the number that is judged, the share of all images that stand.
        trained_mode: whether the model was handed over in training mode; None where it is a function.
        source: a normal net of the same task, to attack in the model's place; None where there is none.
        own: whether toughen trained it, on images in [0, 1].
    """

    net: nn.Module
    images: AnyImages
    labels: Labels
    index: Tensor
    threat: Threat
    seed: int
    standing: Mask
    right: Mask
    accuracies: Mapping[str, float]
    robust_accuracy: float
    trained_mode: bool | None = False
    source: nn.Module | None = None
    own: bool = False


def allowed(n: int, share: float) -> float:
    """The largest share that a sample of ``n`` images shows, but for one sample in a hundred, where ``share`` is true.

    It is the binomial distribution's quantile over ``n``, 1 where ``share`` is 1 or more.
    """
    if share >= 1 or not n:
        return 1.0
    term, total = (1 - share) ** n, 0.0
    for count in range(n):
        total += term
        if total >= CONFIDENCE:
            return count / n
        term *= share / (1 - share) * (n - count) / (count + 1)
    return 1.0


@dataclass(frozen=True, kw_only=True)
class Question:
    """A check that asks the model about a sample of images.

    Attributes:
        name: what it is called.
        of: "data" asks about any images, "model" about those that are right while clean, "gradients" too, where there
            are gradients and an image stands.
        ask: makes the check, given the model with its images and the name.
        cost: forwards of one image that it takes at most, for each image of its sample (``bench.any`` where it asks
            about data, else ``bench.right``); or, as a function, all that it takes.
        images: how many it looks at at most; None means as many as all do.
        asks: whether it asks the model; else it is made at the end, out of what is known.
    """

    name: str
    of: Literal["data", "model", "gradients"]
    ask: Callable[[Bench, str], Check]
    cost: float | Callable[[Bench], float] = 0.0
    images: int | None = None
    asks: bool = True


class Bench:
    """A subject with a sample of its images, and its model in float32: what the search found in bf16 is tried without.

    Attributes:
        subject: what is judged.
        model: runs in blocks of one size.
        right: rows of a sample of the images that are right while clean.
        standing: rows of a sample of the images that stand; it is what the number rests on.
        any: rows of a sample of all images.
        asked: images per block where the attacks asked, which is ``model``'s own unless it was given another size.
        whole: whether no price is set.
        besides: forwards, or what is as long, that ``model`` has not counted.
        short: where the price leaves no room for what the word rests on most, how many images this had, and how many it
            must have; else None.

    Args:
        subject, blocks: as for the verdict.
        limit: images of each sample, twice as many of ``any``.
        size: images per block of ``model``; None means the attacks' own.
    """

    def __init__(self, subject: Subject, blocks: FixedBatchModel, limit: int, size: int | None = None) -> None:
        self.subject, self.asked = subject, blocks.size
        same = blocks.precision in ("fp32", "fp64") and size in (None, blocks.size)
        precision: Precision = "fp64" if blocks.precision == "fp64" else "fp32"
        self.model = blocks if same else FixedBatchModel(blocks.net, size or blocks.size, precision)
        self.short: tuple[int, int] | None = None
        self.besides, self.whole = 0.0, True
        self.take(limit, 2 * limit)

    def take(self, limit: int, anyhow: int) -> None:
        """Take samples of so many images, and so many of all; a smaller one is the beginning of a larger one."""
        self.right = self.in_order(self.subject.right, limit).sort().values
        self.standing = self.in_order(self.subject.standing, limit).sort().values
        self.any = self.in_order(torch.ones_like(self.subject.right), anyhow).sort().values

    def in_order(self, mask: Mask, limit: int) -> Tensor:
        """Up to ``limit`` of the rows, in an order that comes of the images' places, so that nobody chooses."""
        rows = mask.nonzero()[:, 0].tolist()
        places = self.subject.index.tolist()
        chosen = sorted(rows, key=lambda row: derive_seed("verdict", self.subject.seed, places[row]))[:limit]
        return torch.tensor(chosen, dtype=torch.int64, device=self.subject.labels.device)

    @property
    def threat(self) -> Threat:
        return self.subject.threat

    @property
    def reach(self) -> float:
        """The longest distance between two images."""
        return 1.0 if self.threat.norm == "linf" else math.sqrt(self.subject.images.shape[1:].numel())

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.model.precision == "fp64" else torch.float32

    def x(self, rows: Labels) -> Images:
        """Images in [0, 1]."""
        return as_floats(self.subject.images[rows]).to(self.dtype)

    def y(self, rows: Labels) -> Labels:
        return self.subject.labels[rows]

    def noise(self, name: str, rows: Labels) -> ImageNoise:
        """Random numbers that no attack of the evaluation has used."""
        return ImageNoise(self.subject.seed, f"verdict {name}", self.subject.index[rows.cpu()].tolist())

    def broken(self, attack: Attack, name: str, rows: Labels, on: nn.Module | None = None) -> Mask:
        """Which of the images the model gets wrong after an attack, made on the model or ``on`` another one."""
        x, y = self.x(rows), self.y(rows)
        x_adv = attack(on or self.model, x, y, self.noise(name, rows))
        verify_threat(x_adv, x, threat_of(attack), name)
        return misclassified(self.model.exact(x_adv), y)

    @cached_property
    def clean(self) -> Logits:
        """The logits of the right images."""
        return self.model.exact(self.x(self.right))

    @cached_property
    def classes(self) -> int:
        return self.model.exact(self.x(torch.zeros(1, dtype=torch.int64, device=self.subject.labels.device))).shape[1]

    @cached_property
    def differentiable(self) -> bool:
        """Whether the logits depend on the images as far as autograd can see."""
        row = self.right[:1]
        try:
            input_gradient(self.model.net, self.x(row), self.y(row), cross_entropy)
        except (ValueError, RuntimeError):
            return False
        return True


def percent(share: float) -> str:
    """A share as it stands in a sentence."""
    return f"{100 * share:.1f} %"


def median(values: Tensor) -> float:
    return float(values.double().median()) if len(values) else math.nan

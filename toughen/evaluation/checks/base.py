"""What all checks share: the claim that is judged, a check's result, samples of images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from toughen.attacks.base import Attack, threat_of
from toughen.core.gradients import input_gradient
from toughen.core.objectives import cross_entropy
from toughen.core.rng import ImageNoise, derive_seed
from toughen.core.threat import Threat
from toughen.core.types import AnyImages, Images, Labels, Logits, Mask
from toughen.engine.device import Precision
from toughen.engine.fixed_batch import EXACT_BLOCK, TRIALS, FixedBatchModel
from toughen.evaluation.attacked import verify_threat
from toughen.evaluation.harness import as_floats
from toughen.evaluation.plan import cost
from toughen.evaluation.price import EXACT


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: what was checked.
        passed: None where the check was not made.
        figure: the measured value; accuracies and shares are 0..1.
        threshold: the limit for the figure, with the allowance for chance.
        sentence: the result in words, and what to do.
        masking: it failed because attacks can't work on this model, not only because the number is rough.
        images: how many images were used; None where it was not made.
        of: how many it uses without a budget; None where it can't be made.
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
class Claim:
    """A robust accuracy, and what it was measured on.

    Attributes:
        net: the model as it was handed over, in any mode.
        images, labels: all evaluated images, bytes or floats in [0, 1], on the model's device.
        index: their places in the data set.
        threat: norm and radius of the attacks.
        seed: of the evaluation.
        robust: which images are classified correctly under every attack of the evaluation.
        correct: which clean images are classified correctly.
        accuracies: per attack of the evaluation, the share of images that are classified correctly under it.
        robust_accuracy: the number that is judged: the share of ``robust``.
        trained_mode: whether the model was passed in training mode; None where it is a function.
        source: a normally trained net for the same images, for transfer attacks; None where there is none.
        own: whether toughen trained the model, so that it takes images in [0, 1].
    """

    net: nn.Module
    images: AnyImages
    labels: Labels
    index: Tensor
    threat: Threat
    seed: int
    robust: Mask
    correct: Mask
    accuracies: Mapping[str, float]
    robust_accuracy: float
    trained_mode: bool | None = False
    source: nn.Module | None = None
    own: bool = False


@dataclass(frozen=True, kw_only=True)
class ModelCheck:
    """A check that runs the model on a sample of images.

    Attributes:
        name: its name in results.
        about: "data" uses any images (``context.all``); "model" those that are classified correctly
            (``context.correct``); "gradients" these too, and needs a gradient and a robust image.
        make: makes the check, given the context and the name.
        cost: forward passes of one image, at most, per image of its sample; or a function that gives their sum.
        images: the most images that it uses; None means the whole sample.
        runs_model: False for a check that is made at the end, out of what is known.
    """

    name: str
    about: Literal["data", "model", "gradients"]
    make: Callable[[CheckContext, str], Check]
    cost: float | Callable[[CheckContext], float] = 0.0
    images: int | None = None
    runs_model: bool = True


class CheckContext:
    """A claim with samples of its images, and its model in float32, or float64 where the evaluation used that.

    Attributes:
        claim: what is judged.
        model: runs in blocks of one size.
        correct: rows of a sample of the images that are classified correctly.
        robust: rows of a sample of the images that are robust.
        all: rows of a sample of all images.
        attack_batch: images per block of the evaluation's attacks.
        unlimited: whether there is no budget.
        extra_cost: forward passes that ``model`` doesn't count.
        too_few: images that a decisive check had and images that it needs, where the budget is too small; else None.

    Args:
        claim: the robust accuracy and what it was measured on.
        blocks: the model, as the evaluation ran it.
        limit: images of each sample; ``all`` has twice as many.
        size: images per block of ``model``; None means the attacks' own.
    """

    def __init__(self, claim: Claim, blocks: FixedBatchModel, limit: int, size: int | None = None) -> None:
        self.claim, self.attack_batch = claim, blocks.size
        same = blocks.precision in ("fp32", "fp64") and size in (None, blocks.size)
        precision: Precision = "fp64" if blocks.precision == "fp64" else "fp32"
        self.model = blocks if same else FixedBatchModel(blocks.net, size or blocks.size, precision)
        self.too_few: tuple[int, int] | None = None
        self.extra_cost, self.unlimited = 0.0, True
        self.draw(limit, 2 * limit)

    def draw(self, limit: int, of_all: int) -> None:
        """Draw the samples; a smaller sample is the beginning of a larger one."""
        self.correct = self.sampled_rows(self.claim.correct, limit).sort().values
        self.robust = self.sampled_rows(self.claim.robust, limit).sort().values
        self.all = self.sampled_rows(torch.ones_like(self.claim.correct), of_all).sort().values

    def sampled_rows(self, mask: Mask, limit: int) -> Tensor:
        """Up to ``limit`` of the marked rows, in an order that depends on the seed and the images' places alone."""
        rows = mask.nonzero()[:, 0].tolist()
        places = self.claim.index.tolist()
        chosen = sorted(rows, key=lambda row: derive_seed("verdict", self.claim.seed, places[row]))[:limit]
        return torch.tensor(chosen, dtype=torch.int64, device=self.claim.labels.device)

    @property
    def threat(self) -> Threat:
        return self.claim.threat

    @property
    def diameter(self) -> float:
        """The longest distance between two images."""
        return 1.0 if self.threat.norm == "linf" else math.sqrt(self.claim.images.shape[1:].numel())

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.model.precision == "fp64" else torch.float32

    def x(self, rows: Labels) -> Images:
        """Images in [0, 1]."""
        return as_floats(self.claim.images[rows]).to(self.dtype)

    def y(self, rows: Labels) -> Labels:
        return self.claim.labels[rows]

    def noise(self, name: str, rows: Labels) -> ImageNoise:
        """Random numbers that differ from those of the evaluation's attacks."""
        return ImageNoise(self.claim.seed, f"verdict {name}", self.claim.index[rows.cpu()].tolist())

    def price(self, attack: Attack, passes: float | None = None) -> float:
        """Forward passes of one image that an attack and the judgement on it take at most.

        Of a model that draws, each break that is not confirmed takes some five answers more; the last one takes all.

        Args:
            attack: what is run.
            passes: what it takes itself, where that is not what it says.
        """
        passes = cost(attack) if passes is None else passes
        drawn = self.model.is_random(self.x(self.correct[:EXACT_BLOCK]))
        return 4 * passes + (3 + TRIALS) * EXACT if drawn else passes + 3 * EXACT

    def broken(self, attack: Attack, name: str, rows: Labels, on: nn.Module | None = None) -> Mask:
        """Which images the model misclassifies after an attack on it, or ``on`` another model."""
        x, y = self.x(rows), self.y(rows)
        x_adv = attack(on or self.model, x, y, self.noise(name, rows))
        verify_threat(x_adv, x, threat_of(attack), name)
        return self.model.misclassifies(x_adv, y)

    @cached_property
    def clean(self) -> Logits:
        """The logits of ``correct``."""
        return self.model.exact(self.x(self.correct))

    @cached_property
    def classes(self) -> int:
        return self.model.exact(self.x(torch.zeros(1, dtype=torch.int64, device=self.claim.labels.device))).shape[1]

    @cached_property
    def differentiable(self) -> bool:
        """Whether the logits depend on the images as far as autograd can see."""
        row = self.correct[:1]
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

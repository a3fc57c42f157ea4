"""The basis of all checks: the robust accuracy that is checked, samples of its images, and a check's result."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from toughen.attacks.base import Attack
from toughen.core.rng import ImageNoise, derive_seed
from toughen.core.threat import Threat
from toughen.core.types import AnyImages, Images, Labels, Logits, Mask
from toughen.engine.device import Precision
from toughen.engine.fixed_batch import EXACT_BLOCK, TRIALS, FixedBatchModel
from toughen.engine.memory import is_out_of_memory
from toughen.evaluation.call_attack import call_attack
from toughen.evaluation.harness import as_floats
from toughen.evaluation.plan import cost
from toughen.utils.plugins import describe_error

# costs per image, as multiples of a forward pass in the attacks' batches:
EXACT = 1.25  # a forward pass in float32, in batches of at most 8
DOUBLE = 12.0  # a forward pass in float64 on a CPU
QUERY = 1.25  # a query of Square, including the search for the outputs that a window changes


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
        of: how many images it uses without a budget; None where it can't be made.
    """

    name: str
    passed: bool | None
    figure: float | None
    threshold: float | None
    sentence: str
    masking: bool = False
    images: int | None = None
    of: int | None = None


def made(check: ModelCheck, context: CheckContext) -> Check:
    """The result of a check; a failed one where the model fails, so that the attacks' results are not lost."""
    try:
        return check.make(context, check.name)
    except Exception as error:  # the user's own net may raise anything
        if is_out_of_memory(error):
            raise
        sentence = f"The check ended with an error {describe_error(error)}."
        return Check(check.name, False, None, None, sentence)


def not_made(name: str, reason: str) -> Check:
    """A check that could not be made."""
    return Check(name, None, None, None, f"Not made: {reason}.")


def judge(
    name: str, figure: float, threshold: float, good: str, bad: str, *, masking: bool = False, least: bool = False
) -> Check:
    """The result of a check that passes if its figure is not above its threshold.

    Args:
        name: the check's name.
        figure, threshold: the measured value and its limit.
        good, bad: the sentence if it passes, and if it fails.
        masking: whether a failure shows that attacks can't work on this model.
        least: whether the threshold is a lower limit instead.
    """
    passed = figure >= threshold if least else figure <= threshold
    return Check(name, passed, figure, threshold, good if passed else bad, masking and not passed)


@dataclass(frozen=True)
class Claim:
    """A robust accuracy, and what it was measured on.

    Attributes:
        net: the model as the user passed it, in any mode.
        images: [n, c, h, w], all evaluated images, bytes or floats in [0, 1], on the model's device.
        labels: [n], their classes.
        index: [n], their positions in the data set.
        threat: norm and radius of the attacks.
        seed: of the evaluation.
        robust: [n], which images are classified correctly under every attack of the evaluation.
        correct: [n], which clean images are classified correctly.
        robust_accuracy: the number that is checked: the share of ``robust``.
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
    robust_accuracy: float
    trained_mode: bool | None = False
    source: nn.Module | None = None
    own: bool = False


@dataclass(frozen=True, kw_only=True)
class ModelCheck:
    """A check that runs the model on a sample of images.

    Attributes:
        name: its name in results.
        about: "data": it uses any images (``context.all``); "model": those that are classified correctly
            (``context.correct``); "gradients": the same, and it needs a gradient and a robust image.
        make: makes the check, given the context and the name.
        cost: forward passes per image of its sample, at most; or a function that returns their sum.
        images: the maximum number of images that it uses; None means the whole sample.
        runs_model: False for a check that is made at the end, from results that are known.
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
        claim: the robust accuracy that is checked.
        model: the claim's net, run in batches of one size.
        correct: rows of a sample of the images that are classified correctly.
        robust: rows of a sample of the robust images.
        all: rows of a sample of all images.
        attack_batch: images per batch of the evaluation's attacks.
        unlimited: whether there is no budget.
        extra_cost: forward passes that ``model`` doesn't count.
        too_few: how many images a decisive check had and how many it needs, if the budget is too small; else None.

    Args:
        claim: the robust accuracy and what it was measured on.
        model: the model, as the evaluation ran it.
        limit: size of each sample; ``all`` has twice as many images.
        size: images per batch of ``self.model``; None means those of ``model``.
    """

    def __init__(self, claim: Claim, model: FixedBatchModel, limit: int, size: int | None = None) -> None:
        self.claim, self.attack_batch = claim, model.size
        same = model.precision in ("fp32", "fp64") and size in (None, model.size)
        precision: Precision = "fp64" if model.precision == "fp64" else "fp32"
        self.model = model if same else FixedBatchModel(model.net, size or model.size, precision)
        self.too_few: tuple[int, int] | None = None
        self.extra_cost, self.unlimited = 0.0, True
        self.draw(limit, 2 * limit)

    def draw(self, limit: int, of_all: int) -> None:
        """Draw the samples; a larger sample contains every smaller one."""
        self.correct = self.sampled_rows(self.claim.correct, limit).sort().values
        self.robust = self.sampled_rows(self.claim.robust, limit).sort().values
        self.all = self.sampled_rows(torch.ones_like(self.claim.correct), of_all).sort().values

    def sampled_rows(self, mask: Mask, limit: int) -> Tensor:
        """Up to ``limit`` rows of the mask, in an order that depends on the seed and the images' positions alone."""
        rows = mask.nonzero()[:, 0].tolist()
        index = self.claim.index.tolist()
        chosen = sorted(rows, key=lambda row: derive_seed("verdict", self.claim.seed, index[row]))[:limit]
        return torch.tensor(chosen, dtype=torch.int64, device=self.claim.labels.device)

    @property
    def threat(self) -> Threat:
        return self.claim.threat

    @property
    def diameter(self) -> float:
        """The longest distance between two images of this shape."""
        return self.threat.diameter(self.claim.images.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.model.precision == "fp64" else torch.float32

    def x(self, rows: Labels) -> Images:
        """The images in ``rows``, as floats in [0, 1]."""
        return as_floats(self.claim.images[rows]).to(self.dtype)

    def y(self, rows: Labels) -> Labels:
        return self.claim.labels[rows]

    def noise(self, name: str, rows: Labels) -> ImageNoise:
        """Random numbers for an attack on these images; they differ from those of the evaluation's attacks."""
        return ImageNoise(self.claim.seed, f"verdict {name}", self.claim.index[rows.cpu()].tolist())

    def price(self, attack: Attack, passes: float | None = None) -> float:
        """Forward passes per image that an attack and the confirmation of its result take at most.

        If the model's outputs are random, each adversarial image is confirmed with several passes, up to ``TRIALS``.

        Args:
            attack: the attack.
            passes: its own forward passes per image; None means ``cost(attack)``.
        """
        passes = cost(attack) if passes is None else passes
        random = self.model.is_random(self.x(self.correct[:EXACT_BLOCK]))
        return 4 * passes + (3 + TRIALS) * EXACT if random else passes + 3 * EXACT

    def broken(self, attack: Attack, name: str, rows: Labels) -> Mask:
        """Which of the images in ``rows`` the model misclassifies after an attack on it."""
        x, y = self.x(rows), self.y(rows)
        x_adv, _ = call_attack(attack, name, self.model, x, y, self.noise(name, rows))
        return self.model.misclassifies(x_adv, y)

    @cached_property
    def clean(self) -> Logits:
        """The logits [n, k] of the clean images in ``correct``."""
        return self.model.exact(self.x(self.correct))

    @cached_property
    def classes(self) -> int:
        """How many classes the model has."""
        return self.model.exact(self.x(torch.zeros(1, dtype=torch.int64, device=self.claim.labels.device))).shape[1]

    @cached_property
    def differentiable(self) -> bool:
        """Whether autograd finds a path from the logits to the images."""
        row = self.correct[:1]
        return self.model.has_gradient(self.x(row), self.y(row))


def median(values: Tensor) -> float:
    return float(values.double().median()) if len(values) else math.nan

"""Checks of the model's outputs: they are logits of a usual size, deterministic, and independent of the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from toughen.core.gradients import mode
from toughen.core.modules import unwrap
from toughen.core.objectives import margin
from toughen.core.types import Logits
from toughen.engine.compare_logits import SAME, largest_difference
from toughen.engine.fixed_batch import EXACT_BLOCK
from toughen.evaluation.checks.base import EXACT, Check, CheckContext, ModelCheck, judge, median, not_made
from toughen.utils.statistics import percent

REPEATS = 5
SIMILAR = 1e-2  # the largest relative difference of logits between batches of different sizes
HALF = 0.5  # share of images; with a softmax in the model, the outputs of all images are probabilities
LARGEST = 87.0  # exp(-87) is float32's smallest normal number: with a larger margin, other classes' softmax is 0


def deterministic(context: CheckContext, name: str) -> Check:
    """The same images have the same logits each time.

    Fails if the outputs of five forward passes differ by more than 0.1 % of the spread of the image's five highest
    logits.
    """
    x = context.x(context.correct)
    first = context.model.exact(x)
    figure = max(largest_difference(first, context.model.exact(x)) for _ in range(REPEATS - 1))
    return judge(
        name,
        figure,
        SAME,
        f"The model gives the same logits for the same images {REPEATS} times.",
        f"In {REPEATS} forward passes of the same images the logits differ by up to {percent(figure)}: the model is "
        "random, so an image can be robust by chance, and each gradient is one random sample. Use an attack that "
        "averages over the randomness (AutoAttack `rand`).",
    )


def batch_independent(context: CheckContext, name: str) -> Check:
    """An image has the same logits alone, in a batch that confirms results, and in one of the attacks' batches.

    Fails if an image's logits differ by more than 1 % between batch sizes: alone, among the 8 that judge it, or in the
    batches that attacks use.
    """
    net, n = context.model.net, len(context.correct)

    def logits_in_batch(size: int) -> Logits:
        """The first images' logits in a batch of this size, which repeats the images if there are too few."""
        return unwrap(net(context.x(context.correct[torch.arange(size) % n])), size)[: min(n, EXACT_BLOCK)]

    with torch.no_grad(), mode(net, "eval"):
        if largest_difference(logits_in_batch(EXACT_BLOCK), logits_in_batch(EXACT_BLOCK)) > SAME:
            return not_made(name, "the model has random outputs")
        alone = torch.cat([unwrap(net(image[None]), 1) for image in context.x(context.correct[:EXACT_BLOCK])])
        sizes = (EXACT_BLOCK, max(context.attack_batch, EXACT_BLOCK))
        figure = max(largest_difference(alone, logits_in_batch(size)) for size in sizes)
    return judge(
        name,
        figure,
        SIMILAR,
        "An image has the same logits alone and in a batch.",
        f"An image's logits change by up to {percent(figure)} with the other images in its batch, so the number is "
        "valid for these batches only: use running statistics instead of batch statistics.",
    )


def not_probabilities(context: CheckContext, name: str) -> Check:
    """The outputs are not probabilities.

    Fails if more than half of the output rows have no negative value and sum to 1.
    """
    out = context.clean
    figure = float(((out >= -1e-6).all(1) & ((out.sum(1) - 1).abs() <= 1e-3)).double().mean())
    return judge(
        name,
        figure,
        HALF,
        "The outputs are logits, as the attacks' losses need.",
        f"For {percent(figure)} of the images the outputs are 0 or more and add up to 1: they are probabilities, whose "
        "cross-entropy has almost no gradient. Remove the softmax at the end of the model.",
        masking=True,
    )


def usual_scale(context: CheckContext, name: str) -> Check:
    """The softmax is not saturated in float32.

    Fails if half of the images have a margin above 87, where the gradient of a float32 softmax is zero.
    """
    figure = median(margin(context.clean, context.y(context.correct)))
    fact = f"Half of the images have a margin of {figure:.3g} or more between the two highest logits"
    return judge(
        name,
        figure,
        LARGEST,
        f"{fact}.",
        f"{fact}. A softmax in float32 is then 0 or 1, and the cross-entropy has no gradient: divide the logits, or "
        "attack with a scale-invariant loss (APGD-T).",
        masking=True,
    )


def evaluation_mode(context: CheckContext, name: str) -> Check:
    """The mode in which the user passed the model.

    Never fails, because a model is always evaluated in evaluation mode. It reports if a model was passed in training
    mode; not made for a function.
    """
    if context.claim.trained_mode is None:
        return not_made(name, "the model is a function; the modules that it was seen to use are in evaluation mode")
    if not context.claim.trained_mode:
        return Check(name, True, 0.0, None, "The model was handed over in evaluation mode.")
    sentence = "The model was handed over in training mode. The number is for evaluation mode"
    try:
        differs = _in_training_mode(context).argmax(1) != context.clean.argmax(1)
    except Exception:  # a user's own net may raise anything, such as batch norm on one image, or return a tuple
        return Check(name, True, None, None, f"{sentence}; in training mode the model gives no logits of these images.")
    figure = float(differs.double().mean())
    sentence += f", in which the prediction differs for {percent(figure)} of the images."
    return Check(name, True, figure, None, sentence)


@torch.no_grad()
def _in_training_mode(context: CheckContext) -> Logits:
    """The logits of the images in ``context.correct`` in training mode; buffers and modes are restored."""
    net, x = context.model.net, context.x(context.correct)
    buffers: dict[str, Tensor] = {name: each.clone() for name, each in net.named_buffers()}
    modes = {module: module.training for module in net.modules()}
    try:
        return unwrap(net.train()(x), len(x))
    finally:
        for module, training in modes.items():
            module.training = training
        for name, each in net.named_buffers():
            each.copy_(buffers[name])


def _batch_independent_cost(context: CheckContext) -> float:
    """Forward passes in batches of 8, of 8 images alone, and in a batch of the attacks."""
    return 32.0 + context.attack_batch


CHECKS = (
    ModelCheck(name="evaluation mode", about="model", make=evaluation_mode, cost=1.0),
    ModelCheck(name="the same answer each time", about="model", make=deterministic, cost=5 * EXACT),
    ModelCheck(
        name="the same answer alone",
        about="model",
        make=batch_independent,
        cost=_batch_independent_cost,
        images=EXACT_BLOCK,
    ),
    ModelCheck(name="logits, not probabilities", about="model", make=not_probabilities, cost=EXACT),
    ModelCheck(name="logits of a usual size", about="model", make=usual_scale, cost=EXACT),
)

"""Checks of the gradients that attacks use: they exist, are correct and stable."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from toughen.core.gradients import input_gradient, logits
from toughen.core.objectives import Objective, cross_entropy, margin_loss
from toughen.core.types import Images, Labels, Mask
from toughen.engine.compare_logits import relative_difference
from toughen.engine.fixed_batch import EXACT_BLOCK, MAX_DIFFERENCE
from toughen.evaluation.checks.base import DOUBLE, EXACT, Check, CheckContext, ModelCheck, judge, median, not_made
from toughen.evaluation.checks.chance import allowed
from toughen.utils.statistics import percent

ZERO, WRONG = 0.05, 0.05  # shares of images that may have a zero gradient, or a wrong one
STABLE = 0.1  # the least median cosine between gradients eps / 20 apart
LEADS = 3 + 2 * EXACT  # the cost of ``gradient_leads``
STEP = 0.25  # of eps: a step of the size that attacks take
LEAST, MOST = 0.4, 1.5  # the actual change on this step, as a multiple of the predicted one; margins bend
POINTS = 4  # random points whose gradients are averaged
FLAT = 1e-4  # of an image's largest gradient: a smaller one counts as none
HIDDEN = 0.5  # share of the mean gradient that may lie in pixels without a gradient
MISLED = 0.1  # share of images for which the change on this step may lie outside; no allowance


def _zero(gradient: Images) -> Mask:
    """[n], whose gradient is zero in all pixels."""
    return (gradient == 0).flatten(1).all(1)


def _undefined(gradient: Images) -> Mask:
    """[n], whose gradient is NaN or infinite in some pixels."""
    return ~gradient.isfinite().flatten(1).all(1)


def _inside(x: Images) -> Images:
    """The images moved away from 0 and 1, where a model may clamp its input; on some data most pixels are there."""
    return 0.02 + 0.96 * x


def _gradient(context: CheckContext, x: Images, objective: Objective) -> Images:
    """The gradient at ``x``, which belongs to the images in ``context.correct``."""
    return input_gradient(context.model, x, context.y(context.correct), objective).gradient


def gradient_exists(context: CheckContext, name: str) -> Check:
    """The cross-entropy has a finite gradient that is not zero.

    Fails if for more than 5 % of images the gradient is zero at the image, or NaN or infinite in a pixel at the image
    or at a random start.
    """
    x, threshold = context.x(context.correct), allowed(len(context.correct), ZERO)
    if not context.differentiable:
        bad = "The logits have no gradient with respect to the images, so gradient attacks cannot work: evaluate with "
        bad += "Square, or remove what blocks the gradient from the model (no_grad, detach)."
        return judge(name, 1.0, threshold, "", bad, masking=True)
    start = context.threat.start(x, "uniform", context.noise(name, context.correct), context.threat.eps)
    undefined = _undefined(_gradient(context, x, cross_entropy)) | _undefined(_gradient(context, start, cross_entropy))
    figure = float(undefined.double().mean())
    if figure > threshold:
        bad = f"For {percent(figure)} of the images the gradient is NaN or infinite in some pixels, at the image or at "
        bad += "a random start, and attacks do not change these pixels: look for a root, logarithm or power whose "
        return judge(name, figure, threshold, "", bad + "derivative is not finite there, and fix it.", masking=True)
    figure = float(_zero(_gradient(context, x, cross_entropy)).double().mean())
    flat = float(_zero(_gradient(context, x, margin_loss)).double().mean())
    cause = (
        "the margin's gradient is zero too, so part of the model is piecewise constant (such as rounding)"
        if flat > figure / 2
        else "the margin's is not, so the logits are too large for a softmax in float32: use a margin loss"
    )
    return judge(
        name,
        figure,
        threshold,
        f"The cross-entropy's gradient is zero for {percent(figure)} of the images.",
        f"The cross-entropy's gradient is zero for {percent(figure)} of the images; {cause}.",
        masking=True,
    )


def gradient_correct(context: CheckContext, name: str) -> Check:
    """The margin changes along its gradient as much as the gradient says (central difference).

    Fails if for more than 5 % of images, a small step along the gradient does not change the margin as the gradient
    predicts, and a step of eps / 4 changes it by less than 0.4 or more than 1.5 times the prediction, for more than
    10 % of images. The second step tells a gradient that misleads attacks from one that was replaced on purpose and
    that they can follow (rounding with a straight-through gradient, as in quantised models). Models with random outputs
    get no second step.
    """
    net, dtype, step = _exact_copy(context)
    x, y = _inside(context.x(context.correct).to(dtype)), context.y(context.correct)
    size = context.model.size
    batches = zip(torch.split(x, size), torch.split(y, size), strict=True)
    results = [_wrong_gradients(net, *batch, step) for batch in batches]
    wrong, zero = (torch.cat(each) for each in zip(*results, strict=True))
    if zero.all():
        return not_made(name, "all gradients are zero")
    figure, threshold = float(wrong[~zero].double().mean()), allowed(int((~zero).sum()), WRONG)
    if figure > threshold:
        leading = gradient_leads(context, name)
        if leading is not None:
            return leading
    return judge(
        name,
        figure,
        threshold,
        f"A small step changes the margin as the gradient predicts, except for {percent(figure)} of the images.",
        f"For {percent(figure)} of the images a small step does not change the margin as the gradient predicts: the "
        "gradient belongs to another function, or is noise, so attacks that use it are too weak. A gradient that is "
        "replaced on purpose (straight-through, BPDA) passes if it predicts a step of eps / 4.",
        masking=True,
    )


def gradient_leads(context: CheckContext, name: str) -> Check | None:
    """A check that passed, if a step of eps / 4 changes the margin about as its gradient predicts; else None.

    The step is that of an attack, forwards and backwards, from a random point at most eps / 2 away: at the image itself
    all rounded pixels would change at the same point of a step. There is no allowance for chance, because such a check
    has failed before.

    Args:
        context: the claim and its samples; a model with random outputs has no such check.
        name: of the check that is made.
    """
    x, y, threat, exact = context.x(context.correct), context.y(context.correct), context.threat, context.model.exact
    if context.model.is_random(x[:EXACT_BLOCK]):
        return None
    x = threat.start(x, "uniform", context.noise(name, context.correct), threat.eps / 2)
    gradient = input_gradient(context.model, x, y, margin_loss).gradient
    step = STEP * threat.eps * threat.steepest(gradient)
    forwards, backwards = (x + step).clamp(0, 1), (x - step).clamp(0, 1)
    rise = margin_loss(exact(forwards), y) - margin_loss(exact(backwards), y)
    ratio = (rise / (gradient * (forwards - backwards)).flatten(1).sum(1))[~_zero(gradient)]
    figure = float((~((ratio >= LEAST) & (ratio <= MOST))).double().mean())
    if not figure <= MISLED:  # also without any gradient
        return None
    return judge(
        name,
        figure,
        MISLED,
        "On very small steps the margin is flat or jumps, as with rounding. A step of eps / 4 changes it by "
        f"{LEAST:g} to {MOST:g} times what the gradient predicts, except for {percent(figure)} of the images, so "
        "attacks can follow the gradient.",
        "",
    )


def _exact_copy(context: CheckContext) -> tuple[nn.Module, torch.dtype, float]:
    """The model in float64 if possible, else itself; its type; and a step per pixel that is large enough for it."""
    try:
        net, x = copy.deepcopy(context.model.net).double(), context.x(context.correct)
        with torch.no_grad():
            out = torch.cat([logits(net, part) for part in x.double().split(context.model.size)])
        same = relative_difference(out, context.clean) <= MAX_DIFFERENCE["fp32"]
        if out.dtype == torch.float64 and same:
            return net, torch.float64, 1e-5
    except Exception:  # a user's own net may raise anything
        pass
    return context.model.net, torch.float32, 3e-3


def _wrong_gradients(net: nn.Module, x: Images, y: Labels, step: float) -> tuple[Mask, Mask]:
    """[n] each: whether the central difference is off by more than half, and whether the gradient is zero."""
    gradient = input_gradient(net, x, y, margin_loss).gradient
    direction = gradient / gradient.flatten(1).norm(dim=1).clamp(min=1e-30).view(-1, 1, 1, 1)
    direction = direction * math.sqrt(x.shape[1:].numel()) * step
    with torch.no_grad():
        rise = margin_loss(logits(net, x + direction), y) - margin_loss(logits(net, x - direction), y)
    expected = 2 * (gradient * direction).flatten(1).sum(1)
    return ~((rise - expected).abs() <= 0.5 * expected), _zero(gradient)


def gradient_stable(context: CheckContext, name: str) -> Check:
    """A step of eps / 20 in a random direction leaves the gradient's direction roughly as it is.

    Fails if gradients at points eps / 20 apart have a median cosine below 0.1.
    """
    x, threat = _inside(context.x(context.correct)), context.threat
    nearby = threat.start(x, "uniform", context.noise(name, context.correct), threat.eps / 20, clip=False)
    first, second = (_gradient(context, each, margin_loss) for each in (x, nearby))
    usable = ~(_zero(first) | _zero(second) | _undefined(first) | _undefined(second))
    if not usable.any():
        return not_made(name, "all gradients are zero, or not finite")
    figure = median(_cosine(first, second)[usable])
    return judge(
        name,
        figure,
        STABLE,
        f"Gradients at points eps / 20 apart have a median cosine of {figure:.2f}.",
        f"Gradients at points eps / 20 apart have a median cosine of {figure:.2f}: they change too fast for a "
        "gradient attack.",
        masking=True,
        least=True,
    )


def gradient_reaches(context: CheckContext, name: str) -> Check:
    """Where an attack arrives, pixels that change the margin have a gradient.

    Which pixels change it is seen from the mean of the gradients at four random points, at most eps away. An attack
    arrives where FGSM from a random start ends. If the model clips its input, for example, a pixel there often has no
    gradient, and the attack leaves it as it is. But the margin would change if the pixel were moved farther.

    Fails if more than half of the mean gradient (L1 norm, median of the images) lies in pixels without a gradient.
    """
    x, threat = context.x(context.correct), context.threat
    noise = context.noise(name, context.correct)
    *points, start = (threat.start(x, "uniform", noise.restart(number), threat.eps) for number in range(POINTS + 1))
    mean = torch.stack([_gradient(context, point, margin_loss) for point in points]).mean(0).abs()
    end = threat.project(start + threat.eps * threat.steepest(_gradient(context, start, margin_loss)), x)
    gradient = _gradient(context, end, margin_loss).abs()
    flat = gradient <= FLAT * gradient.amax(dim=(1, 2, 3), keepdim=True)
    usable = mean.isfinite().flatten(1).all(1) & ~_zero(mean) & ~_undefined(gradient)
    if not usable.any():
        return not_made(name, "all gradients are zero, or not finite")
    figure = median(((mean * flat).flatten(1).sum(1) / mean.flatten(1).sum(1))[usable])
    fact = f"{percent(figure)} of the mean gradient around an image lies in pixels without one where an attack arrives"
    return judge(
        name,
        figure,
        HIDDEN,
        f"{fact}.",
        f"{fact}: the model is flat there, as after a clipped input, so attacks do not move pixels that matter. Give "
        "the clipping a straight-through gradient, or attack without gradients.",
        masking=True,
    )


def _cosine(first: Images, second: Images) -> Tensor:
    return torch.cosine_similarity(first.flatten(1).double(), second.flatten(1).double(), dim=1, eps=1e-300)


CHECKS = (
    ModelCheck(name="gradients that are not zero", about="model", make=gradient_exists, cost=8.0),
    ModelCheck(
        name="gradients of the function itself", about="gradients", make=gradient_correct, cost=5 * DOUBLE + LEADS
    ),
    ModelCheck(name="gradients that are not noise", about="gradients", make=gradient_stable, cost=4.0),
    ModelCheck(
        name="gradients in the pixels that matter", about="gradients", make=gradient_reaches, cost=2.0 * (POINTS + 2)
    ),
)

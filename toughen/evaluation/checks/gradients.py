"""Checks of the gradients that attacks use: they exist, are correct and stable, and the model is continuous."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from toughen.core.gradients import input_gradient, logits
from toughen.core.objectives import Objective, cross_entropy, margin, margin_loss
from toughen.core.types import Images, Labels, Mask
from toughen.engine.compare_logits import SAME, largest_difference, relative_difference
from toughen.engine.fixed_batch import MAX_DIFFERENCE
from toughen.evaluation.checks.base import DOUBLE, EXACT, Check, CheckContext, ModelCheck, judge, median, not_made
from toughen.evaluation.checks.chance import allowed
from toughen.utils.statistics import percent

ZERO, WRONG = 0.05, 0.05  # shares of images that may have a zero gradient, or a wrong one
JUMPING = 0.05  # share of images that may have a jump of the margin
JUMP, HALVINGS = 0.1, 24  # between two images: a jump's least share of the total change; halvings of the interval
STEP_JUMP, STEP_HALVINGS, PIECES = 0.05, 16, 8  # on a step: likewise; the pieces that it is divided into first
STABLE = 0.1  # the least median cosine between gradients eps / 20 apart


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

    Fails if for more than 5 % of images the gradient is zero, or NaN or infinite in a pixel, at the image or at a
    random start.
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
    predicts. This also happens if the gradient of a step is replaced on purpose (straight-through, BPDA), although
    attacks may be just as strong.
    """
    net, dtype, step = _exact_copy(context)
    x, y = _inside(context.x(context.correct).to(dtype)), context.y(context.correct)
    size = context.model.size
    batches = zip(torch.split(x, size), torch.split(y, size), strict=True)
    results = [_wrong_gradients(net, *batch, step) for batch in batches]
    wrong, zero = (torch.cat(each) for each in zip(*results, strict=True))
    if zero.all():
        return not_made(name, "all gradients are zero")
    figure = float(wrong[~zero].double().mean())
    return judge(
        name,
        figure,
        allowed(int((~zero).sum()), WRONG),
        f"A small step changes the margin as the gradient predicts, except for {percent(figure)} of the images.",
        f"For {percent(figure)} of the images a small step does not change the margin as the gradient predicts: the "
        "gradient belongs to another function, or is noise, so attacks that use it are too weak. This is no fault if "
        "a gradient is replaced on purpose (straight-through, BPDA).",
        masking=True,
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
    except (RuntimeError, TypeError, NotImplementedError, AttributeError):
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


def margin_continuous(context: CheckContext, name: str) -> Check:
    """Between an image and one of another class the margin passes through 0 without a jump.

    If a vote, a threshold or a rounding decides the class, a gradient can only come from something else, such as a
    small smooth term. Then neither gradients nor Square's margin lead to the decision boundary. The boundary is found
    by bisection. At its end, a continuous margin, however steep, hardly differs between both ends of the interval.

    Fails if on the straight line to an image of another class, the margin jumps over 0 by more than a tenth of its
    total change, for more than 5 % of images.
    """
    x, y, exact = context.x(context.correct), context.y(context.correct), context.model.exact
    others = [(y != label).nonzero()[:, 0] for label in y]
    if not len(others[0]):
        return not_made(name, "all correctly classified images are of one class")
    if largest_difference(exact(x), exact(x)) > SAME:
        return not_made(name, "the model has random outputs")
    end = x[torch.stack([each[row % len(each)] for row, each in enumerate(others)])]
    before, after = margin(exact(x), y), margin(exact(end), y)
    total, low, high = before - after, torch.zeros_like(before), torch.ones_like(before)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        margins = margin(exact(torch.lerp(x, end, middle.to(x).view(-1, 1, 1, 1))), y)
        correct = margins > 0
        before, after = torch.where(correct, margins, before), torch.where(correct, after, margins)
        low, high = torch.where(correct, middle, low), torch.where(correct, high, middle)
    jumps = ((before - after) / total.clamp(min=1e-30)).nan_to_num(1).clamp(max=1)
    figure = float((jumps > JUMP).double().mean())
    typical = percent(float(jumps[jumps > JUMP].median())) if figure else ""
    return judge(
        name,
        figure,
        allowed(len(jumps), JUMPING),
        "Between two images the margin passes through 0 continuously.",
        f"Between two images the margin jumps over 0 for {percent(figure)} of them, by {typical} of its total change: "
        "a vote, a threshold or a rounding decides the class, which no gradient can show. Attack the model before "
        "that step, or by transfer (--surrogate).",
        masking=True,
    )


def step_continuous(context: CheckContext, name: str) -> Check:
    """On a step of eps along the gradient, which attacks take in parts, the margin changes without a jump.

    The step is divided into ``PIECES``. The piece in which the margin changes most is bisected, always towards the
    larger change. At the end, a continuous margin, however steep, hardly differs between both ends of the interval; a
    jump remains. Activations that are switched off abruptly, as in k-winners-take-all, jump so often that gradients say
    little about nearby points.

    Fails if on a step of eps along the gradient, the margin jumps by more than a twentieth of its total change, for
    more than 5 % of images.
    """
    x, y, exact = context.x(context.correct), context.y(context.correct), context.model.exact
    if largest_difference(exact(x), exact(x)) > SAME:
        return not_made(name, "the model has random outputs")
    gradient = _gradient(context, x, margin_loss)
    if not gradient.isfinite().all() or _zero(gradient).all():
        return not_made(name, "gradients are zero, or not finite")
    end = context.threat.project(x + context.threat.eps * context.threat.steepest(gradient), x)
    points = torch.linspace(0, 1, PIECES + 1, dtype=torch.float64, device=x.device)

    def margin_at(point: Tensor) -> Tensor:
        """The margins [n] at points [n] of the step, from 0 at ``x`` to 1 at its end."""
        return margin(exact(torch.lerp(x, end, point.to(x).view(-1, 1, 1, 1))), y).double()

    margins = torch.stack([margin_at(point.expand(len(x))) for point in points])  # [PIECES + 1, n]
    total = (margins.amax(0) - margins.amin(0)).clamp(min=1e-30)
    most = (margins[1:] - margins[:-1]).abs().argmax(0)
    low, high = points[most], points[most + 1]
    before, after = margins.gather(0, most[None])[0], margins.gather(0, most[None] + 1)[0]
    for _ in range(STEP_HALVINGS):
        middle = (low + high) / 2
        between = margin_at(middle)
        first = (between - before).abs() >= (after - between).abs()
        low, high = torch.where(first, low, middle), torch.where(first, middle, high)
        before, after = torch.where(first, before, between), torch.where(first, between, after)
    jumps = ((after - before).abs() / total).nan_to_num(1)
    figure = float((jumps > STEP_JUMP).double().mean())
    typical = percent(float(jumps[jumps > STEP_JUMP].median())) if figure else ""
    return judge(
        name,
        figure,
        allowed(len(jumps), JUMPING),
        "On a step of eps along the gradient the margin changes continuously.",
        f"On a step of eps along the gradient the margin jumps for {percent(figure)} of the images, by {typical} of "
        "its total change: a step function in the model makes gradients unreliable. Attack with many more steps and "
        "restarts, or attack the model before that step.",
        masking=True,
    )


def _cosine(first: Images, second: Images) -> Tensor:
    return torch.cosine_similarity(first.flatten(1).double(), second.flatten(1).double(), dim=1, eps=1e-300)


CHECKS = (
    ModelCheck(name="gradients that are not zero", about="model", make=gradient_exists, cost=8.0),
    ModelCheck(name="gradients of the function itself", about="gradients", make=gradient_correct, cost=5 * DOUBLE),
    ModelCheck(name="gradients that are not noise", about="gradients", make=gradient_stable, cost=4.0),
    ModelCheck(name="a margin without jumps", about="gradients", make=margin_continuous, cost=28 * EXACT),
    ModelCheck(name="a step without jumps", about="gradients", make=step_continuous, cost=3 + 27 * EXACT),
)

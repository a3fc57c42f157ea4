"""Checks that the margin changes without jumps: between two images, and on an attack's step."""

from __future__ import annotations

import torch
from torch import Tensor

from toughen.core.gradients import input_gradient
from toughen.core.objectives import margin, margin_loss
from toughen.engine.compare_logits import SAME, largest_difference
from toughen.evaluation.checks.base import EXACT, Check, CheckContext, ModelCheck, judge, not_made
from toughen.evaluation.checks.chance import allowed
from toughen.evaluation.checks.gradients import LEADS, gradient_leads
from toughen.utils.statistics import percent

JUMPING = 0.05  # share of images that may have a jump of the margin
JUMP, HALVINGS = 0.1, 24  # between two images: a jump's least share of the total change; halvings of the interval
STEP_JUMP, STEP_HALVINGS, PIECES = 0.05, 16, 8  # on a step: likewise; the pieces that it is divided into first


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

    The step is divided into eight pieces. The piece in which the margin changes most is bisected, always towards the
    larger change. At the end, a continuous margin, however steep, hardly differs between both ends of the interval; a
    jump remains. Activations that are switched off abruptly, as in k-winners-take-all, jump so often that gradients say
    little about nearby points.

    Fails if on a step of eps along the gradient, the margin jumps by more than a twentieth of its total change, for
    more than 5 % of images, and on a step of eps / 4 it changes by less than 0.4 or more than 1.5 times what the
    gradient predicts, for more than 10 % of images. A model that rounds, with a straight-through gradient, jumps, but
    attacks can follow its gradient.
    """
    x, y, exact = context.x(context.correct), context.y(context.correct), context.model.exact
    if largest_difference(exact(x), exact(x)) > SAME:
        return not_made(name, "the model has random outputs")
    gradient = input_gradient(context.model, x, y, margin_loss).gradient
    if not gradient.isfinite().all() or not gradient.any():
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
    figure, threshold = float((jumps > STEP_JUMP).double().mean()), allowed(len(jumps), JUMPING)
    if figure > threshold:
        leading = gradient_leads(context, name)
        if leading is not None:
            return leading
    typical = percent(float(jumps[jumps > STEP_JUMP].median())) if figure else ""
    return judge(
        name,
        figure,
        threshold,
        "On a step of eps along the gradient the margin changes continuously.",
        f"On a step of eps along the gradient the margin jumps for {percent(figure)} of the images, by {typical} of "
        "its total change: a step function in the model makes gradients unreliable. Attack with many more steps and "
        "restarts, or attack the model before that step.",
        masking=True,
    )


CHECKS = (
    ModelCheck(name="a margin without jumps", about="gradients", make=margin_continuous, cost=28 * EXACT),
    ModelCheck(name="a step without jumps", about="gradients", make=step_continuous, cost=3 + 27 * EXACT + LEADS),
)

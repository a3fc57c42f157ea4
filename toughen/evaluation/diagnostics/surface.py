"""The loss around an image, along its gradient and along a random direction orthogonal to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from toughen.core.gradients import input_gradient, mode
from toughen.core.objectives import cross_entropy
from toughen.core.rng import ImageNoise
from toughen.core.threat import Threat
from toughen.core.types import Images, Labels, Real
from toughen.evaluation.diagnostics.common import as_fixed_batch, chunk_size, exact_logits, number, numbers

POINTS = 21  # an odd number, so that the image itself is one of them


def axis(threat: Threat, points: int = POINTS) -> list[float]:
    """Evenly spaced distances from -eps to eps, in the units of the images.

    Raises:
        ValueError: the number of points is even or below 3.
    """
    if points < 3 or points % 2 == 0:
        raise ValueError(f"points is {points}: use an odd number, 3 or more, so that the image is the middle point")
    half = points // 2
    return [round(float(threat.eps * step / half), 12) for step in range(-half, half + 1)]


def directions(model: nn.Module, x: Images, y: Labels, threat: Threat, seed: int = 0) -> tuple[Images, Images]:
    """The two directions of each image's loss surface: steepest ascent, and one of equal length orthogonal to it.

    The first is the gradient's sign for L-inf, the normalised gradient for L2. The second consists of random signs,
    minus their projection onto the first. The signs depend on the seed and the image's row alone, so they are the same
    for all models. Where the gradient is zero, the first direction is zero and the second is the random signs.

    Args:
        model: returns logits; in any mode.
        x: [n, c, h, w], clean images in [0, 1].
        y: [n], their classes.
        threat: its norm decides which direction is steepest.
        seed: of the random signs.

    Returns:
        Both directions, [n, c, h, w]. The first has length 1 in the threat's norm, the second the same L2 norm.
    """
    model = as_fixed_batch(model, x)
    with mode(model, "eval"):
        steepest = threat.steepest(input_gradient(model, x, y, cross_entropy).gradient)
    signs = ImageNoise(seed, "surface", list(range(len(x)))).sign(x)
    signs = signs if threat.norm == "linf" else threat.steepest(signs)
    squared = _dot(steepest, steepest)
    orthogonal = signs - steepest * _dot(signs, steepest) / torch.where(squared > 0, squared, 1)
    length = torch.where(squared > 0, squared, _dot(signs, signs)).sqrt()
    return steepest, orthogonal * (length / _dot(orthogonal, orthogonal).sqrt().clamp(min=1e-12))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Each image's dot product, [n, 1, 1, 1]."""
    return (a * b).sum((1, 2, 3), keepdim=True)


def loss_surface(
    model: nn.Module,
    x: Images,
    y: Labels,
    threat: Threat,
    seed: int = 0,
    *,
    along: Sequence[Real] | None = None,
    across: Sequence[Real] | None = None,
    clip: bool = False,
    keep: int | None = None,
) -> dict[str, Any]:
    """Cross-entropy at x + d1 steepest + d2 orthogonal over a grid (NuAT, Fig. 1), in nats.

    By default the points are not clipped to [0, 1], as in the paper's formula. Clipping would make the surface of even
    a linear model curved, most of all on digits, whose pixels are mostly 0 or 1; the surface should show the curvature
    of the model. So some points are not valid images. Those in the corners, where both distances add up, are up to
    twice as far from the image as those on the axes.

    Args:
        model: returns logits; in any mode.
        x: [n, c, h, w], clean images in [0, 1].
        y: [n], their classes.
        threat: its norm decides the first direction, its radius the default axes.
        seed: of the second direction.
        along: distances d1 along the steepest direction; None means ``axis(threat)``.
        across: distances d2 along the orthogonal direction; None means ``axis(threat)``.
        clip: clip every point to [0, 1].
        keep: return the own surfaces of the first ``keep`` images; None means all.

    Returns:
        ``along``, ``across``, ``clip``; ``mean`` and ``median`` over images, [d1][d2]; ``largest``, the highest loss;
        ``images``, each image's own surface, [image][d1][d2]; ``count``, how many images there are.
    """
    model = as_fixed_batch(model, x)
    along, across = axis(threat) if along is None else along, axis(threat) if across is None else across
    first, second = directions(model, x, y, threat, seed)
    surface = x.new_empty(len(x), len(along), len(across))
    chunk = max(1, chunk_size(x) // len(across))  # an image becomes len(across) points
    for rows in torch.arange(len(x), device=x.device).split(chunk):
        steps = x.new_tensor(across).view(-1, 1, 1, 1, 1) * second[rows]
        for column, distance in enumerate(along):
            points = (x[rows] + distance * first[rows] + steps).flatten(0, 1)
            points = points.clamp(0, 1) if clip else points
            losses = cross_entropy(exact_logits(model, points), y[rows].repeat(len(across)))
            surface[rows, column] = losses.view(len(across), -1).T
    return {
        "along": [float(distance) for distance in along],
        "across": [float(distance) for distance in across],
        "clip": clip,
        "mean": numbers(surface.mean(0)),
        "median": numbers(surface.median(0).values),
        "largest": number(surface.max()),
        "images": numbers(surface[:keep]),
        "count": len(x),
    }

"""The loss around an image: along its gradient, and along a random direction orthogonal to it."""

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
from toughen.evaluation.diagnostics.common import blocked, chunk_size, exact_logits, losses, number, numbers

POINTS = 21  # an odd number, so that the image itself is one of them


def axis(threat: Threat, points: int = POINTS) -> list[float]:
    """Evenly spaced distances from -eps to eps, in the units of the images.

    Raises:
        ValueError: the number of points is even or below 3, so that none would lie at the image itself.
    """
    if points < 3 or points % 2 == 0:
        raise ValueError(f"points is {points}: use an odd number, 3 or more, so that the image is the middle point")
    half = points // 2
    return [round(float(threat.eps * step / half), 12) for step in range(-half, half + 1)]


def directions(model: nn.Module, x: Images, y: Labels, threat: Threat, seed: int = 0) -> tuple[Images, Images]:
    """The two directions of each image's surface: its loss's steepest one, and one orthogonal to that, as long.

    The first is the gradient's sign, or its L2 direction for that norm. The second is a random draw of signs that
    depends on seed and place alone, less its part along the first; so all models meet the same draw. Where the
    gradient is zero, the first is zero and the second the draw itself.

    Args:
        model: returns logits; any mode.
        x: clean images in [0, 1].
        y: their classes.
        threat: its norm says which direction is steepest.
        seed: of the draw.

    Returns:
        both, shaped like ``x``, of length 1 in the norm up to the orthogonalisation.
    """
    model = blocked(model, x)
    with mode(model, "eval"):
        steepest = threat.steepest(input_gradient(model, x, y, cross_entropy).gradient)
    draw = ImageNoise(seed, "surface", list(range(len(x)))).sign(x)
    draw = draw if threat.norm == "linf" else threat.steepest(draw)
    squared = _dot(steepest, steepest)
    other = draw - steepest * _dot(draw, steepest) / torch.where(squared > 0, squared, 1)
    wanted = torch.where(squared > 0, squared, _dot(draw, draw)).sqrt()
    return steepest, other * (wanted / _dot(other, other).sqrt().clamp(min=1e-12))


def _dot(a: Tensor, b: Tensor) -> Tensor:
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

    By default the points are not cut to [0, 1], as in the paper's formula. Cutting would bend the surface of even a
    linear model, most of all on digits, whose pixels mostly lie at 0 or 1 and then stand still; what is looked for
    is how the model bends. So some points are no images, and in the corners, where both distances add up, points lie
    up to twice as far away as on the axes.

    Args:
        model: returns logits; any mode.
        x: clean images in [0, 1].
        y: their classes.
        threat: its radius spans both axes where they are not given.
        seed: of the second direction.
        along: distances d1 along the steepest direction; None means ``axis(threat)``.
        across: distances d2 along the other; None means ``axis(threat)``.
        clip: cut every point to [0, 1].
        keep: of how many images, from the first on, to keep the surface itself; None means all.

    Returns:
        ``along``, ``across``, ``clip``; ``mean`` and ``median`` over images, [d1][d2]; ``images``, [image][d1][d2].
    """
    model = blocked(model, x)
    along, across = axis(threat) if along is None else along, axis(threat) if across is None else across
    first, second = directions(model, x, y, threat, seed)
    surface = x.new_empty(len(x), len(along), len(across))
    images = max(1, chunk_size(x) // len(across))  # whose points along the second direction are held at a time
    for rows in torch.arange(len(x), device=x.device).split(images):
        steps = x.new_tensor(across).view(-1, 1, 1, 1, 1) * second[rows]
        for place, distance in enumerate(along):
            points = (x[rows] + distance * first[rows] + steps).flatten(0, 1)
            points = points.clamp(0, 1) if clip else points
            values = losses(exact_logits(model, points), y[rows].repeat(len(across)))
            surface[rows, place] = values.view(len(across), -1).T
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

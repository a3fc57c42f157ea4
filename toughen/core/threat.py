"""The threat model: the images that an attacker may show instead of x, and all arithmetic of norms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from toughen.core.rng import Noise
from toughen.core.types import Eps, Images, Mask, Norm, PerExample

Start: TypeAlias = Literal["none", "uniform", "gaussian", "bernoulli"] | Tensor
"""Where an attack starts: at x, at a random point around it, or at given images."""


def _rows(values: Tensor) -> Tensor:
    """Values per image, [n], reshaped to [n, 1, 1, 1]."""
    return values.view(-1, 1, 1, 1)


@dataclass(frozen=True)
class Threat:
    """The ball of radius ``eps`` around an image, intersected with the box [0, 1].

    Args:
        norm: "linf" or "l2".
        eps: radius in the units of the images. Zero leaves only x itself.

    Raises:
        ValueError: the norm is unknown, or the radius is no number, negative, not finite or, for L-inf, above 1.
    """

    norm: Norm
    eps: Eps

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            raise ValueError(f'norm {self.norm!r} is unknown: use "linf" or "l2"')
        try:
            is_finite = math.isfinite(self.eps)
        except TypeError:  # a text, such as "8/255"
            raise ValueError(f"eps is {self.eps!r}: give a number, such as 8 / 255") from None
        if not is_finite or self.eps < 0:
            raise ValueError(f"eps {self.eps} must be a finite number, not below 0: give a radius such as 8/255")
        if self.norm == "linf" and self.eps > 1:
            raise ValueError(f"eps {self.eps:g} is above 1, but images lie in [0, 1]: did you mean {self.eps:g}/255?")

    def check(self, x: Images) -> None:
        """Refuse an L2 radius above the largest distance between two images of this shape.

        Raises:
            ValueError: eps exceeds sqrt(c h w).
        """
        longest = self.diameter(x.shape[1:])
        if self.norm == "l2" and self.eps > longest:
            raise ValueError(f"eps {self.eps:g} exceeds {longest:.4g}, the longest L2 distance between two such images")

    def diameter(self, shape: Sequence[int]) -> float:
        """The longest distance between two images of this shape, [c, h, w]."""
        return 1.0 if self.norm == "linf" else math.sqrt(math.prod(shape))

    def length(self, delta: Images) -> PerExample:
        """Each perturbation's norm, [n]."""
        flat = delta.flatten(1)
        return flat.abs().amax(1) if self.norm == "linf" else flat.norm(dim=1)

    def distance(self, x_adv: Images, x: Images) -> PerExample:
        """The distance of each image from its clean one, [n]."""
        return self.length(x_adv - x)

    def project(self, x_adv: Images, x: Images) -> Images:
        """Projection onto the ball around ``x``, then onto [0, 1]; the second step leads no image out of the ball."""
        if self.norm == "linf":
            x_adv = torch.maximum(torch.minimum(x_adv, x + self.eps), x - self.eps)
        else:
            x_adv = x + self.cut(x_adv - x)
        return x_adv.clamp(0, 1)

    def contains(self, x_adv: Images, x: Images) -> Mask:
        """Which images lie in the ball around ``x`` and in [0, 1], but for rounding, [n]."""
        return self.distance(self.project(x_adv, x), x_adv) <= 1e-5 * max(1.0, float(self.eps))

    def cut(self, delta: Images) -> Images:
        """Projection of perturbations onto the ball, without the box."""
        if self.norm == "linf":
            return delta.clamp(-self.eps, self.eps)
        return delta * _rows((self.eps / self.length(delta).clamp(min=1e-12)).clamp(max=1))

    def steepest(self, gradient: Images) -> Images:
        """The steepest step of norm 1: the gradient's sign (L-inf) or direction (L2); zero for a zero gradient."""
        if self.norm == "linf":
            return gradient.sign()
        gradient = gradient.nan_to_num(0, 0, 0)  # NaN and infinity count as 0
        largest = gradient.abs().amax((1, 2, 3), keepdim=True)
        # divided twice, because the squares of a confident model's gradient underflow
        scaled = gradient / torch.where(largest > 0, largest, 1)
        return scaled / _rows(self.length(scaled).clamp(min=1))

    def dual(self, gradient: Images) -> PerExample:
        """The dual norm of each gradient, [n]: L1 for L-inf, L2 for L2."""
        flat = gradient.flatten(1)
        if self.norm == "linf":
            return flat.abs().sum(1)
        largest = flat.abs().amax(1)  # divided by first, because the squares of a gradient of 1e-23 are 0
        largest = torch.where((largest > 0) & largest.isfinite(), largest, 1)
        shares: Tensor = (flat / largest[:, None]).norm(dim=1)
        return shares * largest

    def onto_plane(self, x: Images, normal: Images, value: PerExample) -> Images:
        """The shortest perturbations to the plane value + <normal, delta> = 0 with x + delta in [0, 1]; no gradient.

        Where the plane lies outside the box, each pixel moves to the bound of the box; where the normal is zero, none
        moves.

        In both norms pixel i moves by min(reach * pace_i, room_i), with a pace of 1 in L-inf and |normal_i| in L2. The
        gain is a concave increasing function of reach, so Newton's method from 0 approaches the root from below. It
        takes a few iterations, without sorting the pixels, and a converged row does not change any more.

        Args:
            x: images, [n, c, h, w].
            normal: of each plane, [n, c, h, w].
            value: of each plane's function at ``x``, [n].
        """
        weight = normal.detach().flatten(1).abs()
        largest = weight.amax(1)
        largest = torch.where(largest > 0, largest, 1)  # squares of small numbers underflow
        weight, need = weight.div_(largest[:, None]), (value / largest).abs()
        way = normal.detach().flatten(1).sign().mul_(-value.sign()[:, None])  # the direction that brings the value to 0
        room = way.clamp(min=0).sub_(way * x.flatten(1))
        limit, gain = (room, weight) if self.norm == "linf" else (room / weight, weight.square())
        most, reach = weight * room, torch.zeros_like(need)
        free, work = (
            torch.empty_like(weight),
            torch.empty_like(weight),
        )  # reused, as allocation would take most of the time
        while True:
            torch.gt(limit, reach[:, None], out=free)  # pixels that have not used up their room, as 0 or 1
            slope = torch.mul(gain, free, out=work).sum(1)
            missing = need - torch.mul(most, free.neg_().add_(1), out=work).sum(1)
            further = torch.fmax(reach, missing / slope)  # NaN (0 / 0) where it has converged
            if not (further > reach).any():
                break
            reach = further
        moved = reach[:, None] if self.norm == "linf" else weight.mul_(reach[:, None])
        return torch.fmin(room, moved).mul_(way).view_as(x)

    def start(
        self, x: Images, start: Start, noise: Noise | None = None, size: Eps | None = None, *, clip: bool = True
    ) -> Images:
        """The starting points of an attack on ``x``.

        Args:
            x: clean images.
            start: "none" x itself; "uniform" uniform in the ball; "bernoulli" +-size per pixel (L2: scaled to length
                size); "gaussian" x + size N(0, 1), which, as in TRADES, is not cut to ball and box; a tensor: as given.
            noise: source of random numbers; None means torch's global generator.
            size: how far, in the units of eps; None means eps, and 0.001 for "gaussian".
            clip: cut a uniform or Bernoulli start to ball and box.

        Raises:
            ValueError: the name is unknown or the given tensor has another shape than ``x``.
        """
        if isinstance(start, Tensor):
            if start.shape != x.shape:
                raise ValueError(f"start has shape {tuple(start.shape)}, the images {tuple(x.shape)}")
            return start
        noise = noise or Noise()
        if start == "none":
            return x
        if start == "gaussian":
            return x + (0.001 if size is None else size) * noise.normal(x)
        size = self.eps if size is None else size
        if start == "uniform":
            delta = self.uniform(x, noise)
        elif start == "bernoulli":
            delta = noise.sign(x) if self.norm == "linf" else self.steepest(noise.sign(x))
        else:
            raise ValueError(f'start {start!r} is unknown: use "none", "uniform", "gaussian", "bernoulli" or images')
        moved = x + size * delta
        return self.project(moved, x) if clip else moved

    def uniform(self, x: Images, noise: Noise | None = None) -> Images:
        """Uniform in the ball of radius 1, without the box; L2: a random direction times u^(1/d), u uniform in 0..1."""
        noise = noise or Noise()
        if self.norm == "linf":
            return noise.uniform(x)
        direction = self.steepest(noise.normal(x))
        share = noise.uniform(x[:, :1, :1, :1]).add(1).div(2)
        return direction * share ** (1 / x.shape[1:].numel())

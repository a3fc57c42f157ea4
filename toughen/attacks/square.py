"""The Square attack: a random search that uses the model's logits alone."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from toughen.attacks.base import Attack, check_counts, start_call, threat_of
from toughen.core.gradients import fooled, logits, mode
from toughen.core.objectives import margin
from toughen.core.rng import Noise
from toughen.core.threat import Threat
from toughen.core.types import Eps, Images, Labels, Logits, Norm, Real

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""The share of changed pixels is halved after each of these queries, of 10,000."""


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Random search over square windows, without gradients (Andriushchenko et al., arXiv:1912.00049).

    Each query changes the perturbation in a window of the best image so far, and keeps the change where it lowers the
    margin. Windows and signs are the same for all images; the start is drawn for each image.

    Passes: ``queries + 1`` forwards per restart for every unbroken image. The clean image gets no query, and an image
    stops at the query that breaks it; neither changes which images are broken.

    Attributes:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        queries: changes tried per restart, one forward each.
        p_init: share of the pixels that the first windows cover, in (0, 1].
        restarts: searches from other starts, for the images that are not broken yet.
        rescale_schedule: stretch the schedule of window sizes, made for 10,000 queries, to ``queries``; AutoAttack
            does not, so that its 5,000 queries end with windows meant for the middle of a search.

    Raises:
        ValueError: a setting outside its range.
    """

    eps: Eps | None = None
    norm: Norm = "linf"
    queries: int = 5000
    p_init: Real = 0.8
    restarts: int = 1
    rescale_schedule: bool = False

    def __post_init__(self) -> None:
        threat_of(self)
        check_counts(queries=self.queries, restarts=self.restarts)
        if self.queries < 1 or self.restarts < 1:
            raise ValueError(f"queries ({self.queries}) and restarts ({self.restarts}) must be at least 1")
        if not 0 < self.p_init <= 1:
            raise ValueError(f"p_init {self.p_init} is a share of the pixels: give one above 0, at most 1")

    @torch.no_grad()
    def __call__(self, model: nn.Module, x: Images, target: Labels | Logits, noise: Noise | None = None) -> Images:
        threat, noise = start_call(self, x, noise, target)
        x_adv, rows, sides = x.clone(), torch.arange(len(x), device=x.device), self._sides(x)
        with mode(model, "eval"):
            for number in range(self.restarts):
                x_adv[rows], left = _search(
                    model, x[rows], target[rows], threat, noise.take(rows).restart(number), sides
                )
                rows = rows[left]
                if not len(rows):
                    break
        return x_adv

    def _sides(self, x: Images) -> list[int]:
        """Each query's window side, in pixels."""
        h, w = x.shape[2:]
        sides = []
        for query in range(self.queries):
            age = int(query / self.queries * 10000) if self.rescale_schedule else query
            share = self.p_init / 2 ** sum(age > after for after in HALVINGS)
            side = max(round(math.sqrt(share * h * w)), 1)
            if self.norm == "l2":
                side = max(side, 3) | 1  # odd, so that the perturbation has a centre
            sides.append(min(side, h, w))
        return sides


def _search(
    model: nn.Module, x: Images, y: Labels, threat: Threat, noise: Noise, sides: list[int]
) -> tuple[Images, Tensor]:
    """One restart: the resulting images, and the rows of those that are not broken."""
    restart = (_LInf if threat.norm == "linf" else _L2)(model, x, y, threat, noise)
    restart.run(sides)
    return restart.result, restart.rows


class _Window(NamedTuple):
    """A rectangle of pixels: rows ``top`` to ``bottom``, columns ``left`` to ``right``, ends not included."""

    top: int
    bottom: int
    left: int
    right: int

    def of(self, images: Tensor) -> Tensor:
        """A view of these pixels, [n, c, rows, columns], of images [n, c, h, w]."""
        return images[:, :, self.top : self.bottom, self.left : self.right]


class _Search(ABC):
    """One restart for the images that are not broken; what a window is filled with depends on the norm.

    Attributes:
        x, x_adv, y, best, rows: of the images that are not broken: the clean image, the best one so far, the label, the
            lowest margin so far, the row in ``result``.
        result: all images; broken ones as they were broken.
        shared: the generator of draws that all images share.
    """

    per_image: tuple[str, ...] = ("x", "x_adv", "y", "best", "rows")

    def __init__(self, model: nn.Module, x: Images, y: Labels, threat: Threat, noise: Noise) -> None:
        self.model, self.x, self.y, self.threat, self.shared = model, x, y, threat, noise.shared()
        self.x_adv = self.start(noise)
        self.rows = torch.arange(len(x), device=x.device)
        self.best = x.new_full((len(x),), torch.inf)
        self.result = self.x_adv.clone()

    @abstractmethod
    def start(self, noise: Noise) -> Images:
        """The images to begin with."""

    @abstractmethod
    def change(self, side: int, places: list[float], sign: Tensor) -> list[tuple[_Window, Images]]:
        """Change ``x_adv`` within one or two windows.

        Args:
            side: of a window, in pixels.
            places: five numbers in [0, 1): rows and columns of two windows, and which way a perturbation is turned.
            sign: [1, c, 1, 1].

        Returns:
            The windows, and what was there.
        """

    def run(self, sides: list[int]) -> None:
        """Query the start, then a window of each of these sides, in pixels."""
        self._judge([])
        drawn = torch.rand((len(sides), 5 + self.x.shape[1]), generator=self.shared, dtype=torch.float64)
        places, signs = drawn[:, :5].tolist(), _sign(drawn[:, 5:]).to(self.x)[:, None, :, None, None]
        for side, five, sign in zip(sides, places, signs, strict=True):
            if not len(self.rows):
                return
            self._judge(self.change(side, five, sign))
        self.result[self.rows] = self.x_adv

    def _judge(self, changed: list[tuple[_Window, Images]]) -> None:
        """Query the model, undo the changes that did not lower an image's margin, and remove broken images.

        An image whose margin is negative in low precision alone is not broken, and its search goes on.
        """
        out = logits(self.model, self.x_adv)
        value = margin(out, self.y)
        better = ~(value >= self.best)
        for window, before in changed:
            view = window.of(self.x_adv)
            view.copy_(torch.where(better.view(-1, 1, 1, 1), view, before))
        self.best = torch.where(better, value, self.best)
        seem = (better & ~(value > 0)).nonzero()[:, 0]
        if len(seem):
            broken = seem[fooled(self.model, self.x_adv[seem], self.y[seem], out[seem])]
            if len(broken):
                self._remove(broken)

    def _remove(self, broken: Labels) -> None:
        self.result[self.rows[broken]] = self.x_adv[broken]
        robust = torch.ones_like(self.rows, dtype=torch.bool).index_fill_(0, broken, False)
        for name in self.per_image:
            setattr(self, name, getattr(self, name)[robust])


class _LInf(_Search):
    """A window changes by +-2 eps per channel, clipped to ball and box, so that pixels lie on the faces of one of them.

    Attributes:
        lower, upper: bounds of the ball cut with the box.
    """

    per_image = (*_Search.per_image, "lower", "upper")

    def start(self, noise: Noise) -> Images:
        """Vertical stripes, one pixel wide, of +-eps."""
        self.lower, self.upper = ((self.x + bound).clamp(0, 1) for bound in (-self.threat.eps, self.threat.eps))
        return (self.x + self.threat.eps * noise.sign(self.x[:, :, :1])).clamp(0, 1)

    def change(self, side: int, places: list[float], sign: Tensor) -> list[tuple[_Window, Images]]:
        window = _window(self.x, side, places)
        view, lower, upper = (window.of(each) for each in (self.x_adv, self.lower, self.upper))
        before = view.clone()
        view.add_(2 * self.threat.eps * sign).clamp_(lower, upper)
        return [(window, before)]


class _L2(_Search):
    """One window loses its perturbation, and another gets a new one of the length that this and eps leave.

    So nothing outside the two windows changes.
    """

    def start(self, noise: Noise) -> Images:
        """A grid of bumps of length eps; all images share the orientations, each has its own signs."""
        h, w = self.x.shape[2:]
        side = max(min(h, w) // 5, 1)
        down, across = h // side, w // side
        top, left = (h - side * down) // 2, (w - side * across) // 2
        turned = torch.rand((down, across), generator=self.shared, dtype=torch.float64)
        signs = noise.sign(self.x[:, :, :down, :across])
        delta = torch.zeros_like(self.x)
        for i in range(down):
            for j in range(across):
                tile = delta[:, :, top + i * side :, left + j * side :][:, :, :side, :side]
                tile.copy_(signs[:, :, i, j, None, None] * _bump(side, bool(turned[i, j] > 0.5)).to(delta))
        return (self.x + self.threat.eps * self.threat.steepest(delta)).clamp(0, 1)

    def change(self, side: int, places: list[float], sign: Tensor) -> list[tuple[_Window, Images]]:
        window, further = (_window(self.x, side, place) for place in (places, places[2:]))
        view, x, other, other_x = (of(each) for of in (window.of, further.of) for each in (self.x_adv, self.x))
        before, other_before = view.clone(), other.clone()
        unused = self.threat.eps**2 - self.threat.distance(self.x_adv, self.x).square()
        delta = view - x
        length = _length(delta)
        view.copy_(x)  # so that pixels in both windows count once
        freed = length.square() + _length(other - other_x).square()
        new = _unit(_bump(side, places[4] > 0.5).to(x) * sign + delta / (length + TINY))
        # ``unused`` may be slightly negative by rounding
        new *= (unused.view(-1, 1, 1, 1) / x.shape[1] + freed).clamp(min=0).sqrt()
        other.copy_(other_x)
        view.copy_((x + new).clamp_(0, 1))
        return [(window, before), (further, other_before)]


TINY = 1e-12


def _length(delta: Tensor) -> Tensor:
    """Each channel's L2 length, [n, c, 1, 1]."""
    return delta.square().sum((2, 3), keepdim=True).sqrt_()


def _unit(delta: Tensor) -> Tensor:
    """Each channel divided by its length."""
    return delta / (_length(delta) + TINY)


def _sign(share: Tensor) -> Tensor:
    """-1 or 1, for numbers drawn from [0, 1)."""
    return torch.where(share < 0.5, -1.0, 1.0)


def _window(images: Images, side: int, place: list[float]) -> _Window:
    """``side`` x ``side`` pixels; as in AutoAttack, only a window of full size includes the last row and column."""
    top, left = (int(share * (size - side)) for share, size in zip(place[:2], images.shape[2:], strict=True))
    return _Window(top, top + side, left, left + side)


@lru_cache(maxsize=64)
def _bump(side: int, turned: bool) -> Tensor:
    """A window's perturbation of length 1: a bump in its upper (turned: left) half, minus one in the other."""
    bump = torch.cat([_cone(side // 2, side), -_cone(side - side // 2, side)])
    bump /= bump.norm()
    return bump.T.contiguous() if turned else bump


def _cone(h: int, w: int) -> Tensor:
    """Sums of 1, 1/4, 1/9, ... over growing squares around the middle, of length 1."""
    reach = max(h // 2, w // 2) + 1
    heights = (1 / torch.arange(1, reach + 1, dtype=torch.float64).square()).flip(0).cumsum(0).flip(0)
    rows, columns = (torch.arange(size)[:, None] - size // 2 for size in (h, w))
    cone = heights[torch.maximum(rows.abs(), columns.abs().T)]
    scaled: Tensor = cone / cone.norm().clamp(min=TINY)
    return scaled

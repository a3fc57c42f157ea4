"""Learning-rate schedules as functions of progress, the share of training done (0..1), so that any length fits them.

They have no state: where a run stands says what its rate is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch.optim import Optimizer

from toughen.core.types import Real
from toughen.utils.configurable import Configurable


class Schedule(Configurable):
    """The base of all schedules."""

    def factor(self, progress: float) -> float:
        """What multiplies the learning rate."""
        raise NotImplementedError(f"{type(self).__name__} has no factor: define it")

    def momentum(self, progress: float) -> float | None:
        """The momentum (Adam: beta1) to set, or None to leave it."""
        return None

    @property
    def first_drop(self) -> float | None:
        """The share of training after which the rate first falls by a step; None without one."""
        return None

    def set(self, optimizer: Optimizer, lr: float, progress: float) -> None:
        """Give an optimizer its learning rate and momentum for this place in the run; a group's "lr_scale" is kept."""
        factor, momentum = self._checked_factor(progress), self.momentum(progress)
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0) * factor
            if momentum is not None and "momentum" in group:
                group["momentum"] = momentum
            elif momentum is not None and "betas" in group:
                group["betas"] = (momentum, group["betas"][1])

    def _checked_factor(self, progress: float) -> float:
        """``factor`` as a float; the class may be a user's own.

        Raises:
            ValueError: it is not a number of 0 and more.
        """
        found = self.factor(progress)
        try:
            factor = float(found)  # maybe numpy's
        except (TypeError, ValueError):
            factor = math.nan
        if not 0 <= factor < math.inf:
            raise ValueError(
                f"{type(self).__name__}.factor({progress:.6g}) returned {found!r}: it must return a number of 0 or more"
            )
        return factor


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """The same rate throughout."""

    def factor(self, progress: float) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Piecewise(Schedule):
    """The rate falls by the same factor at each milestone.

    Attributes:
        milestones: shares of training, 0..1, rising; after 100 of 110 epochs is ``100/110``.
        gamma: what the rate is multiplied by at each.
    """

    milestones: tuple[Real, ...] = (0.5, 0.75)
    gamma: float | int = 0.1

    def __post_init__(self) -> None:
        _check_shares(milestones=self.milestones)
        _check_gamma(self.gamma)

    def factor(self, progress: float) -> float:
        return float(self.gamma ** sum(progress >= milestone - 1e-9 for milestone in self.milestones))

    @property
    def first_drop(self) -> float | None:
        return min(self.milestones, default=None)


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """A linear warm-up, then half a cosine down to zero (Loshchilov & Hutter, arXiv:1608.03983).

    Attributes:
        warmup: share of training, 0..1.
    """

    warmup: Real = 0.0

    def __post_init__(self) -> None:
        _check_shares(warmup=(self.warmup,))

    def factor(self, progress: float) -> float:
        if progress < self.warmup:
            return progress / self.warmup
        return 0.5 * (1 + math.cos(math.pi * (progress - self.warmup) / max(1 - self.warmup, 1e-9)))


@dataclass(frozen=True, kw_only=True)
class Cyclic(Schedule):
    """A triangle: from zero up to the full rate and back to zero (Smith, arXiv:1506.01186).

    Attributes:
        peak: share of training at which the rate is highest, 0..1.
        low_momentum: momentum at the peak.
        high_momentum: momentum where the rate is zero.
        cycle_momentum: move momentum against the rate, as torch's CyclicLR does unless told otherwise.
    """

    peak: Real = 0.5
    cycle_momentum: bool = False
    low_momentum: float | int = 0.8
    high_momentum: float | int = 0.9

    def __post_init__(self) -> None:
        _check_shares(peak=(self.peak,))
        _check_momenta(self.low_momentum, self.high_momentum)

    def factor(self, progress: float) -> float:
        return triangle(progress, self.peak, 1.0)

    def momentum(self, progress: float) -> float | None:
        return _cycled_momentum(self, self.factor(progress))


@dataclass(frozen=True, kw_only=True)
class OneCycle(Schedule):
    """Half a cosine up to the full rate and half a cosine down to almost nothing (Smith & Topin, arXiv:1708.07120).

    The defaults are those of torch's OneCycleLR, of which the last step is the end of training.

    Attributes:
        peak: share of training at which the rate is highest, 0..1.
        start: rate at the start, as a share of the full rate.
        end: rate at the end, as a share of the full rate.
        cycle_momentum: move momentum against the rate.
        low_momentum: momentum at the peak.
        high_momentum: momentum at the start and the end.
    """

    peak: Real = 0.3
    start: Real = 1 / 25
    end: Real = 1 / 250_000
    cycle_momentum: bool = True
    low_momentum: float | int = 0.85
    high_momentum: float | int = 0.95

    def __post_init__(self) -> None:
        _check_shares(peak=(self.peak,), start=(self.start,), end=(self.end,))
        _check_momenta(self.low_momentum, self.high_momentum)

    def factor(self, progress: float) -> float:
        least = self.start if progress < self.peak else self.end
        return least + (1 - least) * self._height(progress)

    def momentum(self, progress: float) -> float | None:
        return _cycled_momentum(self, self._height(progress))

    def _height(self, progress: float) -> float:
        """0 at both ends, 1 at the peak."""
        return 0.5 * (1 - math.cos(math.pi * triangle(progress, self.peak, 1.0)))


@dataclass(frozen=True, kw_only=True)
class CyclicStep(Schedule):
    """NuAT's schedule: a triangle that stops part-way down, then steps (released code of Sriramanan et al., 2021).

    The defaults are those of its ResNet-18: up until epoch 40 of 100, down towards zero at 90, stopped at 80 at a fifth
    of the full rate, and divided by ten at 86 and again at 91. Momentum stays where the triangle left it.

    Attributes:
        peak: share of training at which the rate is highest.
        zero: share of training at which the triangle would reach zero.
        stop: share of training at which it stops.
        milestones: shares of training at which the rate is then multiplied by gamma.
        gamma: that factor.
        cycle_momentum: move momentum against the triangle.
        low_momentum: momentum at the peak.
        high_momentum: momentum where the rate is zero.
    """

    peak: Real = 0.4
    zero: Real = 0.9
    stop: Real = 0.8
    milestones: tuple[Real, ...] = (0.86, 0.91)
    gamma: float | int = 0.1
    cycle_momentum: bool = False
    low_momentum: float | int = 0.8
    high_momentum: float | int = 0.9

    def __post_init__(self) -> None:
        _check_shares(peak=(self.peak,), stop=(self.stop,), zero=(self.zero,), milestones=self.milestones)
        if not self.peak <= self.stop < self.zero:
            raise ValueError(f"peak {self.peak}, stop {self.stop} and zero {self.zero} must rise in this order")
        _check_gamma(self.gamma)
        _check_momenta(self.low_momentum, self.high_momentum)

    def _triangle(self, progress: float) -> float:
        return triangle(min(progress, self.stop), self.peak, self.zero)

    def factor(self, progress: float) -> float:
        drops = sum(progress >= milestone - 1e-9 for milestone in self.milestones)
        return float(self._triangle(progress) * self.gamma**drops)

    def momentum(self, progress: float) -> float | None:
        return _cycled_momentum(self, self._triangle(progress))

    @property
    def first_drop(self) -> float | None:
        return min(self.milestones, default=None)


def triangle(progress: float, peak: float | int, zero: float | int) -> float:
    """0 at 0, 1 at ``peak``, 0 from ``zero`` on, straight in between."""
    if progress < peak:
        return progress / peak
    return max(0.0, (zero - progress) / (zero - peak)) if zero > peak else 1.0


def _cycled_momentum(schedule: Cyclic | OneCycle | CyclicStep, height: float) -> float | None:
    """Momentum against the rate, whose height between its ends, 0, and its peak, 1, is given; None where it stays."""
    if not schedule.cycle_momentum:
        return None
    return schedule.high_momentum - (schedule.high_momentum - schedule.low_momentum) * height


def _check_shares(**settings: tuple[Real, ...]) -> None:
    for name, values in settings.items():
        if not all(0 <= value <= 1 for value in values) or list(values) != sorted(values):
            raise ValueError(f"{name} must be shares of training, 0..1 and rising, got {values}")


def _check_gamma(gamma: float | int) -> None:
    if not 0 <= gamma < math.inf:
        raise ValueError(f"gamma is {gamma}: it multiplies a rate, so it must be a finite number, not below 0")


def _check_momenta(low: float | int, high: float | int) -> None:
    for name, value in (("low_momentum", low), ("high_momentum", high)):
        if not 0 <= value < 1:
            raise ValueError(f"{name} is {value}: it must be in 0..1, below 1")

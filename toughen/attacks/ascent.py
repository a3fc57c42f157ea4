"""What Auto-PGD knows of each image while it climbs."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from toughen.core.gradients import InputGradient
from toughen.core.threat import Threat
from toughen.core.types import Images, Labels, Mask, PerExample, Real


@dataclass
class Ascent:
    """What an ascent knows of the images that are not broken yet; a row each.

    Attributes:
        rows: their places in the batch.
        x, y: the clean images and their labels.
        x_adv, before: where they are, and where the last step began, which momentum is measured from.
        gradient: at the point from which the next step goes.
        best, best_gradient, best_value: the highest value so far, where it was, and the gradient there.
        previous: the value after the step before; 0 before the first, so that a positive one counts as a rise.
        rises: steps that raised the value since the last checkpoint.
        step_size: in the units of eps.
        checked, halved: the best value at the last checkpoint, and whether the step size was halved there.
    """

    rows: Labels
    x: Images
    y: Labels
    x_adv: Images
    before: Images
    gradient: Images
    best: Images
    best_gradient: Images
    best_value: PerExample
    previous: PerExample
    rises: PerExample
    step_size: PerExample
    checked: PerExample
    halved: Mask

    @classmethod
    def at(cls, start: Images, x: Images, y: Labels, step_size: Real) -> Ascent:
        none, zero = torch.zeros_like(start), x.new_zeros(len(x))
        return cls(
            rows=torch.arange(len(x), device=x.device),
            x=x,
            y=y,
            x_adv=start,
            before=start,
            gradient=none,
            best=start,
            best_gradient=none,
            best_value=zero - torch.inf,
            previous=zero,
            rises=zero,
            step_size=zero + step_size,
            checked=zero,
            halved=torch.ones_like(y, dtype=torch.bool),  # no best value was checked yet that could have stayed
        )

    def take(self, rows: Labels) -> Ascent:
        return Ascent(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def move(self, threat: Threat, keep: float) -> None:
        """A step along the gradient, of which ``keep`` is taken, and of the step before the rest."""
        step = self.step_size.view(-1, 1, 1, 1) * threat.steepest(self.gradient)
        ahead = threat.project(self.x_adv + step, self.x)
        moved = self.x_adv + (ahead - self.x_adv) * keep + (self.x_adv - self.before) * (1 - keep)
        self.before, self.x_adv = self.x_adv, threat.project(moved, self.x)

    def learn(self, result: InputGradient, start: bool) -> None:
        """Take in the gradient and the value of the point where the images are."""
        better = result.value > self.best_value
        images = better.view(-1, 1, 1, 1)
        self.best = torch.where(images, self.x_adv, self.best)
        self.best_gradient = torch.where(images, result.gradient, self.best_gradient)
        self.best_value = torch.where(better, result.value, self.best_value)
        self.gradient = result.gradient
        if not start:
            self.rises = self.rises + (result.value > self.previous)
            self.previous = result.value

    def check(self, enough: float) -> None:
        """Halve the step size and go back to the best point where the search stalls; momentum still sees ``before``."""
        stalled = (self.rises <= enough) | (~self.halved & (self.checked >= self.best_value))
        images = stalled.view(-1, 1, 1, 1)
        self.step_size = torch.where(stalled, self.step_size / 2, self.step_size)
        self.x_adv = torch.where(images, self.best, self.x_adv)
        self.gradient = torch.where(images, self.best_gradient, self.gradient)
        self.checked, self.halved, self.rises = self.best_value, stalled, torch.zeros_like(self.rises)

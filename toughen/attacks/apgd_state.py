"""The state of Auto-PGD for each image."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from toughen.core.gradients import InputGradient
from toughen.core.threat import Threat
from toughen.core.types import Images, Labels, Mask, PerExample, Real


@dataclass
class APGDState:
    """The state of Auto-PGD for the images that are not broken yet, one row per image.

    Attributes:
        rows: their places in the batch.
        x, y: the clean images and their labels.
        x_adv, previous_x: the current points, and those before the last step, for the momentum.
        gradient: at the current points.
        best, best_gradient, best_value: the points with the highest value so far, gradient and value there.
        previous_value: the value before the last step; 0 at the first step, so that a positive value counts as a rise.
        rises: steps since the last checkpoint that raised the value.
        step_size: in the units of eps.
        checkpoint_value, halved: the best value at the last checkpoint, and whether the step size was halved there.
    """

    rows: Labels
    x: Images
    y: Labels
    x_adv: Images
    previous_x: Images
    gradient: Images
    best: Images
    best_gradient: Images
    best_value: PerExample
    previous_value: PerExample
    rises: PerExample
    step_size: PerExample
    checkpoint_value: PerExample
    halved: Mask

    @classmethod
    def at(cls, start: Images, x: Images, y: Labels, step_size: Real) -> APGDState:
        """The state before the first step."""
        none, zero = torch.zeros_like(start), x.new_zeros(len(x))
        return cls(
            rows=torch.arange(len(x), device=x.device),
            x=x,
            y=y,
            x_adv=start,
            previous_x=start,
            gradient=none,
            best=start,
            best_gradient=none,
            best_value=zero - torch.inf,
            previous_value=zero,
            rises=zero,
            step_size=zero + step_size,
            checkpoint_value=zero,
            halved=torch.ones_like(y, dtype=torch.bool),  # so that the first checkpoint compares no best values
        )

    def take(self, rows: Labels) -> APGDState:
        """The state of some of the images."""
        return APGDState(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def move(self, threat: Threat, keep: float) -> None:
        """A projected gradient step, times ``keep``, plus the last step, times 1 - ``keep``."""
        step = self.step_size.view(-1, 1, 1, 1) * threat.steepest(self.gradient)
        ahead = threat.project(self.x_adv + step, self.x)
        moved = self.x_adv + (ahead - self.x_adv) * keep + (self.x_adv - self.previous_x) * (1 - keep)
        self.previous_x, self.x_adv = self.x_adv, threat.project(moved, self.x)

    def update(self, result: InputGradient, start: bool) -> None:
        """Store gradient and value at the current points; ``start`` for those before the first step."""
        better = result.value > self.best_value
        images = better.view(-1, 1, 1, 1)
        self.best = torch.where(images, self.x_adv, self.best)
        self.best_gradient = torch.where(images, result.gradient, self.best_gradient)
        self.best_value = torch.where(better, result.value, self.best_value)
        self.gradient = result.gradient
        if not start:
            self.rises = self.rises + (result.value > self.previous_value)
            self.previous_value = result.value

    def checkpoint(self, enough: float) -> None:
        """Halve the step and go to ``best``, where at most ``enough`` steps raised the value or the best value stayed.

        ``previous_x`` stays as it is, as in the authors' program.
        """
        stalled = (self.rises <= enough) | (~self.halved & (self.checkpoint_value >= self.best_value))
        images = stalled.view(-1, 1, 1, 1)
        self.step_size = torch.where(stalled, self.step_size / 2, self.step_size)
        self.x_adv = torch.where(images, self.best, self.x_adv)
        self.gradient = torch.where(images, self.best_gradient, self.gradient)
        self.checkpoint_value, self.halved, self.rises = self.best_value, stalled, torch.zeros_like(self.rises)

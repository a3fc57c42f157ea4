"""What FAB knows of each image while it searches along the boundary."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from toughen.core.classifier import misclassified
from toughen.core.gradients import InputGradient, exact_logits, lowest_gradient, pass_size
from toughen.core.objectives import LogitDifference, margin
from toughen.core.threat import Threat
from toughen.core.types import Images, Labels, Logits, Mask, PerExample


@dataclass
class Boundary:
    """The images that are still worked on.

    Attributes:
        rows: their places in the batch.
        x, y: the clean images and their classes.
        towards: the wrong classes whose boundary is sought, [n, m].
        x_adv: the iterates.
        kept, best: the images to return, and their distance where they are adversarial.
        value, gradient: of the plane, at the iterate.
        known: whether these two are those of the iterate.
        stood: whether the last three points looked at were on the clean side, [n, 3], the newest first. Most images
            cross at every other step, or always, or never; so the next point is expected on the clean side where the
            one two steps back was, unless the newest stood and the oldest did not (right for 3 of 4 on MNIST).
        shift: what the model itself said beyond the search's logits where the two were last compared, [n, k].
        calibrated: whether they ever were.
    """

    rows: Labels
    x: Images
    y: Labels
    towards: Tensor
    x_adv: Images
    kept: Images
    best: PerExample
    value: PerExample
    gradient: Images
    known: Mask
    stood: Tensor
    shift: Tensor
    calibrated: Mask

    @classmethod
    def at(
        cls,
        start: Images,
        x: Images,
        y: Labels,
        towards: Tensor,
        rows: Labels,
        kept: Images,
        best: PerExample,
        shift: Tensor,
    ) -> Boundary:
        """The state before the first look."""
        known = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        value, gradient, stood = torch.zeros_like(best), torch.zeros_like(x), ~known[:, None].expand(-1, 3)
        return cls(rows, x, y, towards, start, kept, best, value, gradient, known, stood, shift, known)

    def take(self, rows: Labels) -> Boundary:
        """The state of some of the images."""
        return Boundary(*(getattr(self, field.name)[rows] for field in fields(self)))

    def look(self, model: nn.Module, threat: Threat, last: bool) -> Logits:
        """The logits of all iterates, and the planes at those that are expected to stand, from the same pass.

        All go forward alike, so what is expected changes no figure. With passes of one size, planes are taken only
        where that saves some: the others, and those that were expected wrongly, go forward once more, in their own.
        """
        expected = self.stood[:, 1] & (self.stood[:, 2] | ~self.stood[:, 0])
        order = expected.int().argsort(descending=True, stable=True)
        n, first, size = len(order), int(expected.sum()), pass_size(model)
        saves = -(-first // size) + 2 * -(-(n - first) // size) < 2 * -(-n // size)
        self.known = torch.zeros_like(self.known)
        return self._ask(model, threat, order, first if saves and not last else 0)[order.argsort()]

    def differentiate(self, model: nn.Module, threat: Threat) -> None:
        """The planes at all iterates that have none yet."""
        rows = (~self.known).nonzero()[:, 0]
        if len(rows):
            self._ask(model, threat, rows, len(rows))

    def _ask(self, model: nn.Module, threat: Threat, rows: Labels, wanted: int) -> Logits:
        """The logits of these images, while the planes of the first ones of them are noted."""
        seek = []
        for towards in self.towards[rows].unbind(1):
            seek.append(LogitDifference(towards, LogitDifference(towards)(self.shift[rows], self.y[rows])))

        def distance(result: InputGradient) -> PerExample:
            return result.value.abs() / (threat.dual(result.gradient) + 1e-12)

        result = lowest_gradient(model, self.x_adv[rows], self.y[rows], seek, distance, wanted)
        first = rows[:wanted]
        self.value[first], self.gradient[first] = result.value[:wanted], result.gradient[:wanted].nan_to_num()
        self.known = self.known.index_fill(0, first, True)
        return result.logits

    def calibrate(self, model: nn.Module, out: Logits, seems: Mask, near: Mask) -> Mask:
        """Which images crossed the boundary, where ``seems`` says it by logits in low precision.

        Close to a boundary their error is about all that there is, so the search would circle a boundary that is not
        the model's, or stop short of it. The model itself is asked where an image first comes close or seems to cross,
        where it stays close without crossing, and wherever it may be adversarial; the difference is added to the logits
        from then on.
        """
        close = margin(out + self.shift, self.y) <= 2**-7 * out.abs().amax(1)  # what bf16 cannot tell apart
        doubt = (seems | close) & ~self.calibrated | close & self.stood.all(1)
        rows = (seems & near | doubt).nonzero()[:, 0]
        if not len(rows):
            return seems
        exact = exact_logits(model, self.x_adv[rows])
        self.shift = self.shift.index_copy(0, rows, (exact - out[rows]).nan_to_num(0, 0, 0))
        self.calibrated = self.calibrated.index_fill(0, rows, True)
        self.known = self.known.index_fill(0, rows, False)
        return seems.index_copy(0, rows, misclassified(exact, self.y[rows]))

    def step_back(self, crossed: Mask, beta: float) -> None:
        """Towards the clean image where the boundary was crossed; elsewhere the pass just made is the next step's."""
        back = self.x + beta * (self.x_adv - self.x)
        self.x_adv = torch.where(crossed.view(-1, 1, 1, 1), back, self.x_adv)
        self.known = self.known & ~crossed
        self.stood = torch.cat([~crossed[:, None], self.stood[:, :2]], 1)

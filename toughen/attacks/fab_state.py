"""The state of FAB for each image."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from toughen.core.gradients import InputGradient, exact_logits, nearest_gradient, pass_size
from toughen.core.objectives import LogitDifference, margin, misclassified
from toughen.core.threat import Threat
from toughen.core.types import Images, Labels, Logits, Mask, PerExample


@dataclass
class FABState:
    """The state of FAB for the images that the search continues with, one row per image.

    The plane is the linear approximation, at the iterate, of the nearest class boundary.

    Attributes:
        rows: their places in the batch.
        x, y: the clean images and their labels.
        towards: the wrong classes whose boundary is sought, [n, m].
        x_adv: the iterates.
        result, best_distance: the images to return, and their distance; infinite until they are adversarial.
        value, gradient: of the plane, at the iterate.
        has_plane: whether value and gradient belong to the current iterate.
        clean_side: whether the last three points were on the clean side of the boundary, [n, 3], the newest first.
            Most images cross the boundary at every other step, or always, or never. So the next point is expected on
            the clean side where the point two steps back was, except where the newest was and the oldest was not (right
            for 3 of 4 points on MNIST).
        correction: the model's logits minus the search's, where the two were last compared, [n, k]; 0 before.
        calibrated: whether they were compared.
    """

    rows: Labels
    x: Images
    y: Labels
    towards: Tensor
    x_adv: Images
    result: Images
    best_distance: PerExample
    value: PerExample
    gradient: Images
    has_plane: Mask
    clean_side: Tensor
    correction: Tensor
    calibrated: Mask

    @classmethod
    def at(
        cls,
        start: Images,
        x: Images,
        y: Labels,
        towards: Tensor,
        rows: Labels,
        result: Images,
        best_distance: PerExample,
        correction: Tensor,
    ) -> FABState:
        """The state before the first pass."""
        none = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        return cls(
            rows=rows,
            x=x,
            y=y,
            towards=towards,
            x_adv=start,
            result=result,
            best_distance=best_distance,
            value=torch.zeros_like(best_distance),
            gradient=torch.zeros_like(x),
            has_plane=none,
            clean_side=~none[:, None].expand(-1, 3),
            correction=correction,
            calibrated=none,
        )

    def take(self, rows: Labels) -> FABState:
        """The state of some of the images."""
        return FABState(*(getattr(self, field.name)[rows] for field in fields(self)))

    def evaluate(self, model: nn.Module, threat: Threat, last: bool) -> Logits:
        """The logits of all iterates, [n, k]; the same pass computes planes where no crossing is expected.

        A wrong expectation changes no result, only the number of passes: ``compute_planes`` makes up for a missing
        plane. With passes of a fixed size, planes are computed here only where that saves passes.
        """
        expected = self.clean_side[:, 1] & (self.clean_side[:, 2] | ~self.clean_side[:, 0])
        order = expected.int().argsort(descending=True, stable=True)
        n, first, size = len(order), int(expected.sum()), pass_size(model)
        saves = -(-first // size) + 2 * -(-(n - first) // size) < 2 * -(-n // size)
        self.has_plane = torch.zeros_like(self.has_plane)
        return self._logits_and_planes(model, threat, order, first if saves and not last else 0)[order.argsort()]

    def compute_planes(self, model: nn.Module, threat: Threat) -> None:
        """Compute the planes at all iterates that have none."""
        rows = (~self.has_plane).nonzero()[:, 0]
        if len(rows):
            self._logits_and_planes(model, threat, rows, len(rows))

    def _logits_and_planes(self, model: nn.Module, threat: Threat, rows: Labels, count: int) -> Logits:
        """The logits of these images; stores the planes of the first ``count`` of them."""
        objectives = []
        for towards in self.towards[rows].unbind(1):
            correction = LogitDifference(towards)(self.correction[rows], self.y[rows])
            objectives.append(LogitDifference(towards, correction))

        def distance(result: InputGradient) -> PerExample:
            return result.value.abs() / (threat.dual(result.gradient) + 1e-12)

        planes = nearest_gradient(model, self.x_adv[rows], self.y[rows], objectives, distance, count)
        first = rows[:count]
        self.value[first], self.gradient[first] = planes.value[:count], planes.gradient[:count].nan_to_num()
        self.has_plane = self.has_plane.index_fill(0, first, True)
        return planes.logits

    def calibrate(self, model: nn.Module, out: Logits, seems: Mask, near: Mask) -> Mask:
        """Which images crossed the boundary, [n], where the search's logits are of low precision.

        Close to the boundary, the error of these logits exceeds their margin. The search would follow another boundary
        than the model's. So the exact logits are computed where an image first comes close or seems to cross, where it
        stays close for three steps without crossing, and where it may be adversarial. The difference is stored in
        ``correction`` and added to the search's logits from then on.

        Args:
            model: gives the exact logits.
            out: the search's logits, [n, k], without the correction.
            seems: which images are misclassified by them, with the correction.
            near: which images are within eps, or nearer than the best result.
        """
        close = margin(out + self.correction, self.y) <= 2**-7 * out.abs().amax(1)  # the precision of bf16
        doubt = (seems | close) & ~self.calibrated | close & self.clean_side.all(1)
        rows = (seems & near | doubt).nonzero()[:, 0]
        if not len(rows):
            return seems
        exact = exact_logits(model, self.x_adv[rows])
        self.correction = self.correction.index_copy(0, rows, (exact - out[rows]).nan_to_num(0, 0, 0))
        self.calibrated = self.calibrated.index_fill(0, rows, True)
        self.has_plane = self.has_plane.index_fill(0, rows, False)
        return seems.index_copy(0, rows, misclassified(exact, self.y[rows]))

    def step_back(self, crossed: Mask, beta: float) -> None:
        """Move iterates that crossed the boundary towards the clean image: ``beta`` of the perturbation is kept."""
        back = self.x + beta * (self.x_adv - self.x)
        self.x_adv = torch.where(crossed.view(-1, 1, 1, 1), back, self.x_adv)
        self.has_plane = self.has_plane & ~crossed
        self.clean_side = torch.cat([~crossed[:, None], self.clean_side[:, :2]], 1)

"""Prior-guided initialisation."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from toughen.attacks.base import threat_of
from toughen.core.gradients import input_gradient, logits
from toughen.core.objectives import SmoothedCrossEntropy
from toughen.core.types import Batch, Crafted, Eps, Images, Labels, Logits, Norm, Real, Step
from toughen.methods.base import Method, noise_of
from toughen.methods.history import to_image, to_view


class PGI(Method):
    """FGSM that starts where an image's last perturbation ended, and is held near it (Jia et al., arXiv:2207.08859).

    Passes: 7, the starting point (1 and 1 for the attack), the adversarial images (1) and both towards the weights (4).

    The loss is the adversarial cross-entropy plus lam times the mean squared difference of the logits at start and end,
    over images and classes, with gradient through both. ``prior`` "momentum" is FGSM-MEP: each image's start moves
    along the sign of its gradients' sum, older ones decayed, each divided by the batch's L1 norm, as released. "epoch"
    is FGSM-EP: an image starts at its last perturbation; "batch" is FGSM-BP: at that of the last batch's image in the
    same place. A first start is +-eps at random per pixel and not clipped to [0, 1], as released. All passes run in the
    mode that the model is in.

    What is kept of an image lies in its own coordinates and follows it through shift and mirroring, where the released
    code leaves it as it lay; what a crop left out of sight stays as it was, and padding starts at zero. It takes the
    memory of the training set in floats, twice that with momentum.

    Args:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        lam: weight of the distance from the start, in logits; 10 as released.
        prior: where the attack starts, "momentum", "epoch" or "batch".
        decay: share of the gradients' sum kept at each visit of an image, for "momentum"; 0.3 as released.
        step_size: length of the step, in the units of eps; None means eps, as released.
        reset: after this many epochs of the run, and again after as many more, the remembered starts are forgotten, and
            the next are random again; 40 as released, 0 means never. A reset that is due while a rescue trains comes
            after PGI's next epoch.
        smoothing: share of a label that is spread over all classes, in attack and loss; the released code has 4/9 on
            ten classes.

    Raises:
        ValueError: a setting is out of its range; without "batch", the batch does not say which images it holds.
    """

    start_at: Tensor
    momentum: Tensor
    seen: Tensor

    def __init__(
        self,
        *,
        eps: Eps | None = None,
        norm: Norm = "linf",
        lam: float | int = 10.0,
        prior: Literal["momentum", "epoch", "batch"] = "momentum",
        decay: float | int = 0.3,
        step_size: Real | None = None,
        reset: int = 40,
        smoothing: Real = 0.0,
    ) -> None:
        super().__init__()
        self.eps, self.norm, self.lam, self.decay, self.reset, self.smoothing = eps, norm, lam, decay, reset, smoothing
        self.prior = prior
        self.step_size = threat_of(self).eps if step_size is None else step_size
        if not (lam >= 0 and decay >= 0 and reset >= 0 and self.step_size >= 0 and 0 <= smoothing < 1):
            raise ValueError(
                f"lam ({lam}), decay ({decay}), reset ({reset}) and step_size ({step_size}) must be at least 0, "
                f"smoothing ({smoothing}) a share below 1"
            )
        kept = ("start_at", "momentum", "seen")
        self.per_image_buffers, self.per_process_buffers = ((), kept) if prior == "batch" else (kept, ())
        self.epoch = 0

    def prepare(self, model: nn.Module, shape: tuple[int, int, int], classes: int, images: int | None = None) -> None:
        super().prepare(model, shape, classes, images)
        self.sized = images is not None and self.prior != "batch"
        rows = images if images is not None and self.sized else 0
        like = next(model.parameters(), torch.zeros(()))
        self.register_buffer("start_at", like.new_zeros(rows, *shape))
        self.register_buffer("momentum", like.new_zeros(rows if self.prior == "momentum" else 0, *shape))
        self.register_buffer("seen", like.new_zeros(rows, dtype=torch.bool))

    def forget(self) -> None:
        super().forget()
        self.epoch = 0

    @property
    def graph_key(self) -> Hashable:
        return self.prior if self.sized else None  # what is kept may grow

    @property
    def keeps_images(self) -> bool:
        return self.prior != "batch"

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        threat = threat_of(self)
        threat.check(x)
        rows = self._rows(x, batch)
        view = None if self.prior == "batch" else batch
        fresh = threat.eps * threat.steepest((noise_of(batch)).sign(x))
        known = self.seen[rows].view(-1, 1, 1, 1)
        start = x + torch.where(known, to_view(self.start_at[rows], view).to(x.dtype), fresh)
        at_start = input_gradient(model, start, y, SmoothedCrossEntropy(self.smoothing), keep_graph=True)
        x_adv = threat.project(start + self.step_size * threat.steepest(at_start.gradient), x)
        following = x_adv
        if self.prior == "momentum":
            share = at_start.gradient / at_start.gradient.abs().sum().clamp(min=torch.finfo(x.dtype).tiny)
            summed = share + self.decay * to_view(self.momentum[rows], view).to(x.dtype)
            following = threat.project(start + self.step_size * threat.steepest(summed), x)
            _keep(self.momentum, rows, summed, view)
        _keep(self.start_at, rows, following - x, view)
        self.seen.index_fill_(0, rows, True)
        return Crafted(x_adv=x_adv, clean=at_start.logits, extra={"start": start}, bases={"start": x})

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        out_start: Logits = logits(model, crafted.extra["start"]) if crafted.clean is None else crafted.clean
        out = logits(model, crafted.x_adv)
        robust, distance = SmoothedCrossEntropy(self.smoothing)(out, y).mean(), (out - out_start).square().mean()
        return Step(robust + self.lam * distance, out, {"robust": robust.detach(), "distance": distance.detach()})

    def after_epoch(self, metrics: dict[str, Any]) -> None:
        # epochs of the run: a rescue trains some without this method, and restores its earlier count
        before, self.epoch = self.epoch, metrics.get("epoch", self.epoch) + 1
        if self.reset and self.epoch // self.reset > before // self.reset:
            for kept in (self.start_at, self.momentum, self.seen):
                kept.zero_()

    def get_extra_state(self) -> dict[str, int]:
        return {"epoch": self.epoch}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.epoch = state["epoch"]

    def _rows(self, x: Images, batch: Batch | None) -> Tensor:
        """Where the batch's images are kept; there is room for them afterwards."""
        if self.prior == "batch":
            rows, needed = torch.arange(len(x), device=x.device), len(x)
        elif batch is None or batch.index is None:
            raise ValueError(
                "PGI keeps a start for each image: give Batch(index=...), each image's place in the set, "
                'or use prior="batch"'
            )
        else:
            rows = batch.index
            needed = 0 if self.sized else int(rows.max()) + 1
        more = needed - len(self.seen)
        if more > 0:
            self.start_at, self.seen = _extended(self.start_at, more), _extended(self.seen, more)
            if self.prior == "momentum":
                self.momentum = _extended(self.momentum, more)
        return rows


def _extended(kept: Tensor, more: int) -> Tensor:
    return torch.cat([kept, kept.new_zeros(more, *kept.shape[1:])])


def _keep(kept: Tensor, rows: Tensor, new: Images, view: Batch | None) -> None:
    """Write what the batch showed of its images, and leave what it did not show."""
    shown = to_image(torch.ones_like(new), view) > 0
    kept[rows] = torch.where(shown, to_image(new, view).to(kept.dtype), kept[rows])

"""Nuclear-norm adversarial training."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any, Literal

from torch import Tensor, nn

from toughen.core.gradients import logits
from toughen.core.nuclear_norm import nuclear_norm
from toughen.core.objectives import NuclearAscent, Objective
from toughen.core.types import Crafted, Eps, Images, Labels, Logits, Norm, Plan, Step
from toughen.methods.guided import _Guided


class NuAT(_Guided):
    """Clean cross-entropy plus lam x the nuclear norm of f(x_adv) - f(x) (Sriramanan et al., NeurIPS 2021).

    Passes: 8, a clean pass (3) that attack and loss share, an attack of one step (2), an adversarial pass (3).

    Towards Efficient and Effective Adversarial Training, Algorithm 1, as released. The attack's step raises this sum.
    Eq. 2 prints f(x_adv) in the cross-entropy; the algorithm and the released code have f(x). The attack runs in
    evaluation mode, but the clean logits it compares with come from a pass in training mode. With weight averaging in
    the trainer this is NuAT-WA.

    Args:
        eps: radius, in the units of the images; the step is as long.
        norm: "linf" or "l2".
        lam: weight of the nuclear norm at the end of its ramp; larger is more robust and less accurate on clean images.
            Without a ramp (a loop that never sets ``progress``) a large one at a large eps can hold a new net at equal
            logits for all images: at 0.3 on MNIST 1 learns, 2 does not.
        ramp: share of training over which lam rises linearly from 0.
        ramp_by: "step" raises lam at every step, "epoch" once an epoch, as released.
        start_size: size of the Bernoulli start, in the units of eps; None means eps / 2 (4/255 at 8/255, as released);
            more than eps means eps.
        alternate: leave the nuclear norm out of the attack in every other batch, the first of an epoch among them.
        cross_entropy_on: "clean", as released, or "adversarial", as Eq. 2 is printed.
        divisor: what the nuclear norm is divided by; None means the batch's size, the released code has 64. The norm
            grows as the square root of that size, so at twice the batch the same lam weighs 0.7 times as much.
        share_clean: use one clean pass for attack and loss. False makes two, in the released order, so that batch-norm
            statistics move three times a step instead of twice.

    Raises:
        ValueError: eps is missing or none that the norm admits, or a weight is out of its range.
    """

    rescued_by = "NuAT2"

    def __init__(
        self,
        *,
        eps: Eps | None = None,
        norm: Norm = "linf",
        lam: float | int = 4.0,
        ramp: float | int = 0.9,
        ramp_by: Literal["step", "epoch"] = "step",
        start_size: Eps | None = None,
        alternate: bool = True,
        cross_entropy_on: Literal["clean", "adversarial"] = "clean",
        divisor: int | None = None,
        share_clean: bool = True,
    ) -> None:
        super().__init__(eps=eps, norm=norm, start_size=start_size, alternate=alternate, share_clean=share_clean)
        if not (lam >= 0 and ramp >= 0) or (divisor is not None and divisor < 1):
            raise ValueError(f"lam ({lam}) and ramp ({ramp}) must be at least 0, divisor ({divisor}) at least 1")
        self.lam, self.ramp, self.ramp_by, self.divisor = lam, ramp, ramp_by, divisor
        self.cross_entropy_on = cross_entropy_on
        self.reports_clean = cross_entropy_on == "clean"
        self.epochs = 1
        self.progress = 1.0

    def lam_at(self, progress: float) -> float:
        if self.ramp_by == "epoch" and progress < 1:
            progress = math.floor(progress * self.epochs + 1e-9) / self.epochs
        return float(self.lam * (min(1.0, progress / self.ramp) if self.ramp > 0 else 1.0))

    def weight(self, n: int) -> Tensor:
        """What multiplies the nuclear norm of ``n`` images now."""
        return self.lam_now / (self.divisor or n)

    @property
    def graph_key(self) -> Hashable:
        return "the same in every step"

    @property
    def adaptive(self) -> dict[str, Any] | None:
        divided = {} if self.divisor is None else {"divisor": self.divisor}
        return {"defence": "nuclear", "weight": self.lam_at(1.0), **divided}

    def objective(self, clean: Logits) -> Objective:
        return NuclearAscent(clean, self.weight(len(clean)) * self.guides)

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        out_adv = logits(model, crafted.x_adv)
        out: Logits = logits(model, x) if crafted.clean is None else crafted.clean
        judged = out if self.cross_entropy_on == "clean" else out_adv
        cross_entropy, nuclear = self.cross_entropy(judged, y), nuclear_norm(out_adv - out)
        terms = {self.cross_entropy_on: cross_entropy, "nuclear": nuclear / (self.divisor or len(x))}
        loss = cross_entropy + self.weight(len(x)).to(nuclear.dtype) * nuclear
        return Step(loss, judged, {name: term.detach() for name, term in terms.items()})

    def start(self, plan: Plan) -> None:
        self.epochs = plan.epochs
        self.progress = self._progress

    def rescue_settings(self) -> dict[str, Any]:
        """This method's own settings; the collapsed net cannot resist NuAT2's second step in the same way."""
        names = ("lam", "ramp", "ramp_by", "start_size", "cross_entropy_on", "divisor")
        return {name: getattr(self, name) for name in names}

"""The single-step attack."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from toughen.attacks.base import Attack, threat_of
from toughen.attacks.pgd import PGD
from toughen.core.objectives import Objective, cross_entropy
from toughen.core.rng import Noise
from toughen.core.threat import Start
from toughen.core.types import Eps, Images, Labels, Logits, Mode, Norm, Real


@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """One step along the gradient's sign (Goodfellow et al., arXiv:1412.6572), or its direction for L2.

    Attributes:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        step_size: length of the step, in the units of eps; None means eps.
        objective: what is maximised.
        start: "none" for the image itself, or a random start as in PGD.
        start_size: how far a random start goes, in the units of eps; None means eps.
        mode: "eval" attacks the model in evaluation mode, "train" with each part in its own mode.
    """

    eps: Eps | None = None
    norm: Norm = "linf"
    step_size: Real | None = None
    objective: Objective = cross_entropy
    start: Start = "none"
    start_size: Eps | None = None
    mode: Mode = "eval"

    def __post_init__(self) -> None:
        self._pgd()

    def _pgd(self) -> PGD:
        threat = threat_of(self)
        return PGD(
            eps=threat.eps,
            norm=threat.norm,
            steps=1,
            step_size=threat.eps if self.step_size is None else self.step_size,
            objective=self.objective,
            start=self.start,
            start_size=self.start_size,
            mode=self.mode,
        )

    def __call__(self, model: nn.Module, x: Images, target: Labels | Logits, noise: Noise | None = None) -> Images:
        return self._pgd()(model, x, target, noise)

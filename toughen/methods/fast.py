"""Single-step adversarial training: FGSM-AT, R-FGSM-AT and FBF."""

from __future__ import annotations

from torch import nn

from toughen.attacks.base import threat_of
from toughen.attacks.fgsm import FGSM
from toughen.methods.base import Method, adversarial_cross_entropy, noise_of
from toughen.types import Batch, Crafted, Eps, Images, Labels, Mode, Norm, Real, Step


class FGSMAT(Method):
    """Training on FGSM images alone (PAP, Eq. 2); prone to catastrophic overfitting.

    Passes: 5, an attack of one step (2) and the weights' gradient (3).

    Args:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        mode: the model's mode while attacking, "eval" or "train".
    """

    def __init__(self, *, eps: Eps | None = None, norm: Norm = "linf", mode: Mode = "eval") -> None:
        super().__init__()
        self.eps, self.norm = eps, norm
        self.attack = FGSM(eps=threat_of(self).eps, norm=norm, mode=mode)

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        return Crafted(x_adv=self.attack(model, x, y, noise_of(batch)))

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        return adversarial_cross_entropy(model, y, crafted)


class RFGSMAT(Method):
    """FGSM-AT whose step starts at a random corner of a smaller box (Tramer et al., arXiv:1705.07204; R-MGM, Eq. 2-3).

    Passes: 5.

    Args:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        start_size: how far the random start goes, in the units of eps; the step covers the rest. None means eps / 2.
        mode: the model's mode while attacking, "eval" or "train".
    """

    def __init__(
        self, *, eps: Eps | None = None, norm: Norm = "linf", start_size: Eps | None = None, mode: Mode = "eval"
    ) -> None:
        super().__init__()
        self.eps, self.norm = eps, norm
        radius = threat_of(self).eps
        start_size = radius / 2 if start_size is None else start_size
        if not 0 <= start_size <= radius:
            raise ValueError(f"start_size {start_size} must lie between 0 and eps {eps}")
        step_size = radius - start_size
        self.attack = FGSM(eps=eps, norm=norm, step_size=step_size, start="bernoulli", start_size=start_size, mode=mode)

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        return Crafted(x_adv=self.attack(model, x, y, noise_of(batch)))

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        return adversarial_cross_entropy(model, y, crafted)


class FBF(Method):
    """Fast is better than free: a uniform start and one step longer than eps (Wong et al., arXiv:2001.03994).

    Passes: 5.

    Args:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        step_size: length of the step, in the units of eps; None means 1.25 eps (10/255 at 8/255, as released).
        mode: the model's mode while attacking, "eval" or "train" (as released).
    """

    def __init__(
        self, *, eps: Eps | None = None, norm: Norm = "linf", step_size: Real | None = None, mode: Mode = "train"
    ) -> None:
        super().__init__()
        self.eps, self.norm = eps, norm
        step_size = 1.25 * threat_of(self).eps if step_size is None else step_size
        self.attack = FGSM(eps=eps, norm=norm, step_size=step_size, start="uniform", mode=mode)

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        return Crafted(x_adv=self.attack(model, x, y, noise_of(batch)))

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        return adversarial_cross_entropy(model, y, crafted)

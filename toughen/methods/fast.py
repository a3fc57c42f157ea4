"""Single-step adversarial training: FGSM-AT, R-FGSM-AT and FBF."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from toughen.attacks.base import threat_of
from toughen.attacks.fgsm import FGSM
from toughen.core.gradients import logits
from toughen.core.types import Batch, Crafted, Eps, Images, Labels, Mode, Norm, Real, Step
from toughen.methods.base import Method, noise_of


class FGSMAT(Method):
    """Training on FGSM images (PAP, Eq. 6), with or without clean ones; prone to catastrophic overfitting.

    Passes: 5, an attack of one step (2 for each image that is attacked) and the weights' gradient (3); clean_weight
    adds 3.

    Args:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        step_size: length of the step, in the units of eps; None means eps.
        start: where the step starts, "none" for the image itself or "uniform" in the ball.
        share: part of the batch that is attacked, its first images; the rest stays clean. The cross-entropy is the
            batch's mean. Both parts hold at least one image.
        clean_weight: weight of a further cross-entropy on all images as they are, computed in a separate pass.
        mode: the model's mode while attacking, "eval" or "train".

    Raises:
        ValueError: eps is missing or none that the norm admits, share is not in 0..1, or clean_weight is below 0.
    """

    graph_key = "the same in every step"

    def __init__(
        self,
        *,
        eps: Eps | None = None,
        norm: Norm = "linf",
        step_size: Real | None = None,
        start: Literal["none", "uniform"] = "none",
        share: float | int = 1.0,
        clean_weight: float | int = 0.0,
        mode: Mode = "eval",
    ) -> None:
        super().__init__()
        if not 0 < share <= 1:
            raise ValueError(f"share {share} must be in 0..1, above 0; for clean images alone use Standard")
        if not clean_weight >= 0:
            raise ValueError(f"clean_weight {clean_weight} must be at least 0")
        self.eps, self.norm, self.share, self.clean_weight = eps, norm, share, clean_weight
        self.attack = FGSM(eps=threat_of(self).eps, norm=norm, step_size=step_size, start=start, mode=mode)
        self.reports_clean = share < 1 or clean_weight > 0

    def attacked(self, n: int) -> int:
        """How many images of a batch of ``n`` are attacked.

        Raises:
            ValueError: the batch cannot be parted.
        """
        if self.share == 1:
            return n
        if n < 2:
            raise ValueError(f"share {self.share} splits a batch, but this one has {n} image: use larger batches")
        return min(max(round(self.share * n), 1), n - 1)

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        n = self.attacked(len(x))
        x_adv = self.attack(model, x[:n], y[:n], noise_of(batch))
        return Crafted(x_adv=x_adv if n == len(x) else torch.cat([x_adv, x[n:]]))

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        step, n = self.adversarial_cross_entropy(model, y, crafted), self.attacked(len(x))
        loss, terms = step.loss, step.terms
        if n < len(x):
            out = step.logits.detach()
            terms = {"robust": self.cross_entropy(out[:n], y[:n]), "clean": self.cross_entropy(out[n:], y[n:])}
        if self.clean_weight > 0:
            clean = self.cross_entropy(logits(model, x), y)
            loss, terms = loss + self.clean_weight * clean, {**terms, "clean": clean.detach()}
        return Step(loss, step.logits, terms)


class RFGSMAT(Method):
    """FGSM-AT whose step starts at a random corner of a smaller box (Tramer et al., arXiv:1705.07204; R-MGM, Eq. 2-3).

    Passes: 5.

    As in the released code the images are clipped to [0, 1] twice, after the random start and after the step.

    Args:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        start_size: how far the random start goes, in the units of eps; the step covers the rest. None means eps / 2, as
            in the paper; the released code has 0.05 at 0.3.
        mode: the model's mode while attacking, "eval" or "train".
    """

    graph_key = "the same in every step"

    def __init__(
        self, *, eps: Eps | None = None, norm: Norm = "linf", start_size: Eps | None = None, mode: Mode = "eval"
    ) -> None:
        super().__init__()
        self.eps, self.norm = eps, norm
        radius = threat_of(self).eps
        start_size = radius / 2 if start_size is None else start_size
        if not 0 <= start_size <= radius:
            raise ValueError(f"start_size {start_size} must be between 0 and eps {eps}")
        step_size = radius - start_size
        self.attack = FGSM(eps=eps, norm=norm, step_size=step_size, start="bernoulli", start_size=start_size, mode=mode)

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        return Crafted(x_adv=self.attack(model, x, y, noise_of(batch)))

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        return self.adversarial_cross_entropy(model, y, crafted)


class FBF(Method):
    """Fast is better than free: a uniform start and one step longer than eps (FGSM-RS; Wong et al., arXiv:2001.03994).

    Passes: 5.

    Args:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        step_size: length of the step, in the units of eps; None means 1.25 eps (10/255 at 8/255, as released).
        start: where the step starts: "uniform" in the ball; "none" for the image itself; "previous" for the image with
            what the last batch's image in the same place was perturbed by.
        clip_start: clip a uniform start to [0, 1] before its gradient is computed, as released for CIFAR-10; the code
            for MNIST does not, where clipping comes close to a collapse. A previous perturbation is never clipped.
        mode: the model's mode while attacking, "eval" or "train" (as released).
    """

    per_process_buffers = ("delta",)
    delta: Tensor

    def __init__(
        self,
        *,
        eps: Eps | None = None,
        norm: Norm = "linf",
        step_size: Real | None = None,
        start: Literal["uniform", "none", "previous"] = "uniform",
        clip_start: bool = True,
        mode: Mode = "train",
    ) -> None:
        super().__init__()
        self.eps, self.norm, self.start_at, self.clip_start = eps, norm, start, clip_start
        step_size = 1.25 * threat_of(self).eps if step_size is None else step_size
        known = "none" if start == "previous" else start
        self.attack = FGSM(eps=eps, norm=norm, step_size=step_size, start=known, mode=mode)

    @property
    def graph_key(self) -> Hashable:
        return None if self.start_at == "previous" else self.start_at  # kept perturbations may grow

    def prepare(self, model: nn.Module, shape: tuple[int, int, int], classes: int, images: int | None = None) -> None:
        super().prepare(model, shape, classes, images)
        if self.start_at == "previous":
            like = next(model.parameters(), torch.zeros(()))
            self.register_buffer("delta", like.new_zeros(0, *shape))

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        noise, attack = noise_of(batch), self.attack
        if self.start_at == "previous":
            attack = replace(attack, start=x + self._previous(x))
        elif self.start_at == "uniform" and not self.clip_start:
            attack = replace(attack, start=threat_of(self).start(x, "uniform", noise, clip=False))
        x_adv = attack(model, x, y, noise)
        if self.start_at == "previous":
            self.delta[: len(x)] = x_adv - x
        return Crafted(x_adv=x_adv)

    def _previous(self, x: Images) -> Images:
        """The last perturbation in each place of the batch; zero in places that no batch has reached yet."""
        missing = len(x) - len(self.delta)
        if missing > 0:
            self.delta = torch.cat([self.delta.to(x), x.new_zeros(missing, *x.shape[1:])])
        return self.delta[: len(x)]

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        return self.adversarial_cross_entropy(model, y, crafted)

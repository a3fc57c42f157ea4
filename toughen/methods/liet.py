"""Label information elimination training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from toughen.attacks.base import threat_of
from toughen.core.distances import jensen_shannon
from toughen.core.gradients import input_gradient, logits, mode
from toughen.core.objectives import SmoothedCrossEntropy
from toughen.core.rng import Noise
from toughen.core.types import Batch, Crafted, Eps, Images, Labels, Logits, Norm, Real, Step
from toughen.methods.base import Method, noise_of


class LIET(Method):
    """A start that hides the label, one step, and equal outputs at both ends of it (LIET; Pan et al., ICCV 2025).

    Passes: 7, a pass at the start (3) that attack and loss share, the attack's step (1) and an adversarial pass (3); a
    few more for the perturbations of the classes.

    Mitigating Catastrophic Overfitting in Fast Adversarial Training via Label Information Elimination, as released. A
    net that overfits to one step writes the label into the step: its gradient on an empty image already shows the
    class. So the start is the class's own perturbation, eps along the gradient's sign on a grey image with that label,
    added or taken away, of which random noise replaces a random share of the values. The loss is the cross-entropy
    after the step plus lam x the Jensen-Shannon divergence between the outputs at the start and after the step.

    The released settings have averaged weights (0.9995) and labels of which 0.6 is spread over the other classes, at
    random; here ``label_smoothing`` spreads it evenly. As released the attack raises the smoothed cross-entropy, too.

    Args:
        eps: radius, in the units of the images; the step is as long.
        norm: "linf" or "l2".
        lam: weight of the divergence at the end of training, towards which it rises from 0; 100 for CIFAR-10 at 8/255,
            200 for CIFAR-100, 20 at 16/255 (as released). Small nets and sets learn little with so much: 30 did best on
            3,600 digits at 0.3 (docs/results/methods.md).
        min_share: least share of values that noise replaces, drawn for each batch; 0 at 16/255 (as released).
        max_share: the largest; 1 at 16/255 (as released).
        start_size: how far the noise goes, in the units of eps; None means eps, at 16/255 2 eps (as released).
        project: project the training images onto the ball; False at 16/255 (as released).
        refresh: steps after which the classes' perturbations are computed again, 20 as released.

    Raises:
        ValueError: eps is missing or none that the norm admits, or a setting is out of its range.
    """

    perturbations: Tensor

    def __init__(
        self,
        *,
        eps: Eps | None = None,
        norm: Norm = "linf",
        lam: float | int = 100.0,
        min_share: Real = 0.1,
        max_share: Real = 0.5,
        start_size: Eps | None = None,
        project: bool = True,
        refresh: int = 20,
    ) -> None:
        super().__init__()
        self.eps, self.norm, self.lam = eps, norm, lam
        self.start_size = threat_of(self).eps if start_size is None else start_size
        if not (lam >= 0 and self.start_size >= 0 and refresh >= 1):
            raise ValueError(
                f"lam ({lam}) and start_size ({self.start_size}) must be at least 0, refresh ({refresh}) at least 1"
            )
        if not 0 <= min_share <= max_share <= 1:
            raise ValueError(f"min_share ({min_share}) and max_share ({max_share}) must be in 0..1, in this order")
        self.min_share, self.max_share, self.project, self.refresh = min_share, max_share, project, refresh
        self.leaves_ball = not project  # what it trains on may then lie outside of the threat that it trains for
        self.iteration = 0  # steps of its own since the epoch began
        self.crafted = False

    def prepare(self, model: nn.Module, shape: tuple[int, int, int], classes: int, images: int | None = None) -> None:
        super().prepare(model, shape, classes, images)
        like = next(model.parameters(), torch.zeros(()))
        self.register_buffer("perturbations", like.new_zeros(classes, *shape))

    def forget(self) -> None:
        super().forget()
        self.iteration, self.crafted = 0, False

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        threat = threat_of(self)
        threat.check(x)
        if self.iteration % self.refresh == 0:
            self.perturbations.copy_(self.of_classes(model))
        self.crafted = True
        start = self.start_of(x, y, noise_of(batch))
        at_start = input_gradient(model, start, y, SmoothedCrossEntropy(self.label_smoothing), keep_graph=True)
        x_adv = start + threat.eps * threat.steepest(at_start.gradient)
        x_adv = threat.project(x_adv, x) if self.project else x_adv.clamp(0, 1)
        return Crafted(x_adv=x_adv, clean=at_start.logits, extra={"start": start}, bases={"start": x})

    def of_classes(self, model: nn.Module) -> Images:
        """Each class's own perturbation, [classes, c, h, w]: eps along the ascent on a grey image with that label."""
        threat, grey = threat_of(self), torch.full_like(self.perturbations, 0.5)
        classes, objective = torch.arange(len(grey), device=grey.device), SmoothedCrossEntropy(self.label_smoothing)
        with mode(model, "eval"):
            gradient = input_gradient(model, grey, classes, objective).gradient
        return threat.eps * threat.steepest(gradient)

    def start_of(self, x: Images, y: Labels, noise: Noise) -> Images:
        """Images moved by their class's perturbation, or by its opposite, with random values in a random share of it.

        The share and the sign are the whole batch's.
        """
        threat, drawn = threat_of(self), torch.rand(2, generator=noise.shared())
        share = self.min_share + (self.max_share - self.min_share) * drawn[0]
        replaced = noise.random(x, "rand") < share
        random = self.start_size * threat.uniform(x, noise)
        delta = torch.where(replaced, random, self.perturbations[y].to(x.dtype))
        sign = 1 - 2 * (drawn[1] < 0.5).to(x.dtype)
        start = x + sign * delta
        return threat.project(start, x) if self.project else start.clamp(0, 1)

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        out_start: Logits = logits(model, crafted.extra["start"]) if crafted.clean is None else crafted.clean
        out = logits(model, crafted.x_adv)
        robust, divergence = self.cross_entropy(out, y), jensen_shannon(out, out_start).mean()
        loss = robust + self.lam * self.progress * divergence
        return Step(loss, out, {"robust": robust.detach(), "divergence": divergence.detach()})

    def after_step(self, model: nn.Module) -> None:
        self.iteration += self.crafted  # a wrapper may have trained another method
        self.crafted = False

    def after_epoch(self, metrics: dict[str, Any]) -> None:
        self.iteration = 0

    def get_extra_state(self) -> dict[str, int]:
        return {"iteration": self.iteration}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.iteration = state["iteration"]

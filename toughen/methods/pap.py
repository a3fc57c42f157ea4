"""Plug-And-Pipeline: single-step adversarial training beside an iterated attack that advances one step a batch."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from toughen.attacks.base import threat_of
from toughen.attacks.fgsm import FGSM
from toughen.attacks.pgd import IFGSM
from toughen.core.distances import kl_divergence, squared_logit_distance
from toughen.core.dropout import SharedDropout
from toughen.core.gradients import input_gradient, logits, mode
from toughen.core.objectives import cross_entropy, kl
from toughen.core.rng import Noise
from toughen.core.types import Batch, Crafted, Eps, Images, Labels, Norm, Step
from toughen.methods.base import Method, noise_of


class PAP(Method):
    """Single-step training whose logits must agree with those of I-FGSM, pipelined (Vivek et al., CVPR Workshops 2020).

    Passes: 6, an attack of one step (2), the same for the regulariser's two sets of a tenth each (0.4), all three
    forward and backward at once (3.6). Over TRADES 10: one more for the target and 3 for the clean images.

    Every ``steps`` batches a share of the batch is set aside, as augmented. In the i-th of these batches its FGSM
    images of strength i/N eps (N = steps) are compared with the i-th I-FGSM iterate, which takes one step of eps/N a
    batch, with the weights of that batch; in the first both are the same. gamma, the input gradients spent on crafting
    for each clean image, is 1 + 2 share = 1.2.

    Neither N in training nor eta is published, nor batch norm's mode while attacking (ours: evaluation), the clipping
    to [0, 1] (ours: at every step), whether the three sets share a forward pass (ours: they do) and whether both logits
    get a gradient (ours: they do). Over TRADES the divergence's slope is taken at x + 0.001 N(0, 1), as in TRADES, and
    the step starts at x, as in Eq. 10.

    Eq. 7 compares one net's logits of two images. Where the net has dropout (SmallCNN, the paper's for MNIST), both go
    through it with one mask, so that equal images have equal logits and dropout adds no noise to the regulariser. The
    paper does not mention this, and no code is released; attacks are made without dropout.

    A batch whose share is less than one image is refused, unless earlier ones were larger: then it is an epoch's last.
    If a cycle begins in it, the images set aside last go through one more; the naive schedule leaves it unregularised.

    Args:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        over: what is regularised: "fgsm" trains on FGSM images (Eq. 8), "trades" is single-step TRADES (Eq. 9).
        lam: weight of the regulariser, the squared L2 distance of logits; the paper has 0.5 on MNIST, on CIFAR-10 0.1
            over FGSM and 1 over TRADES. 0 leaves it out: plain FGSM-AT, or single-step TRADES.
        eta: weight of the divergence over TRADES; ours is the best of 1, 3 and 6 on mnist-5k at eps 0.3, under PGD.
        steps: I-FGSM steps, so many batches to a cycle in the pipeline; 2 at least. Of 5 to 40 none was clearly better.
        share: part of the batch that is regularised.
        schedule: "pipeline"; "naive", a fresh I-FGSM of all steps in every batch (gamma 1 + share N); or "replay", each
            batch trained on N times (gamma N (1 + share)). The last two are what the pipeline is measured against: they
            take the FGSM images from the gradient that the batch needs anyway. Over TRADES it is another gradient, and
            gamma is larger by the share at each step.
        ablation: the paper's: no regulariser, but cross-entropy on all three sets, each image counting alike.

    Raises:
        ValueError: eps is missing or none that the norm admits; a setting is out of its range; an ablation over TRADES.
    """

    per_process_buffers = ("stage", "x_reg", "y_reg", "iterate", "rows")
    stage: Tensor  # steps that the running cycle has taken
    x_reg: Tensor
    y_reg: Tensor
    iterate: Tensor
    rows: Tensor  # where in its batch x_reg was

    def __init__(
        self,
        *,
        eps: Eps | None = None,
        norm: Norm = "linf",
        over: Literal["fgsm", "trades"] = "fgsm",
        lam: float | int = 0.5,
        eta: float | int = 1.0,
        steps: int = 10,
        share: float | int = 0.1,
        schedule: Literal["pipeline", "naive", "replay"] = "pipeline",
        ablation: bool = False,
    ) -> None:
        super().__init__()
        if not (0 <= lam < math.inf and 0 <= eta < math.inf):
            raise ValueError(f"lam ({lam}) and eta ({eta}) must be finite and at least 0")
        if not 0 < share <= 1:
            raise ValueError(f"share {share} must be above 0 and at most 1")
        if steps < 2:
            raise ValueError(f"steps ({steps}) must be at least 2: one step of I-FGSM is FGSM, with nothing to compare")
        if ablation and over == "trades":
            raise ValueError('the ablation is cross-entropy on adversarial images alone: use over="fgsm"')
        self.eps, self.norm, self.over, self.lam, self.eta = eps, norm, over, lam, eta
        self.steps, self.share, self.schedule, self.ablation = steps, share, schedule, ablation
        self.single = FGSM(eps=threat_of(self).eps, norm=norm)
        self.iterated = IFGSM(eps=eps, norm=norm, steps=steps)
        self.replays = steps if schedule == "replay" else 1
        self.reports_clean = over == "trades"
        self._taken: int | None = None  # what stage holds, None where only the buffer knows: to read it is to wait

    def prepare(self, model: nn.Module, shape: tuple[int, int, int], classes: int, images: int | None = None) -> None:
        super().prepare(model, shape, classes, images)
        like = next(model.parameters(), torch.empty(0))
        none, no_labels = like.new_empty(0, *shape), like.new_empty(0, dtype=torch.int64)
        self.register_buffer("stage", like.new_zeros((), dtype=torch.int64))
        for name in ("x_reg", "iterate"):
            self.register_buffer(name, none.clone().detach())
        for name in ("y_reg", "rows"):
            self.register_buffer(name, no_labels.clone())
        self._taken = 0

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._taken = None

    @property
    def adaptive(self) -> dict[str, Any] | None:
        return {"defence": "kl"} if self.over == "trades" else None

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        noise, threat = noise_of(batch), threat_of(self)
        threat.check(x)
        with mode(model, "eval"):
            if self.schedule == "naive" and self._regularised:
                return self._naive(model, x, y, noise)
            if self._regularised:
                return self._pipelined(model, x, y, noise)
            slope, _ = self._slopes(model, x, y, noise, x[:0], y[:0])
            return Crafted(x_adv=threat.project(x + threat.eps * threat.steepest(slope), x))

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        terms: dict[str, Tensor] = {}
        clean = logits(model, x) if self.over == "trades" else None
        sets, y_reg = crafted.extra.get("sets", x[:0]), crafted.extra.get("y_reg", y[:0])
        together = torch.cat([crafted.x_adv, sets])
        with SharedDropout(len(together), len(sets) // 2):
            out = logits(model, together)
        out_adv, out_reg = out[: len(x)], out[len(x) :]
        if clean is None:
            loss = terms["robust"] = self.cross_entropy(out_adv, y)
        else:
            terms["clean"], terms["robust"] = self.cross_entropy(clean, y), kl_divergence(out_adv, clean).mean()
            loss = terms["clean"] + self.eta * terms["robust"]
        if len(sets):
            single, iterated = out_reg.chunk(2)
            terms["squared_distance"] = squared_logit_distance(single, iterated).mean()
            loss = loss + self.lam * terms["squared_distance"]
        if self.ablation:
            loss = self.cross_entropy(out, torch.cat([y, y_reg, y_reg]))
        return Step(loss, out_adv if clean is None else clean, {name: term.detach() for name, term in terms.items()})

    @property
    def _regularised(self) -> bool:
        return self.lam > 0 or self.ablation

    def _slopes(
        self, model: nn.Module, x: Images, y: Labels, noise: Noise, others: Tensor, y_others: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The gradient that the batch climbs, and the cross-entropy's at other images; one pass where both are that."""
        if self.over == "fgsm":
            gradients = input_gradient(model, torch.cat([x, others]), torch.cat([y, y_others]), cross_entropy).gradient
            return gradients[: len(x)], gradients[len(x) :]
        with torch.no_grad():
            target = logits(model, x)
        slope = input_gradient(model, threat_of(self).start(x, "gaussian", noise), target, kl).gradient
        return slope, input_gradient(model, others, y_others, cross_entropy).gradient if len(others) else others

    def _naive(self, model: nn.Module, x: Images, y: Labels, noise: Noise) -> Crafted:
        """Both attacks in full on a share of this batch."""
        threat, rows = threat_of(self), self._choose(x, noise)
        self.rows = rows if len(rows) else self.rows
        slope, _ = self._slopes(model, x, y, noise, x[:0], y[:0])
        x_adv = threat.project(x + threat.eps * threat.steepest(slope), x)
        x_reg, y_reg = x[rows], y[rows]
        single = x_adv[rows] if self.over == "fgsm" else self.single(model, x_reg, y_reg, noise)
        return Crafted(
            x_adv=x_adv,
            extra={"sets": torch.cat([single, self.iterated(model, x_reg, y_reg, noise)]), "y_reg": y_reg},
            bases={"sets": torch.cat([x_reg, x_reg])},
        )

    def _pipelined(self, model: nn.Module, x: Images, y: Labels, noise: Noise) -> Crafted:
        """The batch's attack, and one step of the cycle's."""
        taken = int(self.stage) if self._taken is None else self._taken
        self._set_aside(x, y, noise, first=taken == 0)
        threat, x_reg, y_reg = threat_of(self), self.x_reg, self.y_reg
        if self._replayed(x):
            slope, of_iterate = self._slopes(model, x, y, noise, self.iterate, y_reg)
            of_images = slope[self.rows]
        else:
            others, labels = torch.cat([x_reg, self.iterate]), torch.cat([y_reg, y_reg])
            slope, of_both = self._slopes(model, x, y, noise, others, labels)
            of_images, of_iterate = of_both.chunk(2)
        step_size = threat.eps / self.steps
        single = threat.project(x_reg + step_size * ((taken + 1) * threat.steepest(of_images)), x_reg)
        self.iterate.copy_(threat.project(self.iterate + step_size * threat.steepest(of_iterate), x_reg))
        self._taken = (taken + 1) % self.steps
        self.stage.fill_(self._taken)
        return Crafted(
            x_adv=threat.project(x + threat.eps * threat.steepest(slope), x),
            extra={"sets": torch.cat([single, self.iterate]), "y_reg": y_reg.clone()},
            bases={"sets": torch.cat([x_reg, x_reg])},
        )

    def _set_aside(self, x: Images, y: Labels, noise: Noise, *, first: bool) -> None:
        """At the start of a cycle: the images to regularise on, where the iterate starts."""
        rows = self._choose(x, noise)
        if first and len(rows):
            self.rows, self.x_reg, self.y_reg = rows, x[rows], y[rows]
        if first:
            self.iterate = self.x_reg.clone()

    def _choose(self, x: Images, noise: Noise) -> Tensor:
        """Random places of the batch's share; none where that is less than one image.

        Raises:
            ValueError: it has never been one.
        """
        number = self.share * len(x)
        if number < 1 - 1e-9 and not len(self.rows):
            raise ValueError(
                f"PAP regularises share {self.share:g} of a batch, less than one image of {len(x)}: "
                f"use batches of {math.ceil(1 / self.share)} or more, or a larger share"
            )
        return noise.uniform(x[:, 0, 0, 0]).argsort()[: round(number) if number > 1 - 1e-9 else 0]

    def _replayed(self, x: Images) -> bool:
        """Whether this is the batch that the cycle began with, so that its gradient holds that of ``x_reg``.

        Looked at, not assumed: a loop may know nothing of replays, and then this is the pipeline.
        """
        if self.schedule != "replay" or self.over != "fgsm" or int(self.rows.max()) >= len(x):
            return False
        return torch.equal(x[self.rows], self.x_reg)

"""Black-box attacks by transfer: images made on one model, shown to another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from toughen.attacks.base import Attack, start_call, threat_of
from toughen.attacks.pgd import MIFGSM
from toughen.core.classifier import Classifier
from toughen.core.gradients import logits, mode
from toughen.core.rng import Noise
from toughen.core.types import Eps, Images, Labels, Logits, Norm


@dataclass(frozen=True, kw_only=True)
class Transfer(Attack):
    """Makes images on a source model that the attacked model does not share (Papernot et al., arXiv:1605.07277).

    The attacked model is not used. Every image gets the attack's full strength, whether or not the source is fooled.

    Passes: none of the attacked model; of the source what ``attack`` costs, and one forward for its own labels.

    Attributes:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        source: the model that the images are made on; on the attacked model's device.
        attack: what makes them, at the same threat; None means MI-FGSM of 10 steps.
        labels: what the attack moves away from, the "true" labels or the source's own first prediction, "source".
    """

    eps: Eps | None = None
    norm: Norm = "linf"
    source: nn.Module | None = None
    attack: Attack | None = None
    labels: Literal["true", "source"] = "true"

    def __post_init__(self) -> None:
        threat = threat_of(self)
        if self.source is None:
            raise ValueError("Transfer needs source, the model to make images on: for example toughen.load(RUN)")
        if self.labels not in ("true", "source"):
            raise ValueError(f'labels {self.labels!r} is unknown: use "true" or "source"')
        if self.attack is None:
            return
        if threat_of(self.attack) != threat:
            raise ValueError(
                f"Transfer is within {threat}, its attack within {threat_of(self.attack)}: give both the same eps and "
                "norm"
            )
        if getattr(self.attack, "stop_early", False):
            raise ValueError("images to transfer need the attack's full strength: give it stop_early=False")

    def __call__(self, model: nn.Module, x: Images, target: Labels | Logits, noise: Noise | None = None) -> Images:
        assert self.source is not None  # __post_init__ saw to it
        threat, noise = start_call(self, x, noise, target)
        source = self.source
        x = x.detach()
        if isinstance(model, Classifier):
            source = model.wrap(source)
        with mode(source, "eval"):
            if self.labels == "source":
                with torch.no_grad():
                    target = logits(source, x).argmax(1)
            attack = self.attack or MIFGSM(eps=threat.eps, norm=threat.norm)
            return attack(source, x, target, noise)

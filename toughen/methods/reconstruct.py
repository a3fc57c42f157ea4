"""Training a classifier together with a net that rebuilds the clean image from its output."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from toughen.core.gradients import logits
from toughen.core.types import Batch, Crafted, Images, Labels, Step
from toughen.methods.base import Method
from toughen.methods.craft_only import require_craft_only
from toughen.methods.delayed import Delayed
from toughen.models.reconstructor import create_reconstructor


class Reconstruct(Method):
    """A re-constructor must rebuild the clean image from the classifier's probabilities (Chen & Lee, ACCV 2020).

    Passes: +3, the re-constructor's where it costs what the model does (the count has its real cost), around a method
    whose loss runs the model once.

    Lowers L_R(R(softmax f(x')), x) + lam x cross-entropy of f(x') (Eq. 16), where x' are any method's images: EFGSM's
    give the paper's combined training, Standard's its REC row. The re-constructor R trains along with the classifier
    and is not needed afterwards. Its loss L_R, here the mean squared error of a pixel, and the amount of smoothing are
    not in the paper and ours.

    Args:
        inner: the method whose images are trained on; its loss is not used.
        reconstructor: "dense", "wrn-22-3", "wrn-10-1", a small one, or "auto": dense for grey images, wrn-22-3 for
            colour.
        lam: weight of the cross-entropy (the paper's best: 0.1 on MNIST, 0.05 on CIFAR-10).
        smoothing: share of a label that is spread over all classes.

    Raises:
        ValueError: lam is negative, smoothing is outside 0..1, the inner method works or switches by its own loss, or
            no re-constructor makes such images.
    """

    def __init__(
        self,
        *,
        inner: Method,
        reconstructor: Literal["auto", "dense", "wrn-22-3", "wrn-10-1"] = "auto",
        lam: float | int = 0.1,
        smoothing: float | int = 0.1,
    ) -> None:
        super().__init__()
        if not lam >= 0 or not 0 <= smoothing < 1:
            raise ValueError(f"lam ({lam}) must be at least 0, smoothing ({smoothing}) within 0..1 and below 1")
        for each in inner.modules():
            if isinstance(each, Delayed) and each.switch_epoch == "auto" and each.before.threat is not None:
                name = type(each.before).__name__
                raise ValueError(
                    f"Reconstruct has no clean loss while {name} trains, which auto needs: give switch_epoch a number"
                )
        self.method, self.kind, self.lam, self.smoothing = (
            require_craft_only("Reconstruct", inner),
            reconstructor,
            lam,
            smoothing,
        )
        self.replays, self.reports_clean = inner.replays, inner.threat is None
        self.reconstructor: nn.Module | None = None

    @property
    def is_adversarial(self) -> bool:
        return self.method.is_adversarial

    def prepare(self, model: nn.Module, shape: tuple[int, int, int], classes: int, images: int | None = None) -> None:
        super().prepare(model, shape, classes, images)
        self.reconstructor = create_reconstructor(self.kind, classes, shape).to(next(model.parameters()))

    def companions(self) -> list[nn.Module]:
        own = [] if self.reconstructor is None else [self.reconstructor]
        return [*super().companions(), *own]

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        crafted = self.method.craft(model, x, y, batch)
        return Crafted(x_adv=crafted.x_adv, terms=crafted.terms)

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        assert self.reconstructor is not None  # made by prepare
        out = logits(model, crafted.x_adv)
        rebuilt = self.reconstructor(out.softmax(1))
        with torch.autocast(x.device.type, enabled=False):
            reconstruction = F.mse_loss(rebuilt.to(x.dtype), x)
        cross_entropy = F.cross_entropy(out, y, label_smoothing=self.smoothing)
        name = "robust" if self.is_adversarial else "clean"
        terms = {name: cross_entropy.detach(), "reconstruction": reconstruction.detach()}
        return Step(reconstruction + self.lam * cross_entropy, out, terms | crafted.terms)

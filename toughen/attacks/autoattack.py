"""AutoAttack: a fixed ensemble, so that robust accuracies of different models can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import nn

from toughen.attacks.apgd import APGD, APGDT
from toughen.attacks.base import Attack, check_classes, check_counts, start_call, threat_of
from toughen.attacks.fab import FAB
from toughen.attacks.square import Square
from toughen.core.gradients import mode
from toughen.core.objectives import dlr, misclassified
from toughen.core.rng import Noise
from toughen.core.types import Eps, Images, Labels, Logits, Norm
from toughen.engine.fixed_batch import as_classifier

Version: TypeAlias = Literal["standard", "plus", "rand", "v1"]


@dataclass(frozen=True, kw_only=True)
class AutoAttack(Attack):
    """Several attacks one after the other, each on the images not broken yet (Croce & Hein, arXiv:2003.01690).

    Attributes:
        eps: radius, in the units of the images.
        norm: "linf" or "l2".
        version: "standard" (since August 2020: APGD-CE, APGD-T, FAB-T, Square); "v1" (until then, as papers of the
            time report it: APGD-CE, APGD-DLR, untargeted FAB, each from 5 starts, and Square); "plus" (both); "rand"
            (for models with random outputs: APGD-CE and APGD-DLR on gradients averaged over 20 passes).
        precision: what the search computes in; "auto" means bf16 where the processor supports it and it saves time. The
            unchanged model confirms each broken image.
        batch_size: images per forward pass; None means what suits the device.
    """

    eps: Eps | None = None
    norm: Norm = "linf"
    version: Version = "standard"
    precision: Literal["auto", "bf16", "fp32", "fp64"] = "auto"
    batch_size: int | None = None

    def __post_init__(self) -> None:
        threat_of(self)
        check_counts(batch_size=self.batch_size)
        self.parts()

    def parts(self) -> dict[str, Attack]:
        """The attacks by name, in their order.

        Raises:
            ValueError: the version is unknown.
        """
        eps, norm = self.eps, self.norm
        five: dict[str, Attack] = {
            "apgd-ce": APGD(eps=eps, norm=norm, restarts=5),
            "apgd-dlr": APGD(eps=eps, norm=norm, restarts=5, objective=dlr),
            "fab": FAB(eps=eps, norm=norm, restarts=5, targets=None),
            "square": Square(eps=eps, norm=norm),
        }
        targeted: dict[str, Attack] = {"apgd-t": APGDT(eps=eps, norm=norm), "fab-t": FAB(eps=eps, norm=norm)}
        if self.version == "standard":
            return {"apgd-ce": APGD(eps=eps, norm=norm), **targeted, "square": five["square"]}
        if self.version == "v1":
            return five
        if self.version == "plus":
            return five | targeted
        if self.version == "rand":
            return {
                "apgd-ce": APGD(eps=eps, norm=norm, eot=20),
                "apgd-dlr": APGD(eps=eps, norm=norm, eot=20, objective=dlr),
            }
        raise ValueError(f"AutoAttack has no version {self.version!r}: use standard, plus, rand or v1")

    def __call__(self, model: nn.Module, x: Images, target: Labels | Logits, noise: Noise | None = None) -> Images:
        """The images that break the model, and ``x`` itself where none was found."""
        _, noise = start_call(self, x, noise, target)
        if not len(x):
            return x.detach().clone()
        model = as_classifier(model, x, precision=self.precision, batch_size=self.batch_size)
        x_adv = x.detach().clone()
        with mode(model, "eval"):
            out = model.exact(x)
            check_classes(target, out.shape[1])
            robust = ~misclassified(out, target)
            for attack in self.parts().values():
                rows = robust.nonzero()[:, 0]
                if len(rows):
                    attacked = attack(model, x[rows], target[rows], noise.take(rows))
                    broken = model.misclassifies(attacked, target[rows])
                    x_adv[rows[broken]], robust[rows[broken]] = attacked[broken], False
        return x_adv

"""Being written."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from toughen.attacks.base import Attack
from toughen.noise import Noise
from toughen.types import Eps, Images, Labels, Logits, Norm


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """A placeholder."""

    eps: Eps | None = None
    norm: Norm = "linf"
    queries: int = 5000

    def __call__(self, model: nn.Module, x: Images, target: Labels | Logits, noise: Noise | None = None) -> Images:
        raise NotImplementedError

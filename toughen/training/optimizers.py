"""torch's optimizers as settings: what a recipe names, built once the parameters are known."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

from toughen.training import muon
from toughen.utils.configurable import Configurable

Parameters: TypeAlias = Iterable[nn.Parameter] | Iterable[dict[str, Any]]  # alone, or in groups


class Optimizer(Configurable):
    """The base of all optimizer settings; ``build`` makes torch's optimizer for these parameters."""

    lr: float | int

    def __post_init__(self) -> None:
        for name, end, where in (
            ("lr", math.inf, "be a finite number, not below 0"),
            ("weight_decay", math.inf, "be a finite number, not below 0"),
            ("beta1", 1, "be in 0..1, below 1"),
            ("beta2", 1, "be in 0..1, below 1"),
        ):
            if not 0 <= getattr(self, name, 0) < end:
                raise ValueError(f"optimizer.{name} is {getattr(self, name)}: it must {where}")

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        raise NotImplementedError(f"{type(self).__name__} has no build: define it")

    def build_checked(self, parameters: Parameters) -> torch.optim.Optimizer:
        """What ``build`` makes; the class may be a user's own.

        Raises:
            ValueError: it is no optimizer of torch's, or one that needs a closure.
        """
        made = self.build(parameters)
        name = type(self).__name__
        if not isinstance(made, torch.optim.Optimizer):
            raise ValueError(f"{name}.build returned {type(made).__name__}: it must return a torch.optim.Optimizer")
        closure = inspect.signature(made.step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise ValueError(
                f"{name} builds {type(made).__name__}, whose step needs a closure: use an optimizer that needs none"
            )
        return made


def _check_momentum(momentum: float | int) -> None:
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum}: it must be in 0..1, below 1, such as 0.9")


@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Stochastic gradient descent.

    Attributes:
        lr: the highest learning rate; the schedule multiplies it by 0..1.
        momentum: share of the accumulated gradient kept at each step.
        weight_decay: this multiple of each parameter is added to its gradient (L2 penalty).
        nesterov: use Nesterov momentum.

    Raises:
        ValueError: momentum is outside 0..1, or 1, which never forgets; or a setting is below 0.
    """

    lr: float | int = 0.1
    momentum: float | int = 0.9
    weight_decay: float | int = 5e-4
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_momentum(self.momentum)

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov
        )


@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Adam (Kingma & Ba, arXiv:1412.6980).

    Attributes:
        lr: the highest learning rate; the schedule multiplies it by 0..1.
        beta1: share of the mean gradient kept at each step.
        beta2: share of the mean squared gradient kept at each step.
        weight_decay: L2 penalty, added to the gradient.
    """

    lr: float | int = 1e-3
    beta1: float | int = 0.9
    beta2: float | int = 0.999
    weight_decay: float | int = 0.0

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        betas = (self.beta1, self.beta2)
        return torch.optim.Adam(parameters, lr=self.lr, betas=betas, weight_decay=self.weight_decay)


@dataclass(frozen=True, kw_only=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter, arXiv:1711.05101).

    Attributes:
        lr: the highest learning rate; the schedule multiplies it by 0..1.
        beta1: share of the mean gradient kept at each step.
        beta2: share of the mean squared gradient kept at each step.
        weight_decay: share of each weight taken off at each step, times the learning rate.
    """

    lr: float | int = 1e-3
    beta1: float | int = 0.9
    beta2: float | int = 0.999
    weight_decay: float | int = 0.01

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        betas = (self.beta1, self.beta2)
        return torch.optim.AdamW(parameters, lr=self.lr, betas=betas, weight_decay=self.weight_decay)


@dataclass(frozen=True, kw_only=True)
class Muon(Optimizer):
    """Muon: the momentum of each matrix is orthogonalised (Jordan et al., 2024: kellerjordan.github.io/posts/muon).

    Matrices are the weights of convolutions and linear layers. Vectors, such as biases and the parameters of
    normalisation layers, have SGD with momentum. The last layer is a matrix too; in the authors' training on CIFAR-10
    it has SGD.

    Attributes:
        lr: the highest learning rate; the schedule multiplies it by 0..1.
        momentum: share of the accumulated gradient kept at each step; Nesterov's form.
        weight_decay: share of each matrix taken off at each step, times the learning rate; the others have none.
        vector_lr_scale: learning rate of biases and normalisation layers, as a multiple of lr.

    Raises:
        ValueError: momentum is outside 0..1, or 1, which never forgets; or a setting is below 0.
    """

    lr: float | int = 0.02
    momentum: float | int = 0.95
    weight_decay: float | int = 0.05
    vector_lr_scale: float | int = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_momentum(self.momentum)
        if not 0 <= self.vector_lr_scale < math.inf:
            raise ValueError(
                f"optimizer.vector_lr_scale is {self.vector_lr_scale}: it must be a finite number, not below 0"
            )

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        return muon.Muon(
            parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay,
            vector_lr_scale=self.vector_lr_scale,
        )  # fmt: skip

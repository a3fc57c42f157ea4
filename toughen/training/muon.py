"""Muon: momentum whose matrices are orthogonalised before each step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

STEPS = 5
A, B, C = 3.4445, -4.7750, 2.0315  # of the Newton-Schulz iteration, in the source


class Muon(torch.optim.Optimizer):
    """Muon for parameters that are matrices or more, SGD with momentum for the others and for single rows.

    torch.optim.Muon takes matrices only. Here a convolution's weights [out, in, h, w] are the matrix [out, in * h * w],
    as in the source (Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024, and its training
    of CIFAR-10, where the last layer has SGD). The iteration runs in the parameters' type; the source's is bfloat16,
    which processors without instructions for it multiply 20 times slower.

    Args:
        params: alone, or in groups.
        lr: learning rate; a group may have its own.
        momentum: share of the accumulated gradient kept at each step; Nesterov's form.
        weight_decay: share of each matrix taken off at each step, times the learning rate.
        vector_lr_scale: what the learning rate is multiplied by for the other parameters.
    """

    def __init__(self, params: Any, *, lr: float, momentum: float, weight_decay: float, vector_lr_scale: float) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "vector_lr_scale": vector_lr_scale}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns what the closure, if there is one, gives."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                velocity = state["momentum_buffer"].mul_(momentum).add_(parameter.grad)
                update = parameter.grad.add(velocity, alpha=momentum)
                if is_vector(parameter):
                    parameter.add_(update, alpha=-lr * group["vector_lr_scale"])
                else:
                    parameter.mul_(1 - lr * group["weight_decay"])
                    parameter.add_(orthogonalized(update.flatten(1)).view_as(parameter), alpha=-lr)
        return loss


def is_vector(parameter: Tensor) -> bool:
    """Whether a parameter is one vector, such as a layer's scale [c, 1, 1], or a transformer's tokens [1, n, d]."""
    return len(parameter.shape) == 0 or len(parameter) in (1, parameter.numel())


def orthogonalized(matrix: Tensor) -> Tensor:
    """Roughly the orthogonal matrix with the same singular vectors.

    Singular values become 0.7 to 1.2. Those below a five-hundredth of the Frobenius norm stay smaller. The result is
    multiplied by sqrt(rows / columns) where there are more rows, as torch.optim.Muon does by default.

    Args:
        matrix: [rows, columns].
    """
    rows, columns = matrix.shape
    x = matrix / matrix.norm().clamp(min=1e-7)  # so that no singular value is above 1
    x = x.T if rows > columns else x
    for _ in range(STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
    x = x.T if rows > columns else x
    scaled: Tensor = x * math.sqrt(max(1.0, rows / columns))
    return scaled

"""The nuclear norm, the sum of a matrix's singular values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from toughen.core.types import Logits, Scalar


def nuclear_norm(matrix: Logits) -> Scalar:
    """The sum of the singular values of an [n, k] matrix; for a matrix of zeros (x_adv = x) the gradient is zero.

    There every matrix of spectral norm 1 or less is a subgradient, and singular vectors would give an arbitrary one.
    """
    # singular values on a GPU synchronise with the host: 0.9 ms for 64 x 10 logits, the polar factor 0.2 (H100)
    norm = by_polar_factor(matrix) if matrix.is_cuda else by_singular_values(matrix)
    return torch.where(matrix.any(), norm, torch.zeros_like(norm))


def by_singular_values(matrix: Logits) -> Scalar:
    """The nuclear norm as the sum of LAPACK's singular values."""
    norm: Scalar = torch.linalg.matrix_norm(matrix, "nuc")
    return norm


def by_polar_factor(matrix: Logits) -> Scalar:
    """The nuclear norm as the inner product of the matrix with its polar factor, which is the gradient."""
    norm: Scalar = _PolarNuclearNorm.apply(matrix)  # type: ignore[no-untyped-call]
    return norm


class _PolarNuclearNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        factor = polar_factor(matrix)
        ctx.save_for_backward(factor)
        return (factor * matrix).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (factor,) = ctx.saved_tensors
        gradient: Tensor = slope * factor
        return gradient


def polar_factor(matrix: Tensor) -> Tensor:
    """U V^T of a matrix's singular vectors, by matrix products alone; zero where the matrix is zero.

    Newton-Schulz iterations in float64 (Higham, Functions of Matrices, section 8.3), after steps with the coefficients
    of Jordan et al. (Muon, 2024), which raise small singular values faster. Singular values below about 1e-6 of the
    largest one become less than 1.
    """
    tall = matrix.double() if matrix.shape[0] >= matrix.shape[1] else matrix.double().T
    factor = tall / (tall.square().sum().sqrt() + torch.finfo(torch.float64).tiny)
    for _ in range(10):
        gram = factor.T @ factor
        factor = torch.addmm(factor, factor, torch.addmm(gram, gram, gram, beta=-4.775, alpha=2.0315), beta=3.4445)
    for _ in range(6):
        factor = torch.addmm(factor, factor, factor.T @ factor, beta=1.5, alpha=-0.5)
    return (factor if matrix.shape[0] >= matrix.shape[1] else factor.T).to(matrix.dtype)

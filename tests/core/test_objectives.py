"""Objectives against values worked by hand, numpy's singular values, and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor
from torch.autograd import gradcheck

from toughen.core.distances import kl_divergence
from toughen.core.nuclear_norm import by_polar_factor, nuclear_norm, polar_factor
from toughen.core.objectives import (
    NuclearAscent,
    Objective,
    cross_entropy,
    kl,
    margin,
    margin_loss,
    targeted,
)

THREE = torch.tensor([[2.0, 5.0, 1.0], [2.0, 5.0, 1.0], [7.0, 5.0, 6.5]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 0])
LN3 = math.log(3)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_margin() -> None:
    assert margin(THREE, LABELS).tolist() == [-3.0, 3.0, 0.5]
    assert margin_loss(THREE, LABELS).tolist() == [3.0, -3.0, -0.5]


def test_margin_of_two_classes() -> None:
    logits, y = torch.tensor([[1.0, -2.0], [1.0, -2.0]]), torch.tensor([0, 1])
    assert margin(logits, y).tolist() == [3.0, -3.0]
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(margin_loss(logits, y).sum(), logits)
    assert gradient.tolist() == [[-1.0, 1.0], [1.0, -1.0]]


def test_cross_entropy_and_its_opposite() -> None:
    logits, y = torch.tensor([[0.0, LN3], [0.0, LN3]]), torch.tensor([0, 1])  # p = 1/4, 3/4
    expected = torch.tensor([math.log(4), math.log(4 / 3)])
    torch.testing.assert_close(cross_entropy(logits, y), expected)
    torch.testing.assert_close(targeted(logits, y), -expected)


def test_kl() -> None:
    """KL((1/4, 3/4) || (1/2, 1/2)) = 1/4 ln 1/2 + 3/4 ln 3/2, and the other way round 1/2 ln 2 + 1/2 ln 2/3."""
    clean, logits = torch.tensor([[0.0, LN3], [1.0, 1.0]]), torch.tensor([[5.0, 5.0], [1.0, 1.0 + LN3]])
    one = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    other = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    torch.testing.assert_close(kl(logits, clean), torch.tensor([one, other]))
    torch.testing.assert_close(kl(clean, clean), torch.zeros(2))


def test_which_images_are_fooled() -> None:
    clean = THREE.flip(0)
    assert cross_entropy.fooled(THREE, LABELS).tolist() == [True, False, False]
    assert margin_loss.fooled(THREE, LABELS).tolist() == [True, False, False]
    assert targeted.fooled(THREE, LABELS).tolist() == [False, True, True]
    assert kl.fooled(THREE, clean).tolist() == [True, False, True]
    assert NuclearAscent(None, 1.0).fooled(THREE, LABELS).tolist() == [True, False, False]


def test_only_the_nuclear_norm_couples_images() -> None:
    assert NuclearAscent(None, 1.0).batchwise
    assert not any(each.batchwise for each in (cross_entropy, margin_loss, targeted, kl))


# ---- the nuclear norm


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (5, 5), (1, 4)])
def test_nuclear_norm_is_the_sum_of_singular_values(shape: tuple[int, int]) -> None:
    """Its gradient is U V^T (Watson, 1992)."""
    matrix = random(*shape).requires_grad_()
    u, values, vh = np.linalg.svd(matrix.detach().numpy(), full_matrices=False)
    norm = nuclear_norm(matrix)
    (gradient,) = torch.autograd.grad(norm, matrix)
    assert norm.item() == pytest.approx(values.sum(), rel=1e-12)
    np.testing.assert_allclose(gradient.numpy(), u @ vh, atol=1e-12)


def test_nuclear_norm_worked_by_hand() -> None:
    assert nuclear_norm(torch.tensor([[3.0, 0.0], [0.0, -4.0], [0.0, 0.0]])).item() == pytest.approx(7)
    assert nuclear_norm(torch.ones(4, 9)).item() == pytest.approx(6)  # rank one: the Frobenius norm


def test_zero_has_a_zero_gradient() -> None:
    matrix = torch.zeros(4, 3, requires_grad=True)
    norm = nuclear_norm(matrix)
    (gradient,) = torch.autograd.grad(norm, matrix)
    assert norm.item() == 0
    assert torch.equal(gradient, torch.zeros(4, 3))


@pytest.mark.parametrize("shape", [(6, 3), (3, 6), (64, 10), (128, 100), (1, 5)])
def test_a_polar_factor_is_the_product_of_the_singular_vectors(shape: tuple[int, int]) -> None:
    matrix = random(*shape)
    u, _, vt = np.linalg.svd(matrix.numpy(), full_matrices=False)
    np.testing.assert_allclose(polar_factor(matrix).numpy(), u @ vt, atol=1e-9)


def test_a_polar_factor_sees_small_singular_values() -> None:
    u, _ = torch.linalg.qr(random(64, 10))
    v, _ = torch.linalg.qr(random(10, 10, seed=1))
    values = torch.logspace(0, -5, 10, dtype=torch.float64)
    matrix = (u * values @ v.T).requires_grad_()
    norm = by_polar_factor(matrix)
    assert norm.item() == pytest.approx(values.sum().item(), rel=1e-9)
    (gradient,) = torch.autograd.grad(norm, matrix)
    np.testing.assert_allclose(gradient.detach().numpy(), (u @ v.T).numpy(), atol=1e-6)


def test_a_matrix_of_zeros_has_no_polar_factor() -> None:
    assert not polar_factor(torch.zeros(4, 3)).any() and polar_factor(random(4, 3).float()).dtype == torch.float32


def test_nuclear_ascent() -> None:
    """Cross-entropy of uniform logits is ln 2; the difference diag(3, -4) has the nuclear norm 7."""
    clean, y = torch.tensor([[-3.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 1])
    logits = torch.zeros(2, 2)
    assert NuclearAscent(clean, 0.5)(logits, y).item() == pytest.approx(math.log(2) + 3.5)
    assert NuclearAscent(clean, 0.0)(logits, y).item() == pytest.approx(math.log(2))
    assert NuclearAscent(None, 0.5)(logits, y).item() == pytest.approx(math.log(2))


# ---- gradients against finite differences

CHECKED: list[tuple[Objective, Tensor]] = [
    (cross_entropy, torch.tensor([0, 2, 1, 3, 0])),
    (margin_loss, torch.tensor([0, 2, 1, 3, 0])),
    (targeted, torch.tensor([0, 2, 1, 3, 0])),
    (kl, random(5, 4, seed=1)),
    (NuclearAscent(random(5, 4, seed=2), 0.7), torch.tensor([0, 2, 1, 3, 0])),
]


@pytest.mark.parametrize(("objective", "target"), CHECKED, ids=lambda value: type(value).__name__)
def test_gradients(objective: Objective, target: Tensor) -> None:
    assert gradcheck(lambda logits: objective(logits, target), random(5, 4).requires_grad_())


def test_gradients_through_both_sides_of_kl() -> None:
    """TRADES lowers the divergence through the clean logits as well."""
    assert gradcheck(kl_divergence, (random(5, 4).requires_grad_(), random(5, 4, seed=1).requires_grad_()))


def test_shapes_are_checked_while_tests_run() -> None:
    with pytest.raises(TypeCheckError):
        kl_divergence(torch.zeros(2, 3), torch.zeros(3, 3))
    with pytest.raises(TypeCheckError):
        cross_entropy(torch.zeros(2, 3), torch.zeros(2))

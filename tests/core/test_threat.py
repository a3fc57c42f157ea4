"""The threat's arithmetic against values worked by hand and, for random starts, against known distributions."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import jaxtyping
import pytest
import torch
from scipy import stats
from torch import Tensor

from toughen import Threat
from toughen.core.rng import StepNoise
from toughen.core.types import Norm
from toughen.utils.units import Fraction


def image(*values: float) -> Tensor:
    """One image of [1, 1, 1, n] in float64."""
    return torch.tensor(values, dtype=torch.float64)[None, None, None]


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)


# ---- projection, steps and distances

PROJECTIONS: list[tuple[Norm, float, tuple[float, ...], tuple[float, ...], tuple[float, ...]]] = [
    ("linf", 0.1, (0.5, 0.5, 0.5), (0.9, 0.55, 0.2), (0.6, 0.55, 0.4)),
    ("linf", 0.1, (0.0, 1.0, 0.95), (-0.5, 2.0, 1.5), (0.0, 1.0, 1.0)),  # the box is nearer than the ball
    ("linf", 0.0, (0.5, 0.2), (0.9, 0.1), (0.5, 0.2)),
    ("l2", 0.5, (0.5, 0.5), (1.1, 1.3), (0.8, 0.9)),  # (0.6, 0.8) has length 1 and is halved
    ("l2", 0.5, (0.5, 0.5), (0.53, 0.54), (0.53, 0.54)),  # (0.03, 0.04) is short and stays
    ("l2", 0.5, (0.0, 1.0), (-0.6, 1.8), (0.0, 1.0)),
    ("l2", 1.0, (0.9, 0.1), (1.5, 0.9), (1.0, 0.9)),  # in the ball, so that only the box cuts
    ("l2", 0.5, (0.5, 0.5), (0.5, 0.5), (0.5, 0.5)),
    ("l2", 0.0, (0.5, 0.5), (0.6, 0.5), (0.5, 0.5)),
]


@pytest.mark.parametrize(("norm", "eps", "x", "x_adv", "expected"), PROJECTIONS)
def test_project(norm: Norm, eps: float, x: tuple[float], x_adv: tuple[float], expected: tuple[float]) -> None:
    close(Threat(norm, eps).project(image(*x_adv), image(*x)), image(*expected))


def test_l2_is_cut_image_by_image() -> None:
    x = torch.full((2, 1, 1, 2), 0.5, dtype=torch.float64)
    far, near = torch.tensor([0.6, 0.8]), torch.tensor([0.003, 0.004])
    x_adv = x + torch.stack([far, near]).double()[:, None, None]
    moved = Threat("l2", 0.1).project(x_adv, x) - x
    torch.testing.assert_close(moved[:, 0, 0], torch.stack([far / 10, near]).double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("norm", "expected"), [("linf", (1.0, -1.0, 0.0)), ("l2", (0.6, -0.8, 0.0))], ids=["linf", "l2"]
)
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e25])  # in float32 the squares of the first and last are 0 and inf
def test_steepest(norm: Norm, expected: tuple[float, ...], scale: float) -> None:
    found = Threat(norm, 0.1).steepest((image(3, -4, 0) * scale).float())
    torch.testing.assert_close(found, image(*expected).float())


@pytest.mark.parametrize(("norm", "expected"), [("linf", 7.0), ("l2", 5.0)])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e25])  # as above
def test_dual(norm: Norm, expected: float, scale: float) -> None:
    found = Threat(norm, 0.1).dual((image(3, -4, 0) * scale).float())
    torch.testing.assert_close(found, torch.tensor([expected * scale]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_zero_gradient_gives_no_step(norm: Norm) -> None:
    assert torch.equal(Threat(norm, 0.1).steepest(image(0, 0)), image(0, 0))
    assert Threat(norm, 0.1).dual(image(0, 0)) == 0


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_dual_of_what_is_no_number_is_none(norm: Norm) -> None:
    assert Threat(norm, 0.1).dual(image(torch.inf, 1)).isinf()
    assert Threat(norm, 0.1).dual(image(torch.nan, 1)).isnan()


def test_distance() -> None:
    x, x_adv = torch.zeros(2, 1, 1, 2), torch.tensor([[0.3, 0.4], [0.0, -1.0]])[:, None, None]
    close(Threat("linf", 1).distance(x_adv, x), torch.tensor([0.4, 1.0]))
    torch.testing.assert_close(Threat("l2", 1).distance(x_adv, x), torch.tensor([0.5, 1.0]))


# ---- starts

GRAY = torch.full((4000, 1, 2, 2), 0.5, dtype=torch.float64)  # no start of size 0.1 reaches the box


def start(norm: Norm, name: str | Tensor, size: float | None = None, x: Tensor = GRAY) -> Tensor:
    found = Threat(norm, 0.1).start(x, name, StepNoise(0, 0), size)  # type: ignore[arg-type]
    return found - x


def is_uniform(values: Tensor) -> bool:
    """Kolmogorov and Smirnov's test against [0, 1]; the seed is fixed, so that it fails always or never."""
    return bool(stats.kstest(values.flatten().numpy(), "uniform").pvalue > 0.01)


def test_uniform_linf_start() -> None:
    delta = start("linf", "uniform")
    assert delta.abs().max() <= 0.1
    assert is_uniform((delta + 0.1) / 0.2)
    assert is_uniform((start("linf", "uniform", 0.04) + 0.04) / 0.08)


def test_uniform_l2_start_fills_the_ball() -> None:
    """A ball's volume grows as r^d, so that r^d of uniform points is uniform."""
    delta = start("l2", "uniform").flatten(1)
    length = delta.norm(dim=1)
    assert length.max() <= 0.1 * (1 + 1e-12)
    assert is_uniform((length / 0.1) ** 4)
    cosine = delta[:, 0] / length  # on a 3-sphere: Beta(3/2, 3/2) between -1 and 1
    assert stats.kstest(((cosine + 1) / 2).numpy(), "beta", (1.5, 1.5)).pvalue > 0.01


def test_bernoulli_start() -> None:
    linf, l2 = start("linf", "bernoulli"), start("l2", "bernoulli", 0.08)
    close(linf.abs(), torch.full_like(GRAY, 0.1))
    assert abs((linf > 0).double().mean() - 0.5) < 0.02
    close(l2.abs(), torch.full_like(GRAY, 0.04))  # four pixels of 0.04 have length 0.08


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_gaussian_start_is_not_cut(norm: Norm) -> None:
    delta = start(norm, "gaussian")
    assert stats.kstest(delta.flatten().numpy() / 0.001, "norm").pvalue > 0.01
    assert stats.kstest(start(norm, "gaussian", 1.0).flatten().numpy(), "norm").pvalue > 0.01


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["uniform", "bernoulli"])
def test_starts_are_cut_to_ball_and_box(norm: Norm, name: str) -> None:
    x = torch.rand(50, 1, 2, 2, dtype=torch.float64).round()
    delta = start(norm, name, 5.0, x)
    length = delta.abs().amax((1, 2, 3)) if norm == "linf" else delta.flatten(1).norm(dim=1)
    assert 0 < length.max() <= 0.1 * (1 + 1e-12)
    assert (x + delta).min() >= 0 and (x + delta).max() <= 1


def test_start_at_the_image_or_as_given() -> None:
    x = torch.rand(2, 1, 2, 2)
    assert torch.equal(Threat("linf", 0.1).start(x, "none"), x)
    assert torch.equal(Threat("linf", 0.1).start(x, 1 - x), 1 - x)
    with pytest.raises(ValueError, match=r"start has shape \(1, 1, 2, 2\), the images \(2, 1, 2, 2\)"):
        Threat("linf", 0.1).start(x, x[:1])


# ---- refusals


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the checks of types, which say it first while tests run."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


REFUSED: list[tuple[Any, float, str]] = [
    ("linf", 8, "did you mean 8/255"),
    ("linf", 1.5, "did you mean 1.5/255"),
    ("linf", -0.1, "not below 0"),
    ("l2", -0.1, "not below 0"),
    ("linf", math.nan, "finite"),
    ("l2", math.inf, "finite"),
    ("l1", 0.1, '\'l1\' is unknown: use "linf" or "l2"'),
]


@pytest.mark.parametrize(("norm", "eps", "message"), REFUSED)
def test_refused(norm: Any, eps: float, message: str, unchecked: None) -> None:
    with pytest.raises(ValueError, match=message):
        Threat(norm, eps)


def test_an_l2_radius_must_be_within_reach() -> None:
    x = torch.rand(2, 1, 2, 2)
    Threat("l2", 2.0).check(x)  # sqrt(4)
    Threat("l2", 2.0).check(x[:0])
    with pytest.raises(ValueError, match="eps 2.001 exceeds 2,"):
        Threat("l2", 2.001).check(x)


def test_unknown_start(unchecked: None) -> None:
    with pytest.raises(ValueError, match="start 'unifrom' is unknown: use"):
        Threat("linf", 0.1).start(torch.rand(1, 1, 2, 2), "unifrom")  # type: ignore[arg-type]


# ---- numbers written as fractions


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), (" 0.5 ", 0.5), ("1e-2", 0.01), ("3", 3.0), (0.25, 0.25), ("-1/4", -0.25)]
)
def test_fraction(text: str | float, value: float) -> None:
    assert Fraction(text) == value
    assert str(Fraction(text)) == str(text).strip()


@pytest.mark.parametrize("text", ["1/0", "a", "1/2/3", "", "/2", "8//255", "8/255px"])
def test_not_a_number(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number: write 0.03 or 8/255"):
        Fraction(text)


def test_copies_keep_the_text() -> None:
    eps = Fraction("8/255")
    for other in (copy.copy(eps), copy.deepcopy(eps), pickle.loads(pickle.dumps(eps)), Fraction(eps)):
        assert other == 8 / 255 and str(other) == repr(other) == "8/255"
    assert copy.deepcopy(Threat("linf", eps)) == Threat("linf", 8 / 255)

"""The threat's arithmetic on random images, against formulas written out in float64."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from properties import holds
from torch import Tensor

from toughen.core.rng import StepNoise
from toughen.core.threat import Threat
from toughen.core.types import Norm
from toughen.evaluation.call_attack import verify_threat
from toughen.utils.units import Fraction

SHAPES = array_shapes(min_dims=4, max_dims=4, max_side=3)
NORMS = st.sampled_from(["linf", "l2"])
KINDS = st.sampled_from([np.float32, np.float64])
RADII = st.just(0.0) | st.integers(1, 255).map(lambda pixels: pixels / 255) | st.floats(1e-4, 1)
SLACK = {torch.float32: 2e-6, torch.float64: 1e-14}  # of numbers up to about 1


@st.composite
def pairs(draw: st.DrawFn, far: float = 3.0, own: bool = False) -> tuple[Tensor, Tensor]:
    """Images, and others of their shape and type up to so far outside of [0, 1]; ``own``: or the same ones."""
    shape, kind = draw(SHAPES), draw(KINDS)
    bits: Any = np.dtype(kind).itemsize * 8
    x = draw(arrays(kind, shape, elements=st.floats(0, 1, width=bits)))
    other = draw(arrays(kind, shape, elements=st.floats(-far, 1 + far, width=bits)))
    return torch.from_numpy(x), torch.from_numpy(x.copy() if own and draw(st.booleans()) else other)


def lengths(delta: np.ndarray[Any, Any], norm: Norm) -> np.ndarray[Any, Any]:
    """In float64; hypot squares no number that is so small that its square is 0."""
    flat = delta.reshape(len(delta), -1).astype(np.float64)
    return np.array([np.abs(row).max() if norm == "linf" else math.hypot(*row) for row in flat])


def nearest(x_adv: Tensor, x: Tensor, norm: Norm, eps: float) -> np.ndarray[Any, Any]:
    """The nearest point of the ball in float64: pixel by pixel, or along the line to its middle."""
    middle, point = x.double().numpy(), x_adv.double().numpy()
    found: np.ndarray[Any, Any]
    if norm == "linf":
        found = np.clip(point, middle - eps, middle + eps)
        return found
    delta = point - middle
    length = lengths(delta, norm).reshape(-1, 1, 1, 1)
    found = middle + np.where(length > eps, delta * (eps / np.where(length > eps, length, 1)), delta)
    return found


def slack(x: Tensor) -> float:
    return SLACK[x.dtype] * math.sqrt(x[0].numel())


def near(found: Tensor, expected: np.ndarray[Any, Any], more: float = 1.0) -> None:
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=0, atol=more * slack(found))


def inside(x_adv: Tensor, x: Tensor, norm: Norm, eps: float) -> None:
    assert x_adv.shape == x.shape and x_adv.dtype == x.dtype
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    moved = lengths(x_adv.double().numpy() - x.double().numpy(), norm)
    assert (moved <= eps * (1 + 1e-6) + slack(x)).all()


@holds(images=pairs(), norm=NORMS, eps=RADII)
def test_a_projection_is_inside_and_the_nearest(images: tuple[Tensor, Tensor], norm: Norm, eps: float) -> None:
    x, x_adv = images
    before = x.clone(), x_adv.clone()
    found = Threat(norm, eps).project(x_adv, x)
    inside(found, x, norm, eps)
    near(found, np.clip(nearest(x_adv, x, norm, eps), 0, 1), more=3)
    assert torch.equal(x, before[0]) and torch.equal(x_adv, before[1])
    verify_threat(found, x, Threat(norm, eps), "it")  # as an evaluation looks at it


@holds(images=pairs(), norm=NORMS, eps=RADII)
def test_projecting_twice_changes_nothing(images: tuple[Tensor, Tensor], norm: Norm, eps: float) -> None:
    x, x_adv = images
    threat = Threat(norm, eps)
    once = threat.project(x_adv, x)
    twice = threat.project(once, x)
    if norm == "linf":
        assert torch.equal(twice, once)
    near(twice, once.double().numpy())


@holds(images=pairs(far=0.0), norm=NORMS, eps=RADII, share=st.floats(0, 0.99))
def test_what_is_inside_stays(images: tuple[Tensor, Tensor], norm: Norm, eps: float, share: float) -> None:
    x, other = images  # both in [0, 1], and so is all that lies between them
    length = lengths((other - x).numpy(), norm).reshape(-1, 1, 1, 1)
    part = torch.from_numpy(np.minimum(1, share * eps / np.maximum(length, 1e-9))).to(x.dtype)
    x_adv = (x + part * (other - x)).clamp(0, 1)
    found = Threat(norm, eps).project(x_adv, x)
    if norm == "linf" and eps > 1e-3:
        assert torch.equal(found, x_adv)
    near(found, x_adv.double().numpy())


@holds(images=pairs(), points=st.integers(0, 2**32), norm=NORMS, eps=RADII)
def test_no_point_of_the_ball_is_nearer(images: tuple[Tensor, Tensor], points: int, norm: Norm, eps: float) -> None:
    """The nearest point of a convex set makes no acute angle between the way to it and the way on into the set."""
    x, x_adv = images
    delta = (x_adv - x).double().numpy()
    cut = Threat(norm, eps).cut(x_adv - x).double().numpy()
    drawn = np.random.default_rng(points).normal(size=delta.shape)
    drawn *= (eps / np.maximum(lengths(drawn, norm), 1e-9)).reshape(-1, 1, 1, 1)  # on the sphere
    angle = ((delta - cut) * (drawn - cut)).reshape(len(delta), -1).sum(1)
    assert (angle <= 20 * slack(x)).all()
    assert (lengths(cut, norm) <= eps * (1 + 1e-6)).all()


@holds(
    images=pairs(), norm=NORMS, eps=RADII, seed=st.integers(0, 2**40), size=st.none() | st.floats(0, 3),
    start=st.sampled_from(["uniform", "bernoulli", "none"]),
)  # fmt: skip
def test_starts_are_inside(
    images: tuple[Tensor, Tensor], norm: Norm, eps: float, seed: int, size: float | None, start: Literal["uniform"]
) -> None:
    x, _ = images
    threat = Threat(norm, eps)
    found = threat.start(x, start, StepNoise(seed, 1), size)
    inside(found, x, norm, min(eps, eps if size is None else size))
    verify_threat(found, x, threat, "it")
    assert torch.equal(found, threat.start(x, start, StepNoise(seed, 1), size))
    free = threat.start(x, start, StepNoise(seed, 1), size, clip=False).double().numpy() - x.double().numpy()
    assert (lengths(free, norm) <= (eps if size is None else size) * (1 + 1e-6) + slack(x)).all()


@holds(images=pairs(far=100.0), norm=NORMS, power=st.integers(-30, 30), zero=st.booleans())
def test_the_steepest_step(images: tuple[Tensor, Tensor], norm: Norm, power: int, zero: bool) -> None:
    gradient = images[1] * (0.0 if zero else 10.0**power)
    found, exact = Threat(norm, 0.1).steepest(gradient), gradient.double().numpy()
    length = lengths(exact, "l2").reshape(-1, 1, 1, 1)
    near(found, np.sign(exact) if norm == "linf" else exact / np.where(length > 0, length, 1))
    assert (found[gradient == 0] == 0).all()


@holds(images=pairs(), norm=NORMS, power=st.integers(-28, 28))
def test_no_unit_step_gains_more_than_the_dual_norm(images: tuple[Tensor, Tensor], norm: Norm, power: int) -> None:
    gradient, other = images[1].mul(1000).round() * 10.0**power, images[0].double().numpy() - 0.5
    threat, exact = Threat(norm, 0.1), gradient.double().numpy()
    most = threat.dual(gradient).double().numpy()
    expected = np.abs(exact).sum((1, 2, 3)) if norm == "linf" else lengths(exact, norm)
    np.testing.assert_allclose(most, expected, rtol=1e-5)
    gained = (exact * threat.steepest(gradient).double().numpy()).sum((1, 2, 3))
    np.testing.assert_allclose(gained, most, rtol=1e-5)
    step = other / np.maximum(lengths(other, norm), 1e-9).reshape(-1, 1, 1, 1)
    assert ((exact * step).sum((1, 2, 3)) <= most * (1 + 1e-5)).all()


def way(pixels: Any, slope: Any, value: float, norm: Norm) -> Any:
    """The shortest way onto a plane: a bisection for the smallest reach that arrives, or as far as the box allows."""
    towards = -np.sign(value) * np.sign(slope)
    room = np.where(towards > 0, 1 - pixels, np.where(towards < 0, pixels, 0))
    pace = np.abs(slope) if norm == "l2" else np.ones_like(slope)
    low, high = 0.0, 1e4
    for _ in range(80):
        middle = (low + high) / 2
        arrived = np.abs(slope) @ np.minimum(middle * pace, room) >= abs(value)
        low, high = (low, middle) if arrived else (middle, high)
    return towards * np.minimum(high * pace, room)


@holds(examples=30, images=pairs(), norm=NORMS, value=st.floats(-5, 5), power=st.integers(-25, 25))
def test_the_way_onto_a_plane(images: tuple[Tensor, Tensor], norm: Norm, value: float, power: int) -> None:
    x, normal = images[0], images[1].mul(1000).round().div(1000)  # no slope so small that a bisection is inexact
    scale = 10.0**power  # of both, so that the plane stays where it is
    values = torch.full((len(x),), value * scale, dtype=x.dtype)
    found = Threat(norm, 0.1).onto_plane(x, normal * scale, values).double().numpy().reshape(len(x), -1)
    wide = 1e-4 if x.dtype == torch.float32 else 1e-9
    pixels, slopes = (each.double().numpy().reshape(len(x), -1) for each in (x, normal))
    for row, pixel, slope in zip(found, pixels, slopes, strict=True):
        expected = way(pixel, slope, value, norm)
        assert (pixel + row >= -1e-7).all() and (pixel + row <= 1 + 1e-7).all()
        assert abs(value + slope @ row) <= abs(value + slope @ expected) + wide
        (one,), (other,) = lengths(row[None], norm), lengths(expected[None], norm)
        assert one <= other * (1 + wide) + wide


@holds(examples=200, norm=NORMS, eps=st.floats() | st.integers(-5, 300) | st.integers(1, 600).map(lambda n: n / 255))
def test_a_radius_is_taken_or_refused_by_its_number(norm: Norm, eps: float) -> None:
    if math.isfinite(eps) and eps >= 0 and (norm == "l2" or eps <= 1):
        assert Threat(norm, eps).eps == eps
        return
    with pytest.raises(ValueError) as refusal:
        Threat(norm, eps)
    assert f"{eps:g}" in str(refusal.value) or str(eps) in str(refusal.value)


@holds(pixels=st.integers(0, 255), norm=NORMS)
def test_a_radius_as_text_is_the_same_threat(pixels: int, norm: Norm) -> None:
    threat = Threat(norm, Fraction(f"{pixels}/255"))
    assert threat == Threat(norm, pixels / 255) and str(threat.eps) == f"{pixels}/255"
    assert Threat(norm, Fraction(str(threat.eps))) == threat


@holds(images=pairs(), eps=st.floats(0, 4))
def test_an_l2_radius_reaches_the_farthest_corner_at_most(images: tuple[Tensor, Tensor], eps: float) -> None:
    x, corners = images[0], images[0].round()
    farthest = float(lengths((1 - 2 * corners).numpy(), "l2").max())  # from a corner of the box to the other
    if eps <= farthest:
        Threat("l2", eps).check(x)
    elif eps > farthest * (1 + 1e-9):
        with pytest.raises(ValueError, match="exceeds"):
            Threat("l2", eps).check(x)

"""Attacks by short names: what is written is what is run, and a name that means nothing is named."""

from __future__ import annotations

import fractions
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from properties import holds
from torch import Tensor, nn

from toughen.attacks.base import Attack
from toughen.core.rng import StepNoise
from toughen.core.threat import Threat
from toughen.core.types import Norm
from toughen.evaluation.suite import names, parse_attack

NORMS = st.sampled_from(["linf", "l2"])
RADII = st.integers(1, 255).map(lambda pixels: pixels / 255)
SIZES = st.integers(1, 300).map(lambda pixels: f"{pixels}/255") | st.decimals("0.0001", 5, places=4).map(str)
PIECES = [
    *names(),
    "pgd",
    "-",
    "x",
    "@",
    "20",
    "0",
    "5",
    "9" * 5000,
    ".",
    "/",
    "e",
    "1e400",
    "-1",
    ",",
    " ",
    "",
    "\u0663",
    "\u0130",
]
PIECES += ["toughen.attacks.PGD", "toughen.attacks", "os.system", "\n", "\x00", "PGD", "FGSM"]


@holds(name=st.sampled_from(["pgd", "pgd-margin", "PGD", " pgd"]), steps=st.none() | st.integers(1, 10**17),
       restarts=st.none() | st.integers(1, 10**6), size=st.none() | SIZES, norm=NORMS, eps=RADII)  # fmt: skip
def test_an_attack_has_the_settings_that_are_written(
    name: str, steps: int | None, restarts: int | None, size: str | None, norm: Norm, eps: float
) -> None:
    spec = name + ("" if steps is None else f"-{steps}") + ("" if restarts is None else f"x{restarts}")
    whole = spec + ("" if size is None else f"@{size}")
    if size is not None and fractions.Fraction(size) >= 1 and norm == "linf" and eps < 1:  # as wide as an image's range
        with pytest.raises(ValueError, match="leads from black to white; (use one below 1|did you mean [^/]*/255)"):
            parse_attack(whole, Threat(norm, eps))
        return
    found: Any = parse_attack(whole, Threat(norm, eps))
    assert (found.norm, found.eps) == (norm, eps)
    assert found.steps == (10 if steps is None else steps) and found.restarts == (1 if restarts is None else restarts)
    if size is None:
        assert found.step_size is None
    else:
        assert str(found.step_size) == size
        assert abs(found.step_size - float(fractions.Fraction(size))) <= 1e-15 * found.step_size


@holds(examples=150, spec=st.lists(st.sampled_from(PIECES), max_size=6).map("".join) | st.text(max_size=12), norm=NORMS)
def test_any_text_is_an_attack_or_refused_by_name(spec: str, norm: Norm) -> None:
    threat = Threat(norm, 0.1)
    try:
        found: Any = parse_attack(spec, threat)
    except ValueError as error:
        parts = [spec.strip(), *spec.strip().split("@"), *spec.strip().split("-")]
        assert any(part in str(error) or repr(part)[1:-1] in str(error) for part in parts)
        return
    assert isinstance(found, Attack) and (found.norm, found.eps) == (norm, 0.1)


class Recorder(nn.Module):
    """A linear model that keeps the images that it is asked about."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), 2, dtype=torch.float64))
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(x.detach().clone())
        out: Tensor = self.net(x)
        return out


def moved(spec: str, norm: Norm, eps: float, seed: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """Where an attack looks, relative to grey images that no step leads out of the box; its end; the way upwards."""
    x = torch.full((2, 1, 2, 2), 0.5, dtype=torch.float64)
    torch.manual_seed(seed)
    model = Recorder((1, 2, 2))
    linear = model.net[1]
    assert isinstance(linear, nn.Linear)
    up = (linear.weight[1] - linear.weight[0]).detach().view(1, 1, 2, 2)  # raises the loss of class 0
    end = parse_attack(spec, Threat(norm, eps))(model, x, torch.zeros(2, dtype=torch.int64), StepNoise(seed, 0))
    return [each - x for each in model.asked], end - x, up


def ball(delta: Tensor, norm: Norm, eps: float) -> Tensor:
    if norm == "linf":
        return delta.clamp(-eps, eps)
    length = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return torch.where(length > eps, delta * eps / length.clamp(min=1e-30), delta)


@holds(examples=20, kind=st.sampled_from(["pgd", "i-fgsm", "fgsm"]),
       steps=st.integers(1, 6), size=st.none() | SIZES, norm=NORMS,
       eps=st.integers(1, 100).map(lambda pixels: pixels / 255), seed=st.integers(0, 2**40))  # fmt: skip
def test_steps_are_as_long_as_the_rule_says(
    kind: str, steps: int, size: str | None, norm: Norm, eps: float, seed: int
) -> None:
    if kind == "i-fgsm":
        size = None
    spec = kind + ("" if kind == "fgsm" else f"-{steps}") + ("" if size is None else f"@{size}")
    places, end, up = moved(spec, norm, eps, seed)
    rule = {"pgd": 2.5 * eps / steps, "i-fgsm": eps / steps, "fgsm": eps}[kind]
    length = rule if size is None else float(fractions.Fraction(size))
    way = up.sign() if norm == "linf" else up / up.norm()
    expected = places[0]
    assert (ball(expected, norm, eps) - expected).abs().max() < 1e-12  # it starts inside
    if kind != "pgd":
        assert expected.abs().max() == 0
    for place in [*places[1:], end][: 1 if kind == "fgsm" else steps]:
        expected = ball(expected + length * way, norm, eps)
        torch.testing.assert_close(place, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("spec", ["pgd-" + "9" * 5000, "pgd-20x" + "9" * 5000, "toughen.attacks.PGD-" + "9" * 5000])
def test_more_steps_than_a_number_has_are_refused_by_name(spec: str) -> None:
    with pytest.raises(ValueError, match=f"attack '{spec}' is unknown"):
        parse_attack(spec, Threat("linf", 0.1))

"""FGSM-AT, R-FGSM-AT, FBF and PGD-AT against numbers worked out by hand and against their formulas written out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from literal import Net, Pixels, Written, clip, close, cross_entropy, given, pair, same_step, sign_of_slope, two_pixels
from torch import Tensor

from toughen.methods import REGISTRY, Method
from toughen.methods.fast import FBF, FGSMAT, RFGSMAT
from toughen.methods.pgd_at import PGDAT
from toughen.types import Images, Labels

# ---- By hand. The logits are the two pixels (a, b), the label is 0: the loss is ln(1 + e^(b - a)), so every attack
# ---- lowers a and raises b, and the slope of the loss at an image (a, b) is q (-1, 1)^T (a, b), q = 1/(1 + e^(a - b)).


def by_hand(method: Method, noise: list[float], expected: tuple[float, float], image: tuple[float, float]) -> None:
    model, x, y, batch = Pixels(), two_pixels(image), torch.tensor([0]), given([[[noise]]])
    assert close(method.craft(model, x, y, batch).x_adv, two_pixels(expected))
    step = method(model, x, y, batch)
    step.loss.backward()
    a, b = expected
    q = 1 / (1 + math.exp(a - b))
    assert close(step.loss.detach(), math.log(1 + math.exp(b - a)))
    assert close(step.logits.detach(), torch.tensor([[a, b]], dtype=torch.float64))
    assert model.weight.grad is not None
    assert close(model.weight.grad, torch.tensor([[-q * a, -q * b], [q * a, q * b]], dtype=torch.float64))


def test_fgsm_at_by_hand() -> None:
    by_hand(FGSMAT(eps=0.25), [9, 9], image=(0.9, 0.5), expected=(0.65, 0.75))
    by_hand(FGSMAT(eps=0.25), [9, 9], image=(0.9, 0.875), expected=(0.65, 1))  # cut at the box


def test_rfgsm_at_by_hand() -> None:
    # start +-0.1: (1.05, 0.4), cut to (1, 0.4); then the step of what is left of eps, 0.15
    by_hand(RFGSMAT(eps=0.25, start_size=0.1), [1, -1], image=(0.95, 0.5), expected=(0.85, 0.55))
    # half of eps, 0.125, twice: one pixel comes back, the other goes all the way
    by_hand(RFGSMAT(eps=0.25), [1, 1], image=(0.5, 0.5), expected=(0.5, 0.75))


def test_fbf_by_hand() -> None:
    # start at 0.25 (0.5, 0.2): (1.025, 0.55), cut to (1, 0.55); step 1.25 eps = 0.3125: (0.6875, 0.8625);
    # the second is cut to 0.5 + 0.25
    by_hand(FBF(eps=0.25), [0.5, 0.2], image=(0.9, 0.5), expected=(0.6875, 0.75))
    by_hand(FBF(eps=0.25, step_size=0.125), [0.5, 0.2], image=(0.9, 0.5), expected=(0.875, 0.675))


def test_pgd_at_by_hand() -> None:
    # two steps of 0.1 from the image: (0.8, 0.6), then (0.7, 0.7), cut to +-0.15
    by_hand(PGDAT(eps=0.15, steps=2, step_size=0.1, start="none"), [9, 9], image=(0.9, 0.5), expected=(0.75, 0.65))
    # start at 0.25 (0.5, -0.8): (1, 0.3), cut; two steps of 2.5 eps / 10 = 0.0625
    by_hand(PGDAT(eps=0.25, steps=10), [0.5, -0.8], image=(0.9, 0.5), expected=(0.65, 0.75))
    by_hand(PGDAT(eps=0.25, steps=2, step_size=0.0625), [0.5, -0.8], image=(0.9, 0.5), expected=(0.875, 0.425))


# ---- The formulas written out, with the weights, statistics and modes of a net with batch norm, on real images.


def attacked(
    written: Written,
    x: Tensor,
    y: Tensor,
    noise: Tensor,
    *,
    start: float,
    steps: int,
    size: float,
    eps: float,
    mode: str,
) -> Tensor:
    """Start at ``start`` x noise within the box, then sign steps, each cut to ball and box."""
    forward = written.training if mode == "train" else written.evaluation
    x_adv = (x + start * noise).clamp(0, 1)
    for _ in range(steps):
        x_adv = clip(x_adv + size * sign_of_slope(lambda z: cross_entropy(forward(z), y), x_adv), x, eps)
    return x_adv


E = 8 / 255
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [  # a method, its settings, what they mean
    ("FGSMAT", {}, {"start": 0, "steps": 1, "size": E, "mode": "eval"}),
    ("FGSMAT", {"mode": "train"}, {"start": 0, "steps": 1, "size": E, "mode": "train"}),
    ("RFGSMAT", {}, {"start": 4 / 255, "steps": 1, "size": 4 / 255, "mode": "eval"}),
    ("RFGSMAT", {"start_size": E / 4, "mode": "train"}, {"start": E / 4, "steps": 1, "size": 6 / 255, "mode": "train"}),
    ("FBF", {}, {"start": E, "steps": 1, "size": 10 / 255, "mode": "train"}),
    ("FBF", {"step_size": 9 / 255, "mode": "eval"}, {"start": E, "steps": 1, "size": 9 / 255, "mode": "eval"}),
    ("PGDAT", {"step_size": 2 / 255}, {"start": E, "steps": 10, "size": 2 / 255, "mode": "train"}),
    ("PGDAT", {}, {"start": E, "steps": 10, "size": 2.5 * E / 10, "mode": "train"}),
    ("PGDAT", {"steps": 3, "start": "none", "mode": "eval"}, {"start": 0, "steps": 3, "size": E / 1.2, "mode": "eval"}),
]


@pytest.mark.parametrize(("name", "settings", "formula"), CASES)
def test_one_step_equals_the_formulas(
    name: str, settings: dict[str, Any], formula: dict[str, Any], mnist: tuple[Images, Labels]
) -> None:
    (net, written), x, y = pair(), mnist[0][:16].double(), mnist[1][:16]
    noise = torch.rand_like(x) * 2 - 1
    noise = noise.sign() if name == "RFGSMAT" else noise
    method, batch = REGISTRY[name](eps=E, **settings), given(noise)

    x_adv = attacked(Written(net), x, y, noise, eps=E, **formula)
    probe = Net().train()
    probe.load_state_dict(net.state_dict())
    assert close(method.craft(probe, x, y, batch).x_adv, x_adv)
    assert (x_adv - x).abs().max() > 7.9 / 255

    attacked(written, x, y, noise, eps=E, **formula)  # moves the statistics, where it runs in training mode
    expected = cross_entropy(written.training(x_adv), y)
    step = method(net, x, y, batch)
    same_step(net, step.loss, written, expected)
    moved = 1 + (formula["steps"] if formula["mode"] == "train" else 0)
    assert net.norm.num_batches_tracked is not None and int(net.norm.num_batches_tracked) == moved
    assert set(step.terms) == {"robust"} and close(step.terms["robust"], expected.detach())


def test_rfgsm_starts_at_corners_and_refuses_a_start_beyond_eps(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist[0].double(), mnist[1]
    method = RFGSMAT(eps=0.1, start_size=0.04)
    away = (x > 0.15) & (x < 0.85)
    delta = (method.craft(Net(), x, y).x_adv - x)[away].abs()
    sizes = torch.tensor(
        [0.1, 0.02, 0.04], dtype=torch.float64
    )  # agree, disagree, or a pixel that the net does not see
    assert ((delta[:, None] - sizes).abs() < 1e-9).any(1).all()
    assert all((delta - size).abs().min() < 1e-9 for size in sizes[:2])
    with pytest.raises(ValueError, match=r"start_size 0\.2 .* eps 0\.1"):
        RFGSMAT(eps=0.1, start_size=0.2)
    with pytest.raises(ValueError, match="RFGSMAT needs eps"):
        RFGSMAT(start_size=0.2)

"""The attacks on a norm of a batch's logit matrix, against numpy's singular values and the loop written out."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from literal import nuclear
from problems import trained_net, unchanged, within
from torch import Tensor, nn
from torch.autograd import gradcheck

from toughen.attacks import LogitMatrix
from toughen.core.cost import PassCounter
from toughen.core.objectives import LogitNorm
from toughen.core.rng import ImageNoise, StepNoise
from toughen.core.types import Images, Labels
from toughen.engine.fixed_batch import FixedBatchModel

KINDS: list[Literal["nuclear", "frobenius"]] = ["nuclear", "frobenius"]
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def digits(mnist: tuple[Images, Labels]) -> tuple[nn.Module, Images, Labels]:
    return trained_net(torch.float64).eval(), mnist[0][::2].double(), mnist[1][::2]


def test_the_objective_is_the_norm() -> None:
    logits, clean = torch.randn(2, 7, 4, dtype=torch.float64)
    y, values = torch.zeros(7, dtype=torch.int64), np.linalg.svd((logits - clean).numpy(), compute_uv=False)
    assert LogitNorm(clean, "nuclear")(logits, y).item() == pytest.approx(values.sum(), rel=1e-12)
    assert LogitNorm(clean, "frobenius")(logits, y).item() == pytest.approx((values**2).sum() ** 0.5, rel=1e-12)
    for kind in KINDS:
        objective = LogitNorm(clean, kind)
        assert objective.batchwise and gradcheck(lambda z, of=objective: of(z, y), logits.clone().requires_grad_())
        assert torch.equal(objective.fooled(logits, y), logits.argmax(1) != 0)


@every_kind
def test_agrees_with_the_loop_written_out(kind: Any, digits: Any) -> None:
    model, x, y = digits
    eps, noise = 0.1, StepNoise(0, 0)
    x_adv = (x + eps * noise.uniform(x)).clamp(0, 1)
    for _ in range(6):
        x_adv = x_adv.detach().requires_grad_()
        moved: Tensor = model(x_adv) - model(x).detach()
        norm = nuclear(moved) if kind == "nuclear" else (moved**2).sum() ** 0.5
        (g,) = torch.autograd.grad(norm, x_adv)
        x_adv = (x + (x_adv + 0.03 * g.sign() - x).clamp(-eps, eps)).clamp(0, 1)
    found = LogitMatrix(eps=eps, kind=kind, steps=6, step_size=0.03)(model, x, y, StepNoise(0, 0))
    assert (found - x_adv).abs().max() < 1e-9


def test_each_raises_its_own_norm_most(digits: Any) -> None:
    """Over images of one class, as in the paper."""
    model, x, y = digits
    x = x[y == 8].repeat(8, 1, 1, 1)
    y, norms = torch.full((len(x),), 8), {}
    for kind in KINDS:
        x_adv = LogitMatrix(eps=0.1, kind=kind)(model, x, y, StepNoise(0, 0))
        values = np.linalg.svd((model(x_adv) - model(x)).detach().numpy(), compute_uv=False)
        norms[kind] = values.sum(), (values**2).sum() ** 0.5
        assert within(x_adv, x, "linf", 0.1)
    assert norms["nuclear"][0] > 1.1 * norms["frobenius"][0] and norms["frobenius"][1] > 1.02 * norms["nuclear"][1]


@every_kind
def test_knows_no_labels_and_drops_no_image(kind: Any, digits: Any) -> None:
    model, x, y = digits
    attack = LogitMatrix(eps=0.3, kind=kind, steps=5)
    with unchanged(model), PassCounter(model) as passes:
        x_adv = attack(model, x, y, StepNoise(0, 0))
    assert (passes.forward, passes.input_gradient) == (32 * 6, 32 * 5)
    assert (model(x_adv).argmax(1) != y).any()
    assert torch.equal(attack(model, x, (y + 1) % 10, StepNoise(0, 0)), x_adv)


def test_is_flagged_because_images_are_coupled(digits: Any) -> None:
    model, x, y = digits
    attack, noise = LogitMatrix(eps=0.1, steps=5), ImageNoise(0, "N", list(range(32)))
    assert LogitMatrix.batchwise and attack.batchwise and not hasattr(attack, "restarts")
    whole = attack(model, x, y, noise)
    part = attack(model, x[:5], y[:5], noise.take(torch.arange(5)))
    assert (whole[:5] - part).abs().max() > 0.01


@every_kind
def test_in_blocks(kind: Any, digits: Any) -> None:
    """Where images are coupled the whole batch goes at once."""
    model, x, y = digits
    noise, attack = ImageNoise(0, "N", list(range(32))), LogitMatrix(eps=0.1, kind=kind, steps=5)
    expected = attack(model, x, y, noise)
    assert (attack(FixedBatchModel(model, 7, "fp64"), x, y, noise) - expected).abs().max() < 1e-9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, r"steps \(0\) must be at least 1"),
        ({"step_size": -1}, "step_size -1 must be a finite number"),
        ({"start": "none"}, "there is no gradient at the images themselves"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LogitMatrix(eps=0.1, **settings)


def test_an_unknown_norm_is_refused() -> None:
    attack = LogitMatrix(eps=0.1)
    object.__setattr__(attack, "kind", "spectral")  # past the types that are checked while tests run
    with pytest.raises(ValueError, match="kind 'spectral' is unknown"):
        attack.__post_init__()

"""N-FGSM against numbers worked out by hand and against the released algorithm written out."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from literal import Net, Pixels, close, cross_entropy, given, pair, same_step, sign_of_slope, two_pixels

from toughen.core.types import Images, Labels, Mode, Norm
from toughen.methods.nfgsm import NFGSM

E = 8 / 255


def test_one_image_by_hand() -> None:
    # x = (1/2, 1/2), noise (1, -1/2) of 2/8: (3/4, 3/8). Cross-entropy of label 0 rises along (-, +): by 1/8 to
    # (5/8, 1/2), which lies 1/8 = eps away. With the other label to (7/8, 1/4): 3/8 = 3 eps away, and it is left there.
    model, x, batch = Pixels(), two_pixels((0.5, 0.5)), given([[[[1.0, -0.5]]]])
    for y, x_adv in ((0, (0.625, 0.5)), (1, (0.875, 0.25))):
        step = NFGSM(eps=0.125)(model, x, torch.tensor([y]), batch)
        assert close(NFGSM(eps=0.125).craft(model, x, torch.tensor([y]), batch).x_adv, two_pixels(x_adv))
        wrong = x_adv[1 - y] - x_adv[y]
        assert close(step.loss.detach(), math.log(1 + math.exp(wrong))) and step.loss.requires_grad


@pytest.mark.parametrize(
    ("settings", "x_adv"),
    [
        ({"limit": 0.125}, (0.625, 0.375)),  # as FBF does: 3/8 and -1/4 cut to 1/8
        ({"limit": 0.25}, (0.75, 0.25)),
        ({"start_size": 0.125}, (0.75, 0.3125)),  # noise (1/8, -1/16), the step as long as before
        ({"step_size": 0.25}, (1.0, 0.125)),  # (3/4, 3/8) + (1/4, -1/4)
        ({"start_size": 0.5, "step_size": 0}, (1.0, 0.25)),  # the noise alone
    ],
    ids=str,
)
def test_settings_by_hand(settings: dict[str, Any], x_adv: tuple[float, float]) -> None:
    model, x, batch = Pixels(), two_pixels((0.5, 0.5)), given([[[[1.0, -0.5]]]])
    found = NFGSM(eps=0.125, **settings).craft(model, x, torch.tensor([1]), batch).x_adv
    assert close(found, two_pixels(x_adv))


def test_l2_by_hand() -> None:
    # draws (1, 1): the direction (1, 1) / sqrt(2), and (1 + 1) / 2 of the radius 2/8; then 1/8 along (1, -1) / sqrt(2)
    model, x, batch = Pixels(), two_pixels((0.5, 0.5)), given([[[[1.0, 1.0]]]])
    found = NFGSM(eps=0.125, norm="l2").craft(model, x, torch.tensor([1]), batch).x_adv
    assert close(found, two_pixels((0.5 + 0.375 / math.sqrt(2), 0.5 + 0.125 / math.sqrt(2))))


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_steps_equal_the_released_algorithm(mode: Mode, mnist: tuple[Images, Labels]) -> None:
    """Noise of 2 eps cut to [0, 1], a step of eps cut to [0, 1], no ball; batch norm moves twice in training mode."""
    (net, written), x, y = pair(), mnist[0][:16].double(), mnist[1][:16]
    method = NFGSM(eps=E) if mode == "train" else NFGSM(eps=E, mode="eval")
    attacked = written.training if mode == "train" else written.evaluation
    for _ in range(2):
        noise = 2 * torch.rand_like(x) - 1
        noisy = (x + 2 * E * noise).clamp(0, 1)
        x_adv = (noisy + E * sign_of_slope(lambda z: cross_entropy(attacked(z), y), noisy)).clamp(0, 1)
        assert close(method.craft(copy.deepcopy(net), x, y, given(noise)).x_adv, x_adv)
        assert (x_adv - x).abs().max() > 2.5 * E
        net.zero_grad()
        same_step(net, method(net, x, y, given(noise)).loss, written, cross_entropy(written.training(x_adv), y))


def test_the_images_reach_as_far_as_noise_and_step(mnist: tuple[Images, Labels]) -> None:
    x, y, net = mnist[0].double(), mnist[1], Net().train()
    norms: list[tuple[Norm, float]] = [("linf", 0.1), ("l2", 1.5)]
    for norm, eps in norms:
        delta = (NFGSM(eps=eps, norm=norm).craft(net, x, y).x_adv - x).flatten(1)
        moved = delta.abs().amax(1) if norm == "linf" else delta.square().sum(1).sqrt()
        assert (moved <= 3 * eps * (1 + 1e-9)).all() and (moved > 1.2 * eps).all()
        delta = (NFGSM(eps=eps, norm=norm, limit=eps).craft(net, x, y).x_adv - x).flatten(1)
        moved = delta.abs().amax(1) if norm == "linf" else delta.square().sum(1).sqrt()
        assert (moved <= eps * (1 + 1e-9)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start_size": -1}, "start_size .* at least 0"),
        ({"step_size": math.nan}, "step_size .* at least 0"),
        ({"limit": -0.1}, "eps -0.1 .* not below 0"),
        ({"limit": 8}, "did you mean 8/255"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NFGSM(eps=E, **settings)

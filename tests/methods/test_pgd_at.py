"""PGD training, which is also the slides' RAT, against numbers worked out by hand and the algorithm written out."""

from __future__ import annotations

import copy
import math
from typing import Literal

import pytest
import torch
from literal import Pixels, clip, close, cross_entropy, given, pair, same_step, sign_of_slope, two_pixels

from toughen.core.types import Images, Labels, Mode
from toughen.methods.pgd_at import PGDAT

E = 8 / 255


def test_one_image_by_hand() -> None:
    # x = (1/2, 1/2), label 0: cross-entropy rises along (-, +). Three steps of 1/8 in a ball of 1/4 from x itself end
    # at (1/4, 3/4). Two from x + (1/4, -1/4) end at x again; at label 1 they stay at (3/4, 1/4).
    model, x, noise = Pixels(), two_pixels((0.5, 0.5)), given([[[[1.0, -1.0]]]])
    rat = PGDAT(eps=0.25, steps=3, step_size=0.125, start="none")
    assert close(rat(model, x, torch.tensor([0]), noise).loss.detach(), math.log(1 + math.exp(0.5)))
    madry = PGDAT(eps=0.25, steps=2, step_size=0.125)
    assert close(madry.craft(model, x, torch.tensor([0]), noise).x_adv, x)
    step = madry(model, x, torch.tensor([1]), noise)
    step.loss.backward()
    assert close(step.loss.detach(), math.log(1 + math.exp(0.5)))
    p = 1 / (1 + math.exp(-0.5))  # of the wrong class 0
    row = p * torch.tensor([0.75, 0.25], dtype=torch.float64)
    assert model.weight.grad is not None and close(model.weight.grad, torch.stack([row, -row]))


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("start", ["uniform", "none"])
def test_two_steps_equal_the_released_algorithm(
    start: Literal["uniform", "none"], mode: Mode, mnist: tuple[Images, Labels]
) -> None:
    """In training mode every step of the attack moves the batch-norm statistics, in evaluation mode none does."""
    (net, written), x, y = pair(), mnist[0][:16].double(), mnist[1][:16]
    method = PGDAT(eps=E, steps=4, step_size=2 / 255, start=start, mode=mode)
    attacked = written.training if mode == "train" else written.evaluation
    for _ in range(2):
        noise = 2 * torch.rand_like(x) - 1
        x_adv = (x + E * noise).clamp(0, 1) if start == "uniform" else x
        before = written.mean
        for _ in range(4):
            x_adv = clip(x_adv + 2 / 255 * sign_of_slope(lambda z: cross_entropy(attacked(z), y), x_adv), x, E)
        assert torch.equal(written.mean, before) is (mode == "eval")
        assert close(method.craft(copy.deepcopy(net), x, y, given(noise)).x_adv, x_adv)
        net.zero_grad()
        same_step(net, method(net, x, y, given(noise)).loss, written, cross_entropy(written.training(x_adv), y))


def test_rat_starts_at_the_image_and_needs_no_noise(mnist: tuple[Images, Labels]) -> None:
    (net, _), x, y = pair(), mnist[0][:16].double(), mnist[1][:16]
    method = PGDAT(eps=E, start="none")
    found = [method.craft(copy.deepcopy(net), x, y, given(noise * torch.ones_like(x))).x_adv for noise in (1, -1)]
    assert torch.equal(*found)
    assert not torch.equal(found[0], PGDAT(eps=E).craft(copy.deepcopy(net), x, y, given(torch.ones_like(x))).x_adv)

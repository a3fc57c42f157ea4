"""R-MGM against numbers worked out by hand and against Algorithm 1 written out; its sign of collapse."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from contract import net as contract_net
from literal import (
    Net,
    Pixels,
    Written,
    clip,
    close,
    cross_entropy,
    given,
    pair,
    same_step,
    sign_of_slope,
    two_pixels,
)
from torch import Tensor, nn

from toughen.core.cost import PassCounter
from toughen.core.rng import StepNoise
from toughen.core.threat import Threat
from toughen.core.types import Batch, Images, Labels, Norm
from toughen.evaluation.logit_distance import logit_distance
from toughen.methods.fast import FGSMAT, RFGSMAT
from toughen.methods.rmgm import RMGM

E = 0.3


# ---- By hand: the logits are the two pixels.


@pytest.mark.parametrize("cross_entropy_on", ["fgsm", "both"])
def test_one_image_by_hand(cross_entropy_on: Any) -> None:
    # x = (1/2, 1/2), label 0, eps = 1/4: cross-entropy rises along (-, +), so FGSM gives (1/4, 3/4). R-FGSM starts at
    # x + 1/8 (1, -1) and takes a step of 1/8: back to x.
    model, x, y, batch = Pixels(), two_pixels((0.5, 0.5)), torch.tensor([0]), given([[[[1.0, -1.0]]]])
    method = RMGM(eps=0.25, lam=3, cross_entropy_on=cross_entropy_on)
    crafted = method.craft(model, x, y, batch)
    assert close(crafted.x_adv, two_pixels((0.25, 0.75))) and close(crafted.extra["x_rfgsm"], x)
    step = method(model, x, y, batch)
    step.loss.backward()
    fgsm, rfgsm, q = math.log(1 + math.exp(0.5)), math.log(2), math.exp(0.5) / (1 + math.exp(0.5))
    both = cross_entropy_on == "both"
    robust = (fgsm + rfgsm) / 2 if both else fgsm
    assert close(step.terms["robust"], robust) and close(step.terms["squared_distance"], 1 / 16 + 1 / 16)
    assert close(step.loss.detach(), robust + 3 / 8)
    # slopes: (-q, q)^T (1/4, 3/4), (-1/2, 1/2)^T (1/2, 1/2), and with d = (-1/4, 1/4): 2 lam d^T d
    of_fgsm = torch.tensor([[-q / 4, -3 * q / 4], [q / 4, 3 * q / 4]], dtype=torch.float64)
    of_rfgsm = torch.tensor([[-0.25, -0.25], [0.25, 0.25]], dtype=torch.float64)
    distance = 2 * 3 / 16 * torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    assert model.weight.grad is not None
    assert close(model.weight.grad, ((of_fgsm + of_rfgsm) / 2 if both else of_fgsm) + distance)


# ---- Algorithm 1 written out.


def attacked(written: Written, x: Tensor, y: Tensor, noise: Tensor, start: float) -> tuple[Tensor, Tensor]:
    """Eq. 1, and Eq. 2 and 3, cut to the ball and to [0, 1]."""

    def climb(at: Tensor) -> Tensor:
        return sign_of_slope(lambda z: cross_entropy(written.evaluation(z), y), at)

    x1 = clip(x + start * noise, x, E)
    return clip(x + E * climb(x), x, E), clip(x1 + (E - start) * climb(x1), x, E)


def one_step(
    written: Written, x: Tensor, y: Tensor, noise: Tensor, *, lam: float, both: bool = False, start: float = E / 2
) -> Tensor:
    x_fgsm, x_rfgsm = attacked(written, x, y, noise, start)
    out = written.training(torch.cat([x_fgsm, x_rfgsm]))
    distance = ((out[: len(x)] - out[len(x) :]) ** 2).sum(1).mean()
    robust = cross_entropy(out, torch.cat([y, y])) if both else cross_entropy(out[: len(x)], y)
    return robust + lam * distance


@pytest.mark.parametrize(
    ("settings", "written_as"),
    [
        ({}, {"lam": 5}),
        ({"lam": 0.5, "start_size": 0.05}, {"lam": 0.5, "start": 0.05}),
        ({"lam": 0}, {"lam": 0}),
        ({"lam": 0, "cross_entropy_on": "both"}, {"lam": 0, "both": True}),
    ],
    ids=["proposed", "small-start", "lam-0", "fgsm+rfgsm"],
)
def test_two_steps_equal_the_algorithm(
    settings: dict[str, Any], written_as: dict[str, Any], mnist: tuple[Images, Labels]
) -> None:
    (net, written), method = pair(), RMGM(eps=E, **settings)
    for half in range(2):
        x, y = mnist[0][half::2].double(), mnist[1][half::2]
        noise = torch.randn_like(x).sign()
        crafted = method.craft(copy.deepcopy(net), x, y, given(noise))
        expected = attacked(written, x, y, noise, written_as.get("start", E / 2))
        assert close(crafted.x_adv, expected[0]) and close(crafted.extra["x_rfgsm"], expected[1])
        loss = one_step(written, x, y, noise, **written_as)
        step = method(net, x, y, given(noise))
        assert step.logits.shape == (32, 10)
        same_step(net, step.loss, written, loss)
        with torch.no_grad():
            for name, weight in net.named_parameters():
                assert weight.grad is not None
                weight.sub_(weight.grad, alpha=1e-3)
                written.weights[name].copy_(weight)
        net.zero_grad()
    assert net.norm.num_batches_tracked is not None and int(net.norm.num_batches_tracked) == 2  # one pass a step


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.3), ("l2", 2.0)])
def test_its_images_are_those_of_the_two_single_step_methods(
    norm: Norm, eps: float, mnist: tuple[Images, Labels]
) -> None:
    """One gradient for both batches changes nothing: in evaluation mode each image's is its own."""
    (x, y), net = (mnist[0].double(), mnist[1]), contract_net().double()
    crafted = RMGM(eps=eps, norm=norm).craft(net, x, y, Batch(noise=StepNoise(1, 0)))
    fgsm = FGSMAT(eps=eps, norm=norm).craft(net, x, y).x_adv
    rfgsm = RFGSMAT(eps=eps, norm=norm).craft(net, x, y, Batch(noise=StepNoise(1, 0))).x_adv
    assert close(crafted.x_adv, fgsm) and close(crafted.extra["x_rfgsm"], rfgsm)
    assert Threat(norm, eps).distance(crafted.extra["x_rfgsm"], x).max() <= eps * (1 + 1e-9)
    assert not crafted.extra["x_rfgsm"].requires_grad


def test_both_logits_get_gradient(mnist: tuple[Images, Labels]) -> None:
    (net, written), x, y = pair(), mnist[0][:16].double(), mnist[1][:16]
    crafted = RMGM(eps=E).craft(net, x, y, given(torch.randn_like(x).sign()))
    sets = torch.cat([crafted.x_adv, crafted.extra["x_rfgsm"]])
    slopes = {}
    for side in ("both", "fgsm", "rfgsm"):
        fgsm, rfgsm = written.training(sets).chunk(2)
        fgsm, rfgsm = fgsm.detach() if side == "rfgsm" else fgsm, rfgsm.detach() if side == "fgsm" else rfgsm
        distance = ((fgsm - rfgsm) ** 2).sum(1).mean()
        (slopes[side],) = torch.autograd.grad(distance, written.weights["norm.weight"])
    one, two = (RMGM(eps=E, lam=lam).loss(net, x, y, crafted).loss for lam in (1, 2))
    (found,) = torch.autograd.grad(two - one, net.norm.weight)
    assert close(found, slopes["both"]) and close(slopes["fgsm"] + slopes["rfgsm"], slopes["both"])
    assert min(slope.abs().max() for slope in slopes.values()) > 1e-3


# ---- Settings and cost.


def test_without_batch_norm_and_dropout_lam_0_is_fgsm_training(mnist: tuple[Images, Labels]) -> None:
    (x, y), plain = mnist, nn.Sequential(nn.Conv2d(1, 4, 5, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
    for net, same in ((plain.double(), True), (Net().train(), False)):
        losses = [
            method(copy.deepcopy(net), x.double(), y).loss.detach() for method in (RMGM(eps=E, lam=0), FGSMAT(eps=E))
        ]
        assert close(losses[0], losses[1]) is same


def test_one_pass_serves_both_attacks_and_one_both_batches(mnist: tuple[Images, Labels]) -> None:
    (x, y), net = mnist, contract_net()
    for lam in (5, 0):
        method = RMGM(eps=E, lam=lam)
        method.prepare(net, (1, 28, 28), 10)
        with PassCounter(net) as passes:
            method(net, x, y).loss.backward()
        assert passes.crafted == 2 * len(x) and passes.total == 10 * len(x)  # gamma 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lam": -1}, "lam -1 must be finite and at least 0"),
        ({"lam": math.nan}, "lam nan must be finite"),
        ({"lam": math.inf}, "lam inf must be finite"),
        ({"start_size": 0.4}, "start_size 0.4 must be between 0 and eps 0.3"),
        ({"start_size": -0.1}, "start_size -0.1 must be"),
        ({"start_size": math.nan}, "start_size nan must be"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RMGM(eps=E, **settings)


# ---- The early sign of collapse.


def test_the_distance_of_logits_by_hand() -> None:
    # as above for label 0: (1/4, 3/4) against (1/2, 1/2). With label 1 and the same start x is (3/4, 1/4) after FGSM
    # and x + 1/8 (1, -1) + 1/8 (1, -1), the same, after R-FGSM. The mean of 1/4 sqrt(2) and 0; squared it were 1/16.
    model, x, y = Pixels(), two_pixels((0.5, 0.5), (0.5, 0.5)), torch.tensor([0, 1])
    noise = given([[[[1.0, -1.0]]], [[[1.0, -1.0]]]]).noise
    assert close(logit_distance(model, x, y, Threat("linf", 0.25), noise), math.sqrt(2) / 8)


def test_the_distance_is_judged_in_evaluation_mode_and_leaves_nothing_behind(mnist: tuple[Images, Labels]) -> None:
    (net, written), x, y = pair(), mnist[0].double(), mnist[1]
    noise = torch.randn_like(x).sign()
    state = copy.deepcopy(net.state_dict())
    found = logit_distance(net, x, y, Threat("linf", E), given(noise).noise)
    fgsm, rfgsm = (written.evaluation(each) for each in attacked(written, x, y, noise, E / 2))
    assert close(found, ((fgsm - rfgsm) ** 2).sum(1).sqrt().mean().detach()) and found > 1e-3
    assert not found.requires_grad and net.training and all(weight.grad is None for weight in net.parameters())
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


def test_the_distance_grows_with_the_logits(mnist: tuple[Images, Labels]) -> None:
    """The slope's sign knows nothing of the logits' size where the labels decide it: with two classes."""
    x, y = mnist[0].double(), mnist[1] % 2
    net = nn.Sequential(nn.Conv2d(1, 4, 5, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2)).double()
    found = []
    for size in (1.0, 7.0):
        with torch.no_grad():
            for weight in net[3].parameters():
                weight.mul_(size)
        found.append(logit_distance(net, x, y, Threat("linf", E), StepNoise(0, 0)))
    assert found[0] > 0 and found[1].item() == pytest.approx(7 * found[0].item())


def test_the_distance_is_the_same_for_the_same_noise_and_in_l2(mnist: tuple[Images, Labels]) -> None:
    (x, y), net = mnist, contract_net()
    threat = Threat("l2", 2.0)
    found: list[Tensor] = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(found))
        found.append(logit_distance(net, x, y, threat, StepNoise(seed, 0)))
    assert found[0] == found[1] != found[2] and found[0] > 0

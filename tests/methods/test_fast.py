"""FGSM-AT, R-FGSM-AT, FBF and PGD-AT against numbers worked out by hand and against their formulas written out."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from literal import Net, Pixels, Written, clip, close, cross_entropy, given, pair, same_step, sign_of_slope, two_pixels
from torch import Tensor

from toughen.core.cost import PassCounter
from toughen.core.types import Images, Labels
from toughen.methods import REGISTRY, Method
from toughen.methods.fast import FBF, FGSMAT, RFGSMAT
from toughen.methods.pgd_at import PGDAT

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
    by_hand(FGSMAT(eps=0.25, step_size=0.125), [9, 9], image=(0.9, 0.5), expected=(0.775, 0.625))
    # start at 0.25 (0.5, 0.2): (1, 0.55), cut; then eps: (0.75, 0.8), the second cut to 0.5 + 0.25
    by_hand(FGSMAT(eps=0.25, start="uniform"), [0.5, 0.2], image=(0.9, 0.5), expected=(0.75, 0.75))


def test_fgsm_at_on_a_part_of_the_batch_by_hand() -> None:
    # the first of two images goes to (1/4, 3/4), b - a = 1/2; the second stays, b - a = -1/2
    model, x, y = Pixels(), two_pixels((0.5, 0.5), (0.75, 0.25)), torch.tensor([0, 0])
    step = FGSMAT(eps=0.25, share=0.5)(model, x, y)
    step.loss.backward()
    robust, clean = math.log(1 + math.exp(0.5)), math.log(1 + math.exp(-0.5))
    assert close(step.loss.detach(), (robust + clean) / 2)
    assert close(step.terms["robust"], robust) and close(step.terms["clean"], clean)
    assert close(step.logits.detach(), torch.tensor([[0.25, 0.75], [0.75, 0.25]], dtype=torch.float64))
    p, q = 1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(0.5))
    a, b = (p * 0.25 + q * 0.75) / 2, (p * 0.75 + q * 0.25) / 2
    assert model.weight.grad is not None
    assert close(model.weight.grad, torch.tensor([[-a, -b], [a, b]], dtype=torch.float64))


def test_fgsm_at_with_clean_cross_entropy_by_hand() -> None:
    model, x, y = Pixels(), two_pixels((0.5, 0.5)), torch.tensor([0])
    step = FGSMAT(eps=0.25, clean_weight=3)(model, x, y)  # at (1/4, 3/4) and, three times, at (1/2, 1/2)
    step.loss.backward()
    assert close(step.loss.detach(), math.log(1 + math.exp(0.5)) + 3 * math.log(2))
    assert close(step.terms["robust"], math.log(1 + math.exp(0.5))) and close(step.terms["clean"], math.log(2))
    p = 1 / (1 + math.exp(-0.5))
    a, b = p * 0.25 + 3 * 0.25, p * 0.75 + 3 * 0.25
    assert model.weight.grad is not None
    assert close(model.weight.grad, torch.tensor([[-a, -b], [a, b]], dtype=torch.float64))


def test_rfgsm_at_by_hand() -> None:
    # start +-0.1: (1.05, 0.4), cut to (1, 0.4); then the step of what is left of eps, 0.15
    by_hand(RFGSMAT(eps=0.25, start_size=0.1), [1, -1], image=(0.95, 0.5), expected=(0.85, 0.55))
    # half of eps, 0.125, twice: one pixel comes back, the other goes all the way
    by_hand(RFGSMAT(eps=0.25), [1, 1], image=(0.5, 0.5), expected=(0.5, 0.75))
    # start (0.6, 1), step to 1.15: cut a second time
    by_hand(RFGSMAT(eps=0.25, start_size=0.1), [1, 1], image=(0.5, 0.9), expected=(0.45, 1))


def test_fbf_by_hand() -> None:
    # start at 0.25 (0.5, 0.2): (1.025, 0.55), cut to (1, 0.55); step 1.25 eps = 0.3125: (0.6875, 0.8625);
    # the second is cut to 0.5 + 0.25
    by_hand(FBF(eps=0.25), [0.5, 0.2], image=(0.9, 0.5), expected=(0.6875, 0.75))
    by_hand(FBF(eps=0.25, step_size=0.125), [0.5, 0.2], image=(0.9, 0.5), expected=(0.875, 0.675))
    # not cut: (1.025, 0.55), so the step ends at 0.7125
    by_hand(FBF(eps=0.25, clip_start=False), [0.5, 0.2], image=(0.9, 0.5), expected=(0.7125, 0.75))
    # from the image itself a step of 1.25 eps is cut to eps, which is FGSM-AT
    by_hand(FBF(eps=0.25, start="none"), [9, 9], image=(0.9, 0.5), expected=(0.65, 0.75))


def test_fbf_from_the_previous_perturbation_by_hand() -> None:
    model, method = Pixels(), FBF(eps=0.25, step_size=0.125, start="previous")
    method.prepare(model, (1, 1, 2), 2)

    def made(label: int, *images: tuple[float, float]) -> Tensor:
        return method.craft(model, two_pixels(*images), torch.full((len(images),), label)).x_adv

    # nothing before: steps of (-1/8, 1/8) from the images
    assert close(made(0, (0.5, 0.5), (0.75, 0.5)), two_pixels((0.375, 0.625), (0.625, 0.625)))
    # label 1 turns the step round: from (1/4 - 1/8, 3/4 + 1/8) to the image, so that nothing is left in this place
    assert close(made(1, (0.25, 0.75)), two_pixels((0.25, 0.75)))
    # the second place still has (-1/8, 1/8): from (3/8, 1.075), outside of the box, to (1/4, 1.2), cut to 1;
    # in a third place there was nothing
    found = made(0, (0.5, 0.5), (0.5, 0.95), (0.5, 0.5))
    assert close(found, two_pixels((0.375, 0.625), (0.25, 1), (0.375, 0.625)))
    # of (-1/4, 0.05) the first goes on to -3/8, cut to -1/4
    assert close(made(0, (0.5, 0.5), (0.5, 0.5)), two_pixels((0.25, 0.75), (0.25, 0.675)))


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
    box: bool = True,
) -> Tensor:
    """Start at ``start`` x noise within the box, then sign steps, each cut to ball and box."""
    forward = written.training if mode == "train" else written.evaluation
    x_adv = (x + start * noise).clamp(0, 1) if box else x + start * noise
    for _ in range(steps):
        moved = x_adv + size * sign_of_slope(lambda z: cross_entropy(forward(z), y), x_adv)
        x_adv = clip(moved, x, eps) if box else (x + (moved - x).clamp(-eps, eps)).clamp(0, 1)
    return x_adv


E = 8 / 255
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [  # a method, its settings, what they mean
    ("FGSMAT", {}, {"start": 0, "steps": 1, "size": E, "mode": "eval"}),
    ("FGSMAT", {"mode": "train"}, {"start": 0, "steps": 1, "size": E, "mode": "train"}),
    ("RFGSMAT", {}, {"start": 4 / 255, "steps": 1, "size": 4 / 255, "mode": "eval"}),
    ("RFGSMAT", {"start_size": E / 4, "mode": "train"}, {"start": E / 4, "steps": 1, "size": 6 / 255, "mode": "train"}),
    ("FBF", {}, {"start": E, "steps": 1, "size": 10 / 255, "mode": "train"}),
    ("FBF", {"step_size": 9 / 255, "mode": "eval"}, {"start": E, "steps": 1, "size": 9 / 255, "mode": "eval"}),
    ("FBF", {"clip_start": False}, {"start": E, "steps": 1, "size": 10 / 255, "mode": "train", "box": False}),
    ("FBF", {"start": "none", "step_size": E}, {"start": 0, "steps": 1, "size": E, "mode": "train"}),
    ("FGSMAT", {"start": "uniform", "step_size": 9 / 255}, {"start": E, "steps": 1, "size": 9 / 255, "mode": "eval"}),
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
    method, batch = REGISTRY[name](eps=E, **settings), given(noise)  # type: ignore[call-arg]

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


# ---- FGSM-AT with clean images.


@pytest.mark.parametrize(("share", "attacked"), [(1, 16), (0.5, 8), (0.3, 5), (0.01, 1), (0.99, 15)])
@pytest.mark.parametrize("weight", [0, 0.5])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_share_of_the_batch_and_a_clean_weight_equal_the_formulas(
    mode: Any, weight: float, share: float, attacked: int, mnist: tuple[Images, Labels]
) -> None:
    (net, written), x, y = pair(), mnist[0][:16].double(), mnist[1][:16]
    forward = written.training if mode == "train" else written.evaluation
    some, labels = x[:attacked], y[:attacked]
    x_adv = (some + E * sign_of_slope(lambda z: cross_entropy(forward(z), labels), some)).clamp(0, 1)
    out = written.training(torch.cat([x_adv, x[attacked:]]))
    expected = cross_entropy(out, y)
    terms = {"robust": cross_entropy(out[:attacked], labels)}
    if attacked < 16:
        terms["clean"] = cross_entropy(out[attacked:], y[attacked:])
    if weight:
        terms["clean"] = cross_entropy(written.training(x), y)
        expected = expected + weight * terms["clean"]
    method = FGSMAT(eps=E, share=share, clean_weight=weight, mode=mode)
    method.prepare(net, (1, 28, 28), 10)
    with PassCounter(net) as passes:
        step = method(net, x, y)
        same_step(net, step.loss, written, expected)
    assert set(step.terms) == set(terms) and method.reports_clean is ("clean" in terms)
    assert all(close(step.terms[name], term.detach()) for name, term in terms.items())
    assert passes.crafted == attacked and passes.total == 2 * attacked + (3 + 3 * (weight > 0)) * 16


def test_a_batch_that_cannot_be_parted_and_bad_shares_are_refused() -> None:
    model, x, y = Pixels(), two_pixels((0.5, 0.5)), torch.tensor([0])
    with pytest.raises(ValueError, match=r"share 0\.5 splits a batch.* 1 image"):
        FGSMAT(eps=0.25, share=0.5)(model, x, y)
    assert FGSMAT(eps=0.25)(model, x, y).loss.isfinite()
    for share in (0, -0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="share .* 0..1"):
            FGSMAT(eps=0.25, share=share)
    for weight in (-1, math.nan):
        with pytest.raises(ValueError, match="clean_weight .* at least 0"):
            FGSMAT(eps=0.25, clean_weight=weight)


# ---- FBF from the last batch's perturbations.


def test_previous_perturbations_equal_the_released_algorithm_and_survive_a_kill(mnist: tuple[Images, Labels]) -> None:
    (net, written), x, y = pair(), mnist[0].double(), mnist[1]
    method = FBF(eps=E, start="previous").double()
    method.prepare(net, (1, 28, 28), 10)
    method.double()
    delta = torch.zeros(16, 1, 28, 28, dtype=torch.float64)  # the released code has a row for each image of a batch
    for rows in (range(12), range(12, 28), range(28, 36), range(36, 52)):
        some, labels, kept = x[list(rows)], y[list(rows)], len(rows)
        slope = sign_of_slope(lambda z, labels=labels: cross_entropy(written.training(z), labels), some + delta[:kept])  # type: ignore[misc]
        moved = (delta[:kept] + 10 / 255 * slope).clamp(-E, E)
        delta[:kept] = torch.maximum(torch.minimum(moved, 1 - some), 0 - some)
        expected = cross_entropy(written.training(some + delta[:kept]), labels)
        restored = FBF(eps=E, start="previous")
        restored.prepare(net, (1, 28, 28), 10)
        restored.double().load_state_dict(method.state_dict())
        again = restored(copy.deepcopy(net), some, labels).loss
        net.zero_grad()
        step = method(net, some, labels)
        same_step(net, step.loss, written, expected)
        assert torch.equal(again, step.loss)
        assert close(method.delta[:kept], delta[:kept])
    assert not any("delta" in key for key in FBF(eps=E).state_dict())


def test_texts_show_where_the_step_starts() -> None:
    for start in ("none", "uniform", "previous"):
        assert f"start={start!r}, clip_start=True" in repr(FBF(eps=E, start=start))


def test_what_is_kept_lies_where_the_model_is() -> None:
    method = FBF(eps=E, start="previous")
    method.prepare(Net().to("meta"), (1, 28, 28), 10)  # a loaded state takes its device from here
    assert method.delta.device.type == "meta" and method.delta.shape == (0, 1, 28, 28)

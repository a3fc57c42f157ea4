"""EFGSM against numbers worked out by hand and against its equations written out image by image."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from contract import batch, net, prepared, train
from literal import Net, Pixels, Written, clip, close, given, pair, same_step, two_pixels
from torch import Tensor, nn

from toughen.core.cost import PassCounter
from toughen.core.rng import Noise
from toughen.core.types import Batch, Images, Labels
from toughen.data.augment import Augment
from toughen.methods.efgsm import EFGSM, start_along
from toughen.methods.history import to_view


def at(index: list[int], noise: list[Any]) -> Batch:
    return replace(given(noise), index=torch.tensor(index))


def pixels(images: int = 1, **settings: Any) -> tuple[Pixels, EFGSM]:
    model, method = Pixels(), EFGSM(**settings)
    method.prepare(model, (1, 1, 2), 2, images)
    return model, method


# ---- By hand: the logits are the two pixels.


def test_two_visits_by_hand() -> None:
    # x = (1/2, 1/2), label 0, eps = 1/4, sigma = 1/8. First visit: no history, so the sign is the noise's, (1, 1):
    # x + (1/4 + 1/8, ...) is cut to (3/4, 3/4). The logits are equal, so the boundary is 0 away. History (1, 1).
    # Second visit, noise (1, -1): x + (1/4 + 1/8, 1/4 - 1/8) is cut to (3/4, 5/8). z_1 - z_0 = -1/8, its gradient
    # (-1, 1) has L1 norm 2, so Delta = 1/16 along (-, +): (11/16, 11/16). History 0.95 + 1 in both.
    model, method = pixels(eps=0.25, sigma=0.125)
    x, y = two_pixels((0.5, 0.5)), torch.tensor([0])
    assert close(method.craft(model, x, y, at([0], [[[[1.0, 1.0]]]])).x_adv, two_pixels((0.75, 0.75)))
    assert method.history.tolist() == [[[[1, 1]]]]
    step = method(model, x, y, at([0], [[[[1.0, -1.0]]]]))
    assert method.history.flatten().tolist() == pytest.approx([1.95, 1.95], abs=1e-3)
    # smoothed label (0.95, 0.05), equal logits: loss ln 2, slope of the logits (1/2 - 0.95, 1/2 - 0.05)
    step.loss.backward()
    assert close(step.loss.detach(), math.log(2)) and close(step.terms["non_robust"], 1.0)
    expected = torch.tensor([[-0.45, -0.45], [0.45, 0.45]], dtype=torch.float64) * 11 / 16
    assert model.weight.grad is not None and close(model.weight.grad, expected)


def test_what_is_remembered() -> None:
    # As in the first visit above: the perturbation is (1/4, 1/4), and from (3/4, 3/4) the step has length 0, but it is
    # along (-1, 1), the slope of z_1 - z_0.
    cases: list[tuple[dict[str, Any], list[int]]] = [({}, [1, 1]), ({"remember": "gradient"}, [-1, 1])]
    for settings, expected in cases:
        model, method = pixels(eps=0.25, sigma=0.125, **settings)
        method.craft(model, two_pixels((0.5, 0.5)), torch.tensor([0]), at([0], [[[[1.0, 1.0]]]]))
        assert method.history.flatten().tolist() == expected


def test_l2_by_hand() -> None:
    # The random sign (1, -1) has length sqrt 2: x_e = x + (1, -1) / (4 sqrt 2), and noise of deviation (1/8) / sqrt 2,
    # along the same direction, so cut off. Label 1 is wrong there: z_0 - z_1 = sqrt 2 / 4, its gradient has length
    # sqrt 2, so Delta = 1/4, and the step leads on along (1, -1) / sqrt 2, to be cut to the ball again.
    model, method = pixels(eps=0.25, norm="l2", sigma=0.125)
    crafted = method.craft(model, two_pixels((0.5, 0.5)), torch.tensor([1]), at([0], [[[[1.0, -1.0]]]]))
    d = 0.25 / math.sqrt(2)
    assert close(crafted.x_adv, two_pixels((0.5 + d, 0.5 - d)))
    assert method.history.flatten().tolist() == pytest.approx([1 / math.sqrt(2), -1 / math.sqrt(2)], abs=1e-3)
    # without noise, label 0, sign (1, 1/2 cut to 1): from x + (1, 1) / (4 sqrt 2) the boundary is 0 away
    model, method = pixels(eps=0.25, norm="l2", sigma=0)
    x_adv = method.craft(model, two_pixels((0.5, 0.4)), torch.tensor([0]), at([0], [[[[1.0, 1.0]]]])).x_adv
    # z_1 - z_0 = -0.1, gradient of length sqrt 2: (-1, 1) / sqrt 2 by 0.1 / sqrt 2; total square 1/16 + 1/200
    shrink = 0.25 / math.sqrt(1 / 16 + 0.005)
    assert close(x_adv, two_pixels((0.5 + shrink * (d - 0.05), 0.4 + shrink * (d + 0.05))))


def test_which_images_count_as_robust() -> None:
    # eps 0.1, no noise but the sign (1, 1) cut by the box: (1, 0) becomes (1, 0.1), Delta = 0.9 / 2 > eps: robust with
    # label 0, not with label 1, however far that is. (0.5, 0.4) has Delta = 0.05 < eps; (0.5, 0.3) 0.1, not above eps.
    model, method = pixels(4, eps=0.1, sigma=0)
    x, y = two_pixels((1, 0), (1, 0), (0.5, 0.4), (0.5, 0.3)), torch.tensor([0, 1, 0, 0])
    step = method(model, x, y, at([0, 1, 2, 3], [[[[1.0, 1.0]]]] * 4))
    assert close(step.terms["non_robust"], 0.75) and method.counts.tolist() == [1, 4]


# ---- The equations written out.


def shown(values: Tensor, shift: list[int], flip: bool) -> Tensor:
    """One channel of the data set, as the crop shows it: content down and right, then mirrored; NaN beyond."""
    canvas = torch.full((68, 68), math.nan, dtype=torch.float64)
    canvas[20:48, 20:48] = values
    view = canvas[20 - shift[0] : 48 - shift[0], 20 - shift[1] : 48 - shift[1]]
    return view.flip(1) if flip else view


def put_back(view: Tensor, old: Tensor, shift: list[int], flip: bool) -> Tensor:
    """The way back; what the crop did not show stays."""
    seen = torch.full((68, 68), math.nan, dtype=torch.float64)
    seen[20 - shift[0] : 48 - shift[0], 20 - shift[1] : 48 - shift[1]] = view.flip(1) if flip else view
    back = seen[20:48, 20:48]
    return torch.where(back.isnan(), old, back)


def crafted(
    written: Written, x: Tensor, y: int, past: Tensor, noise: Tensor, eps: float, sigma: float, rivals: int
) -> tuple[Tensor, Tensor, bool]:
    """Eq. 11-14 for one image [1, 1, 28, 28], all class gradients one by one: x_adv, the step's sign, if robust."""
    sign = torch.where((past == 0) | past.isnan(), noise.sign(), past.sign())
    kappa = sign * eps + sigma * noise
    start = (x + kappa.clamp(-eps, eps)).clamp(0, 1).requires_grad_()
    z = written.evaluation(start)[0]
    slopes = [torch.autograd.grad(each, start, retain_graph=True)[0] for each in z]
    z = z.detach()
    others = sorted((i for i in range(10) if i != y), key=lambda i: -float(z[i]))[:rivals]
    deltas = {i: float((z[y] - z[i]).abs() / (slopes[y] - slopes[i]).abs().sum()) for i in others}
    nearest = min(deltas, key=lambda i: deltas[i])
    direction = (slopes[nearest] - slopes[y]).sign()
    x_adv = clip(start.detach() + deltas[nearest] * direction, x, eps)
    return x_adv, direction, bool(z.argmax() == y) and deltas[nearest] > eps


@pytest.mark.parametrize(
    ("settings", "rivals", "remember"),
    [
        ({}, 9, "perturbation"),  # as Eq. 12 and 13 are printed
        ({"remember": "gradient"}, 9, "gradient"),
        ({"classes": 1}, 1, "perturbation"),
        ({"classes": 1, "remember": "gradient"}, 1, "gradient"),
    ],
    ids=str,
)
def test_four_visits_equal_the_equations(
    settings: dict[str, Any], rivals: int, remember: str, mnist: tuple[Images, Labels]
) -> None:
    eps, sigma, size = 0.2, 0.1, 8
    images, y, net = mnist[0][:size].double(), mnist[1][:size], pair()[0]
    method = EFGSM(eps=eps, sigma=sigma, smoothing=0.2, **settings)
    method.prepare(net, (1, 28, 28), 10, 30)
    histories = {n: torch.zeros(28, 28, dtype=torch.float64) for n in range(size)}
    optimizer, augment = torch.optim.SGD(net.parameters(), lr=0.05), Augment(pad=3, flip=True)
    for _ in range(4):
        order = torch.randperm(size)
        x, shift, flip = augment(images[order], None)
        noise, written = torch.randn_like(x), Written(net)
        rows = []
        for k, n in enumerate(order.tolist()):
            s, mirrored = shift[k].tolist(), bool(flip[k])
            past = shown(histories[n], s, mirrored)
            row, slope, _ = crafted(written, x[k][None], int(y[n]), past, noise[k], eps, sigma, rivals)
            rows.append(row)
            vote = slope if remember == "gradient" else (row - x[k]).sign()
            histories[n] = put_back(0.95 * past.nan_to_num() + vote[0, 0], histories[n], s, mirrored)
        x_adv = torch.cat(rows)
        given_ = replace(given(noise), index=order + 3, shift=shift, flip=flip)
        method_step = method(net, x, y[order], given_)
        out = written.training(x_adv)
        smooth = 0.8 * F.one_hot(y[order], 10).double() + 0.02
        optimizer.zero_grad()
        same_step(net, method_step.loss, written, (smooth * (out.exp().sum(1, keepdim=True).log() - out)).sum(1).mean())
        optimizer.step()
        kept = torch.stack([histories[n] for n in range(size)])
        assert (method.history[3 : 3 + size, 0].double() - kept).abs().max() < 2e-3  # half precision
        assert torch.equal(method.history[3 : 3 + size, 0].double().sign(), kept.sign())
    assert not method.history[:3].any() and not method.history[3 + size :].any()
    assert 0.02 < float((kept < 0).double().mean()) and kept.abs().max() > 3


def test_the_share_that_looks_robust_equals_the_equations(mnist: tuple[Images, Labels]) -> None:
    (x, y), net, noise = (mnist[0].double(), mnist[1]), Net().train(), torch.randn(64, 1, 28, 28).double().sign()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(15):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    method, past, written = EFGSM(eps=0.01, sigma=0), torch.zeros(28, 28, dtype=torch.float64), Written(net)
    method.prepare(net, (1, 28, 28), 10, len(x))
    robust = [crafted(written, x[k][None], int(y[k]), past, noise[k], 0.01, 0, 9)[2] for k in range(len(x))]
    step = method(net, x, y, replace(given(noise), index=torch.arange(len(x))))
    assert close(step.terms["non_robust"], 1 - sum(robust) / len(x)) and 0 < sum(robust) < len(x)


# ---- What it remembers.


def test_the_history_follows_the_image_through_crop_and_mirroring(mnist: tuple[Images, Labels]) -> None:
    """A model that likes one pixel of the data set's image, shown at another place each time."""
    (x, y), model = (mnist[0][:1] * 0 + 0.5, mnist[1][:1]), net()
    method = EFGSM(eps=0.1, sigma=0)  # no perturbation of a grey image is 0
    method.prepare(model, (1, 28, 28), 10, 5)
    method.history[2, 0, 5, 7] = 3.0
    shift, flip = torch.tensor([[2, -3]]), torch.tensor([True])
    seen = Batch(index=torch.tensor([2]), shift=shift, flip=flip)
    votes = torch.stack([start_along(*_start_of(method, x, seen)) for _ in range(40)]).mean(0)[0, 0] - 0.5
    # row 5 + 2; column 7 - 3 = 4, mirrored to 23; everywhere else the sign is random, so the mean of 40 is well below
    assert abs(float(votes[7, 23]) - 0.1) < 1e-6
    votes[7, 23] = 0
    assert votes.abs().max() < 0.09
    before = method.history.clone()
    method.craft(model, x, y, seen)
    changed = (method.history - before).abs()[2, 0]
    unseen = torch.zeros(28, 28, dtype=torch.bool)
    unseen[26:], unseen[:, :3] = True, True  # rows that moved down out of sight, columns that moved left
    assert torch.equal(changed == 0, unseen) and not (method.history - before)[[0, 1, 3, 4]].any()


def _start_of(method: EFGSM, x: Tensor, seen: Batch) -> tuple[Any, ...]:
    assert method.threat is not None and seen.index is not None
    return method.threat, x, to_view(method.history[seen.index], seen).float(), method.sigma, Noise()


def test_the_history_is_two_bytes_a_pixel_and_travels_in_checkpoints(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    method = prepared("EFGSM", model)
    assert isinstance(method, EFGSM)
    assert method.history.nbytes == 64 * 28 * 28 * 2 and not list(method.parameters())
    train(method, model, x, y, 2)
    restored = prepared("EFGSM", model)
    restored.load_state_dict(method.state_dict())
    assert isinstance(restored, EFGSM)
    assert torch.equal(restored.history, method.history) and method.history.any()
    assert torch.equal(restored.counts, method.counts) and restored.counts[1] == 128


# ---- Early stop.


def test_training_ends_when_the_robust_share_falls_and_not_before() -> None:
    model, method = pixels(2, eps=0.1, sigma=0, stop_drop=0.4)
    noise, y = at([0, 1], [[[[1.0, 1.0]]]] * 2), torch.tensor([0, 0])
    for first, second, stops in (((1, 0), (1, 0), False), ((1, 0), (0.5, 0.5), True)):
        method.craft(model, two_pixels(first, second), y, noise)
        method.after_epoch({})
        assert (method.stop_reason is not None) is stops
    assert method.stop_reason is not None and "from 100.0% to 50.0%" in method.stop_reason
    restored = pixels(2, eps=0.1, sigma=0, stop_drop=0.4)[1]
    extra = json.loads(json.dumps(method.get_extra_state()))
    restored.set_extra_state(extra)
    assert restored.stop_reason == method.stop_reason and restored.last_share == 0.5


def test_a_smaller_fall_or_no_threshold_ends_nothing() -> None:
    noise, y = at([0, 1], [[[[1.0, 1.0]]]] * 2), torch.tensor([0, 0])
    for settings in ({}, {"stop_drop": 0.6}):
        model, method = pixels(2, eps=0.1, sigma=0, **settings)
        for images, share in ((((1, 0), (1, 0)), 1.0), (((1, 0), (0.5, 0.5)), 0.5), (((0.5, 0.5), (0.5, 0.5)), 0.0)):
            method.craft(model, two_pixels(*images), y, noise)
            method.after_epoch({})
            assert method.last_share == share and method.counts.tolist() == [0, 0]
        method.after_epoch({})  # an epoch that another method trained says nothing
        assert method.last_share == 0.0 and method.stop_reason is None


# ---- Settings and bad input.


def test_each_class_costs_one_pass_and_counts_as_a_gradient(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    for classes, tried in ((1, 1), (3, 3), (9, 9), (None, 9)):
        method = prepared("EFGSM", model, classes=classes)
        with PassCounter(model) as passes:
            method(model, x, y, batch(len(x))).loss.backward()
        assert passes.total == (4 + tried) * len(x) and passes.forward == 2 * len(x)
        assert passes.input_gradient == passes.crafted == tried * len(x)  # PAP's gamma is the number of gradients


def test_the_nearest_boundary_is_taken_and_not_that_of_the_highest_rival() -> None:
    # Logits 4 x_0, 4 x_1 + 0.1, x_0 + x_1; label 0, x_e = (0.6, 0.5), so 2.4, 2.1, 1.1. To class 1 it is 0.3 / (4 + 4),
    # to class 2 1.3 / (3 + 1) with the gradient (3, -1): the top rival is the nearer. With 4 x_1 + 0.1 for class 2's
    # gradient 40 times as steep, 40 x_1 - 18.9 = 1.1, it is 1.3 / (4 + 40), so class 2 although its logit is lower.
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 3)).double()
    x, y, noise = two_pixels((0.5, 0.4)), torch.tensor([0]), at([0], [[[[1.0, 1.0]]]])
    linear = model[1]
    assert isinstance(linear, nn.Linear)
    for slope, shift, expected in (((1.0, 1.0), 0.0, 0.3 / 8), ((0.0, 40.0), -18.9, 1.3 / 44)):
        linear.weight.data = torch.tensor([[4.0, 0.0], [0.0, 4.0], slope], dtype=torch.float64)
        linear.bias.data = torch.tensor([0.0, 0.1, shift], dtype=torch.float64)
        for settings, length in (({}, expected), ({"classes": 1}, 0.3 / 8)):
            method = EFGSM(eps=0.1, sigma=0, **settings)  # type: ignore[arg-type]
            method.prepare(model, (1, 1, 2), 3, 1)
            x_adv = method.craft(model, x, y, noise).x_adv  # from x_e the step goes along (-, +), within the ball
            assert close(x_adv, two_pixels((0.6 - length, 0.5)))  # x_0 falls, x_1 would leave the ball


def test_a_model_without_a_slope_moves_nothing_further(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    nn.init.zeros_(model[1].weight)  # type: ignore[arg-type]
    method = EFGSM(eps=0.1)
    method.prepare(model, (1, 28, 28), 10, 64)
    step = method(model, x, y, batch(64))
    assert step.loss.isfinite() and method.history.isfinite().all()


def test_no_index_and_no_number_of_images_are_refused(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, net()
    with pytest.raises(ValueError, match="prepare with images"):
        EFGSM(eps=0.1)(model, x, y, batch(64))
    method = prepared("EFGSM", model)
    for known in (None, Batch()):
        with pytest.raises(ValueError, match=r"Batch\(index="):
            method(model, x, y, known)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": -0.1}, "sigma .* at least 0"),
        ({"smoothing": 1.0}, "smoothing .* below 1"),
        ({"smoothing": -0.1}, "smoothing .* below 1"),
        ({"classes": 0}, "classes .* at least 1"),
        ({"stop_drop": 0}, "stop_drop .* above 0"),
        ({"stop_drop": 14.7}, "stop_drop .* at most 1"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EFGSM(eps=0.1, **settings)


def test_more_classes_than_the_data_has_are_refused() -> None:
    with pytest.raises(ValueError, match="classes 10 must be below the data's 10"):
        EFGSM(eps=0.1, classes=10).prepare(net(), (1, 28, 28), 10, 64)

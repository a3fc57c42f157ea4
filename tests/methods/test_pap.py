"""PAP against numbers worked out by hand and against Algorithm 1 written out."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from contract import net as contract_net
from literal import (
    Net,
    Pixels,
    Written,
    clip,
    close,
    cross_entropy,
    kl,
    pair,
    same_step,
    sign_of_slope,
    two_pixels,
)
from torch import Tensor

from toughen import models
from toughen.core.cost import PassCounter
from toughen.core.rng import Noise, StepNoise
from toughen.core.types import Batch, Crafted, Images, Labels, Norm, Step
from toughen.methods.fast import FGSMAT
from toughen.methods.pap import PAP

E = 0.3  # where FGSM and I-FGSM part
SHAPE = (1, 28, 28)


class Drawn(Noise):
    """Uniform numbers that put ``rows`` first, and the given normal ones."""

    def __init__(self, rows: list[int], normal: Tensor | None = None) -> None:
        self.rows, self.drawn = rows, normal

    def uniform(self, like: Tensor) -> Tensor:
        assert like.ndim == 1
        scores = torch.linspace(0, 1, len(like), dtype=like.dtype)
        scores[self.rows] = torch.arange(-len(self.rows), 0, dtype=like.dtype)
        return scores

    def normal(self, like: Tensor) -> Tensor:
        assert self.drawn is not None
        return self.drawn.clone()


def drawn(*rows: int, normal: Tensor | None = None) -> Batch:
    return Batch(noise=Drawn(list(rows), normal))


def prepared(model: torch.nn.Module, **settings: Any) -> PAP:
    method = PAP(**{"eps": E, **settings})
    method.prepare(model, SHAPE, 10)
    return method


def images_of(method: PAP, model: torch.nn.Module, x: Tensor, y: Tensor, batch: Batch | None = None) -> list[Tensor]:
    """x_b*, x_reg* and the iterate."""
    crafted = method.craft(model, x, y, batch)
    single, iterated = crafted.extra["sets"].chunk(2)
    return [crafted.x_adv, single, iterated]


# ---- By hand: the logits are the two pixels, or the pixels swapped.


def test_two_batches_by_hand() -> None:
    # Two images a batch, one is set aside: x_reg = (1/2, 1/2), label 0, N = 2, eps = 1/4. With weights I all slopes
    # are (-, +): x_reg* = x^1 = x_reg + (-1/8, 1/8), so nothing to regularise. Then the weights swap the pixels and
    # slopes are (+, -): x_b* = x_reg* = (3/4, 1/4), but x^2 = x^1 + (1/8, -1/8) = (1/2, 1/2).
    model, x, y = Pixels(), two_pixels((0.5, 0.5), (0.5, 0.5)), torch.tensor([0, 0])
    method = PAP(eps=0.25, steps=2, share=0.5, lam=3)
    method.prepare(model, (1, 1, 2), 2)
    found = images_of(copy.deepcopy(method), model, x, y, drawn(1))
    assert close(found[1], two_pixels((0.375, 0.625))) and close(found[2], two_pixels((0.375, 0.625)))
    step = method(model, x, y, drawn(1))
    q = math.exp(0.5) / (1 + math.exp(0.5))  # at logits (1/4, 3/4)
    assert close(step.loss.detach(), math.log(1 + math.exp(0.5))) and step.terms["squared_distance"] == 0

    with torch.no_grad():
        model.weight.copy_(model.weight.flip(0))
    step = method(model, x, y, drawn(0))
    step.loss.backward()
    # logits (1/4, 3/4) against (1/2, 1/2): 1/16 + 1/16
    assert close(step.terms["squared_distance"], 1 / 8) and close(step.terms["robust"], math.log(1 + math.exp(0.5)))
    assert close(step.loss.detach(), math.log(1 + math.exp(0.5)) + 3 / 8)
    # slopes: (-q, q)^T x_b*, and 2 lam (-1/4, 1/4)^T (x_reg* - x^2)
    natural = torch.tensor([[-q * 0.75, -q * 0.25], [q * 0.75, q * 0.25]], dtype=torch.float64)
    drawn_together = 2 * 3 * torch.tensor([[-1 / 16, 1 / 16], [1 / 16, -1 / 16]], dtype=torch.float64)
    assert model.weight.grad is not None and close(model.weight.grad, natural + drawn_together)


# ---- Algorithm 1 written out.


def climb(written: Written, at: Tensor, y: Tensor) -> Tensor:
    return sign_of_slope(lambda z: cross_entropy(written.evaluation(z), y), at)


class Algorithm:
    """Lines 6 to 16, images cut to the ball and to [0, 1]; the regulariser's sets go forward with the batch."""

    def __init__(self, steps: int, lam: float, *, over: str = "fgsm", eta: float = 1.0, ablation: bool = False) -> None:
        self.steps, self.lam, self.over, self.eta, self.ablation, self.iteration = steps, lam, over, eta, ablation, 0

    def __call__(
        self, w: Written, x: Tensor, y: Tensor, rows: list[int], normal: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        i = self.iteration % self.steps + 1
        if i == 1:
            self.x_reg, self.y_reg, self.iterate = x[rows].clone(), y[rows].clone(), x[rows].clone()
        single = clip(self.x_reg + E * i / self.steps * climb(w, self.x_reg, self.y_reg), self.x_reg, E)
        self.iterate = clip(self.iterate + E / self.steps * climb(w, self.iterate, self.y_reg), self.x_reg, E)
        self.iteration += 1
        if self.over == "trades":
            target = w.evaluation(x).detach()
            x_adv = clip(x + E * sign_of_slope(lambda z: kl(target, w.evaluation(z)), x + 0.001 * normal), x, E)
            clean = w.training(x)
        else:
            x_adv = clip(x + E * climb(w, x, y), x, E)
        out = w.training(torch.cat([x_adv, single, self.iterate]))
        m, n = len(x), len(rows)
        distance = ((out[m : m + n] - out[m + n :]) ** 2).sum(1).mean()
        if self.ablation:
            loss = cross_entropy(out, torch.cat([y, self.y_reg, self.y_reg]))
        elif self.over == "trades":
            loss = cross_entropy(clean, y) + self.eta * kl(clean, out[:m]) + self.lam * distance
        else:
            loss = cross_entropy(out[:m], y) + self.lam * distance
        return [x_adv, single, self.iterate], loss


def steep_pair() -> tuple[Net, Written]:
    """Logits far apart, so that the slope changes along the way."""
    net, _ = pair()
    with torch.no_grad():
        net.linear.weight *= 12
    return net, Written(net)


def descend(net: Net, written: Written) -> None:
    """A step of gradient descent for both."""
    with torch.no_grad():
        for name, weight in net.named_parameters():
            assert weight.grad is not None
            weight.sub_(weight.grad, alpha=1e-4)
            written.weights[name].copy_(weight)
    net.zero_grad()


@pytest.mark.parametrize(
    ("settings", "written_as"),
    [
        ({"lam": 40.0}, {"lam": 40.0}),
        ({"over": "trades", "lam": 40.0, "eta": 2.5}, {"over": "trades", "lam": 40.0, "eta": 2.5}),
        ({"ablation": True}, {"lam": 0.0, "ablation": True}),
        ({"ablation": True, "lam": 0}, {"lam": 0.0, "ablation": True}),
    ],
    ids=["fgsm", "trades", "ablation", "ablation-0"],
)
def test_a_cycle_and_a_half_equals_the_algorithm(
    settings: dict[str, Any], written_as: dict[str, Any], mnist: tuple[Images, Labels]
) -> None:
    (net, written), (x, y) = steep_pair(), (mnist[0].double(), mnist[1])
    method, algorithm = prepared(net, steps=4, share=0.2, **settings), Algorithm(4, **written_as)
    distances = []
    for number in range(6):
        order = torch.randperm(64)[:20]
        images, labels, normal = x[order], y[order], torch.randn(20, 1, 28, 28, dtype=torch.float64)
        rows = torch.randperm(20)[:4].tolist()
        x_sets, loss = algorithm(written, images, labels, rows, normal)
        batch = drawn(*rows, normal=normal)
        found = images_of(copy.deepcopy(method), copy.deepcopy(net), images, labels, batch)
        assert all(close(a, b) for a, b in zip(found, x_sets, strict=True)), number
        step = method(net, images, labels, batch)
        assert step.logits.shape == (20, 10)
        same_step(net, step.loss, written, loss)
        distances.append(float(step.terms["squared_distance"]))
        descend(net, written)
    assert distances[0] == distances[4] == 0 and min(distances[1:4]) > 1e-3  # so that the regulariser was seen


@pytest.mark.parametrize("over", ["fgsm", "trades"])
def test_the_naive_schedule_runs_all_steps_in_each_batch(over: Any, mnist: tuple[Images, Labels]) -> None:
    (net, written), (x, y) = steep_pair(), (mnist[0].double(), mnist[1])
    method = prepared(net, steps=6, share=0.2, lam=40, over=over, eta=2.5, schedule="naive")
    for number in range(2):
        images, labels, rows = x[number::3][:20], y[number::3][:20], [5, 0, 9, 2 + number]
        normal = torch.randn(20, 1, 28, 28, dtype=torch.float64)
        algorithm = Algorithm(6, 40, over=over, eta=2.5)
        for _ in range(6):  # with the same weights; only the last of the losses counts
            before = written.mean, written.var
            x_sets, loss = algorithm(written, images, labels, rows, normal)
            after = written.mean, written.var
            written.mean, written.var = before
        written.mean, written.var = after
        batch = drawn(*rows, normal=normal)
        found = images_of(method, copy.deepcopy(net), images, labels, batch)
        assert all(close(a, b) for a, b in zip(found, x_sets, strict=True))
        step = method(net, images, labels, batch)
        same_step(net, step.loss, written, loss)
        assert step.terms["squared_distance"] > 1e-3
        descend(net, written)
    assert method.replays == 1


@pytest.mark.parametrize("over", ["fgsm", "trades"])
def test_replay_is_the_algorithm_on_the_same_batch(over: Any, mnist: tuple[Images, Labels]) -> None:
    (net, written), (x, y) = steep_pair(), (mnist[0].double(), mnist[1])
    method = prepared(net, steps=3, share=0.2, lam=40, over=over, eta=2.5, schedule="replay")
    algorithm = Algorithm(3, 40, over=over, eta=2.5)
    assert method.replays == 3
    for number in range(2):
        images, labels = x[number::3][:20], y[number::3][:20]
        for rows in ([5, 0, 9, 2 + number], [1, 2, 3, 4], [7, 8, 9, 10]):  # only the first choice counts
            normal = torch.randn(20, 1, 28, 28, dtype=torch.float64)
            _, loss = algorithm(written, images, labels, rows, normal)
            step = method(net, images, labels, drawn(*rows, normal=normal))
            same_step(net, step.loss, written, loss)
            descend(net, written)


def test_replay_in_a_loop_that_does_not_replay_is_the_pipeline(mnist: tuple[Images, Labels]) -> None:
    (x, y), net = (mnist[0].double(), mnist[1]), Net()
    one, two = (prepared(net, steps=3, schedule=schedule) for schedule in ("replay", "pipeline"))
    for number in range(4):
        size = 30 if number != 1 else 3  # rows of the first batch that the second doesn't have
        images, labels = x[number::2][:size], y[number::2][:size]
        found = [images_of(method, net, images, labels, drawn(29 % size, 1)) for method in (one, two)]
        assert all(close(a, b) for a, b in zip(*found, strict=True))


# ---- Dropout: Eq. 7 compares one net's logits, so both images go through it with one mask.


class Dropping(Net):
    """``Net`` with dropout before its linear layer."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.dropout(F.relu(self.norm(self.convolution(x))).flatten(1), 0.5, self.training)
        out: Tensor = self.linear(hidden)
        return out


def masks_of(over: str, seed: int) -> list[Tensor]:
    """What hidden units are multiplied by: over TRADES in the clean pass, then in that of 20 images and two times 4."""
    torch.manual_seed(seed)
    found = [F.dropout(torch.ones(n, 256, dtype=torch.float64)) for n in (20, 24)[over == "fgsm" :]]
    return [*found[:-1], torch.cat([found[-1], found[-1][20:]])]


@pytest.mark.parametrize("over", ["fgsm", "trades"])
def test_with_dropout_a_cycle_equals_the_algorithm(over: Any, mnist: tuple[Images, Labels]) -> None:
    net, (x, y) = Dropping().train(), (mnist[0].double(), mnist[1])
    with torch.no_grad():
        net.linear.weight *= 12
    written, method = Written(net), prepared(net, steps=3, share=0.2, lam=40, eta=2.5, over=over)
    algorithm, distances = Algorithm(3, 40.0, over=over, eta=2.5), []
    for number in range(5):
        images, labels = x[number::3][:20], y[number::3][:20]
        normal, rows = torch.randn(20, 1, 28, 28, dtype=torch.float64), [5, 0, 9, 10 + number]
        written.masks = masks_of(over, number)
        _, loss = algorithm(written, images, labels, rows, normal)
        assert not written.masks
        torch.manual_seed(number)
        step = method(net, images, labels, drawn(*rows, normal=normal))
        same_step(net, step.loss, written, loss)
        distances.append(float(step.terms["squared_distance"]))
        descend(net, written)
    assert distances[0] == distances[3] == 0 and min(distances[1:3]) > 1e-3


def test_on_the_papers_net_equal_images_have_equal_logits(mnist: tuple[Images, Labels]) -> None:
    """SmallCNN drops half of its hidden units; its last layer is zero at first, so it is drawn here."""
    net, (x, y) = models.create("small-cnn", 10, SHAPE).train(), mnist
    (last,) = (layer for layer in net.modules() if isinstance(layer, torch.nn.Linear) and layer.out_features == 10)
    torch.nn.init.normal_(last.weight)
    method = prepared(net, steps=3)
    distances = [float(method(net, x, y).terms["squared_distance"]) for _ in range(4)]
    assert distances[0] == distances[3] == 0 and min(distances[1:3]) > 0
    assert not torch.equal(net(x), net(x))  # it does drop


# ---- Cost.


def crafted_and_passes(method: PAP, x: Images, y: Labels, steps: int) -> tuple[float, float]:
    """Gradients spent on crafting, and all passes, for each clean image."""
    model = contract_net()
    method.prepare(model, SHAPE, 10)
    with PassCounter(model) as passes:
        for step in range(steps):
            method(model, x, y, Batch(noise=StepNoise(0, step))).loss.backward()
    return passes.crafted / len(x), passes.total / len(x)


@pytest.mark.parametrize(
    ("settings", "steps", "gamma", "total"),
    [
        ({}, 1, 1.2, 6.0),
        ({}, 10, 12.0, 60.0),  # ten batches: in every one of a cycle
        ({"over": "trades"}, 1, 1.2, 10.0),
        ({"lam": 0}, 1, 1.0, 5.0),
        ({"lam": 0, "over": "trades"}, 1, 1.0, 9.0),
        ({"ablation": True}, 1, 1.2, 6.0),
        ({"share": 0.5, "steps": 3}, 3, 6.0, 30.0),
        # Sec. 3.1: 1 + N where the regulariser sees all of the batch
        ({"schedule": "naive"}, 1, 2.0, 7.6),
        ({"schedule": "naive", "share": 1, "steps": 7}, 1, 8.0, 25.0),
        ({"schedule": "naive", "over": "trades"}, 1, 2.1, 11.8),
        # Sec. 3.2: 2 N for the N replays of a batch
        ({"schedule": "replay"}, 10, 11.0, 58.0),
        ({"schedule": "replay", "share": 1, "steps": 7}, 7, 14.0, 91.0),
        ({"schedule": "replay", "over": "trades"}, 10, 12.0, 100.0),
    ],
    ids=str,
)
def test_gamma_is_the_papers(
    settings: dict[str, Any], steps: int, gamma: float, total: float, mnist: tuple[Images, Labels]
) -> None:
    x, y = mnist[0][:60], mnist[1][:60]
    assert crafted_and_passes(PAP(eps=E, **settings), x, y, steps) == pytest.approx((gamma, total))


# ---- The images set aside.


def test_the_images_set_aside_are_a_copy_and_of_no_later_batch(mnist: tuple[Images, Labels]) -> None:
    (x, y), net = mnist, contract_net()
    method = prepared(net, steps=3)
    images = x[:30].clone()
    method.craft(net, images, y[:30], drawn(4, 7, 1))
    images.zero_()  # a loader may use its memory again
    for number in range(2):
        assert torch.equal(method.x_reg, x[[4, 7, 1]]) and torch.equal(method.y_reg, y[[4, 7, 1]])
        method.craft(net, x[30:60], y[30:60], drawn(2, 3, 5 + number))
    method.craft(net, x[30:60], y[30:60], drawn(2, 3, 9))
    assert torch.equal(method.x_reg, x[[32, 33, 39]]) and torch.equal(method.y_reg, y[[32, 33, 39]])


def test_they_are_chosen_at_random(mnist: tuple[Images, Labels]) -> None:
    (x, y), net = mnist, contract_net()
    counts = torch.zeros(64)
    for seed in range(400):
        method = prepared(net)
        method.craft(net, x[:, :, ::7, ::7].repeat(1, 1, 7, 7), y, Batch(noise=StepNoise(seed, 0)))
        assert len(method.rows.unique()) == 6
        counts[method.rows] += 1
    assert counts.min() >= 15 and counts.max() <= 65  # 37.5 on average, deviation 5.8


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 1.5)])
def test_they_stay_within_the_threat_in_every_step(norm: Norm, eps: float, mnist: tuple[Images, Labels]) -> None:
    (x, y), net = mnist, contract_net()
    method = prepared(net, eps=eps, norm=norm, steps=5)
    for i in range(1, 6):
        _, single, iterated = images_of(method, net, x, y)
        for sets in (single, iterated):
            delta = (sets - method.x_reg).flatten(1)
            length = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
            assert (length <= i / 5 * eps * (1 + 1e-5)).all()
            assert sets.min() >= 0 and sets.max() <= 1
        assert norm == "l2" or length.max().item() == pytest.approx(i / 5 * eps)


def test_a_batch_of_another_size_does_no_harm(mnist: tuple[Images, Labels]) -> None:
    (x, y), net = mnist, contract_net()
    method, held = prepared(net, steps=3), []
    for size in (40, 8, 20, 8, 40, 20, 20, 8, 40):
        before = method.x_reg.clone()
        images = images_of(method, net, x[:size], y[:size], drawn(*range(size // 10)))
        assert images[0].shape[0] == size and images[1].shape == images[2].shape == method.x_reg.shape
        held.append((len(method.x_reg), torch.equal(before, method.x_reg)))
    kept = [(4, False), (4, True), (4, True)]  # 40: 4 images; the others in mid-cycle change nothing
    kept += [(4, True), (4, True), (4, True)]  # a cycle that begins with 8, where a tenth is no image, has the last 4
    kept += [(2, False), (2, True), (2, True)]  # and one that begins with 20 has 2
    assert held == kept


def test_a_cycle_without_new_images_starts_afresh(mnist: tuple[Images, Labels]) -> None:
    (x, y), net = mnist, contract_net()
    method = prepared(net, steps=2)
    first = images_of(method, net, x[:40], y[:40], drawn(0, 1, 2, 3))
    method.craft(net, x[:40], y[:40])
    again = images_of(method, net, x[:8], y[:8])
    assert torch.equal(first[1], again[1]) and torch.equal(first[2], again[2]) and torch.equal(again[1], again[2])


def test_state_survives_in_the_middle_of_a_cycle_after_a_short_batch(mnist: tuple[Images, Labels]) -> None:
    (x, y), net = mnist, contract_net()
    for schedule in ("pipeline", "replay"):
        method, sizes = prepared(net, steps=4, schedule=schedule), (64, 64, 10, 64, 30, 64, 10, 64, 64)
        for place, size in enumerate(sizes):
            saved = {key: value.clone() for key, value in method.state_dict().items()}
            restored = prepared(net, steps=4, schedule=schedule)
            restored.load_state_dict(saved)
            found = [
                images_of(each, net, x[:size], y[:size], Batch(noise=StepNoise(3, place)))
                for each in (method, restored)
            ]
            assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
            state = restored.state_dict()
            assert all(torch.equal(value, state[key]) for key, value in method.state_dict().items())
        assert json.dumps(sorted(state)) == '["iterate", "rows", "stage", "x_reg", "y_reg"]'


def test_the_loss_can_be_taken_twice(mnist: tuple[Images, Labels]) -> None:
    (x, y), net = mnist, contract_net()
    method = prepared(net, steps=3, lam=50)
    method.craft(net, x, y)
    crafted = method.craft(net, x, y)
    state, losses = {key: value.clone() for key, value in method.state_dict().items()}, []
    for _ in range(2):
        losses.append(method.loss(copy.deepcopy(net), x, y, crafted).loss)
        assert all(torch.equal(value, state[key]) for key, value in method.state_dict().items())
        method.craft(net, x, y)  # what was crafted before is not what the method goes on with
        state = {key: value.clone() for key, value in method.state_dict().items()}
    assert torch.equal(*losses)


# ---- Settings.


def test_lam_weighs_the_regulariser(mnist: tuple[Images, Labels]) -> None:
    (x, y), net = mnist, contract_net()
    steps: list[Step] = []
    for lam in (1, 3):
        method = prepared(net, eps=0.3, lam=lam, schedule="naive")
        steps.append(method(copy.deepcopy(net), x, y, Batch(noise=StepNoise(0, 0))))
    one, three = (step.terms["squared_distance"] for step in steps)
    assert one == three > 1e-3
    assert (steps[1].loss - steps[0].loss).item() == pytest.approx(2 * one.item(), rel=1e-3)


def test_without_lam_it_is_fgsm_training(mnist: tuple[Images, Labels]) -> None:
    (x, y), net = mnist, contract_net()
    twin = copy.deepcopy(net)
    for _ in range(2):
        step, other = prepared(net, lam=0)(net, x, y), FGSMAT(eps=E)(twin, x, y)
        assert torch.equal(step.loss, other.loss) and set(step.terms) == {"robust"}
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), twin.state_dict().values(), strict=True))


def test_over_trades_the_clean_loss_is_reported(mnist: tuple[Images, Labels]) -> None:
    (x, y), net = mnist, contract_net()
    for over, terms in (("fgsm", {"robust", "squared_distance"}), ("trades", {"clean", "robust", "squared_distance"})):
        method = prepared(net, over=over)
        step = method(net, x, y)
        assert set(step.terms) == terms and method.reports_clean is ("clean" in terms)
    twin = copy.deepcopy(net)
    step = method(net, x, y)
    out = twin(x)
    assert torch.equal(step.logits, out) and step.terms["clean"] == torch.nn.functional.cross_entropy(out, y)


@pytest.mark.parametrize("schedule", ["pipeline", "naive", "replay"])
def test_a_batch_too_small_for_its_share_is_refused(schedule: Any, mnist: tuple[Images, Labels]) -> None:
    (x, y), net = mnist, contract_net()
    for share, size, wanted in ((0.1, 9, 10), (0.1, 6, 10), (0.3, 3, 4)):
        method = prepared(net, share=share, schedule=schedule)
        with pytest.raises(ValueError, match=rf"share {share} .* one image of {size}: use batches of {wanted} or more"):
            method(net, x[:size], y[:size])
        assert len(images_of(method, net, x[:wanted], y[:wanted])[1]) == 1
    assert method.craft(net, x[:3], y[:3]).x_adv.shape[0] == 3  # an epoch's last batch, after larger ones
    prepared(net, lam=0)(net, x[:2], y[:2])  # nothing is regularised


def test_a_tenth_of_ten_is_one() -> None:
    x, y = torch.rand(10, 1, 28, 28), torch.zeros(10, dtype=torch.int64)
    for size in (10, 20, 30, 60, 70):  # 0.1 * 3 is not 0.3
        method = prepared(contract_net())
        method.craft(contract_net(), x.repeat(7, 1, 1, 1)[:size], y.repeat(7)[:size])
        assert len(method.x_reg) == size // 10


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lam": -1}, r"lam \(-1\) .* at least 0"),
        ({"lam": math.nan}, r"lam \(nan\) .* finite"),
        ({"eta": -0.5}, r"eta \(-0.5\) .* at least 0"),
        ({"eta": math.inf}, r"eta \(inf\) .* finite"),
        ({"steps": 1}, r"steps \(1\) must be at least 2"),
        ({"share": 0}, "share 0 must be above 0"),
        ({"share": 1.5}, "share 1.5 .* at most 1"),
        ({"share": math.nan}, "share nan"),
        ({"ablation": True, "over": "trades"}, 'use over="fgsm"'),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PAP(eps=E, **settings)


def test_both_sides_of_the_regulariser_get_gradient(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist[0][:20].double(), mnist[1][:20]
    net = Net().train()
    sets = torch.cat([clip(x[:2] + E, x[:2], E), clip(x[:2] - E, x[:2], E)])
    crafted = Crafted(x_adv=x, extra={"sets": sets, "y_reg": y[:2]})
    slopes = {}
    for side in ("both", "single", "iterated"):
        written = Written(net)
        single, iterated = written.training(torch.cat([x, sets]))[20:].chunk(2)
        single = single.detach() if side == "iterated" else single
        iterated = iterated.detach() if side == "single" else iterated
        distance = ((single - iterated) ** 2).sum(1).mean()
        (slopes[side],) = torch.autograd.grad(distance, written.weights["norm.weight"])
    one, two = (PAP(eps=E, lam=lam).loss(net, x, y, crafted).loss for lam in (1, 2))
    (found,) = torch.autograd.grad(two - one, net.norm.weight)
    assert close(found, slopes["both"]) and close(slopes["single"] + slopes["iterated"], slopes["both"])
    assert min(slope.abs().max() for slope in slopes.values()) > 1e-3

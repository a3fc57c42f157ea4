"""PGD-R and PGD-LL against torchattacks, and against PGD where two classes leave only one target."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
import torchattacks
from problems import Whole, trained_net
from torch import Tensor, nn

from toughen.attacks import PGD, PGDLL, PGDR
from toughen.core.cost import PassCounter
from toughen.core.objectives import TowardsClass
from toughen.core.rng import ImageNoise, Noise, StepNoise
from toughen.core.types import Images, Labels
from toughen.engine.fixed_batch import FixedBatchModel


@pytest.fixture
def digits(mnist: tuple[Images, Labels]) -> tuple[nn.Module, Images, Labels]:
    return trained_net(torch.float64).eval(), mnist[0].double(), mnist[1]


class Drawn(Noise):
    """Uniform draws that the test gives, one per image."""

    def __init__(self, draws: Tensor) -> None:
        self.draws = draws

    def uniform(self, like: Tensor) -> Tensor:
        return self.draws.view(-1, 1, 1, 1).to(like).expand_as(like).clone()


def test_the_objective() -> None:
    """p = softmax of logs of 1/2, 1/4, 1/4: log p of the chosen class; the true one says what is misclassified."""
    logits, y = torch.tensor([[0.5, 0.25, 0.25]] * 2).double().log(), torch.tensor([0, 2])
    towards = TowardsClass(torch.tensor([1, 0]))
    torch.testing.assert_close(towards(logits, y), torch.tensor([0.25, 0.5]).double().log())
    torch.testing.assert_close(towards.select(torch.tensor([1]))(logits[:1], y[:1]), torch.tensor([0.5]).double().log())
    assert towards.fooled(logits, y).tolist() == [False, True]


def test_pgd_ll_agrees_with_torchattacks(digits: Any) -> None:
    """Labels are partly wrong here, so that the least likely class is sometimes the label, never the target."""
    model, x, y = digits
    y = torch.where(torch.arange(64) % 4 == 0, model(x).argmin(1), y)
    theirs = torchattacks.PGD(model, eps=0.2, alpha=0.02, steps=12, random_start=False)
    theirs.set_mode_targeted_least_likely(quiet=True)
    ours = PGDLL(eps=0.2, step_size=0.02, steps=12, start="none", stop_early=False)
    torch.testing.assert_close(ours(model, x, y), theirs(x, y), rtol=0, atol=1e-9)


def test_pgd_r_agrees_with_torchattacks(digits: Any) -> None:
    model, x, y = digits
    others = torch.tensor([[k for k in range(10) if k != label] for label in y.tolist()])
    chosen = torch.arange(64) % 9
    wanted = others[torch.arange(64), chosen]
    theirs = torchattacks.PGD(model, eps=0.2, alpha=0.02, steps=12, random_start=False)
    theirs.set_mode_targeted_by_function(lambda images, labels: wanted, quiet=True)
    ours = PGDR(eps=0.2, step_size=0.02, steps=12, start="none", stop_early=False)
    for within in (0.001, 0.999):  # from the beginning to the end of a ninth of [-1, 1)
        found = ours(model, x, y, Drawn((chosen + within) * 2 / 9 - 1))
        torch.testing.assert_close(found, theirs(x, y), rtol=0, atol=1e-9)


def test_random_classes_are_evenly_spread() -> None:
    n, y = 9000, torch.full((9000,), 3)
    model = Whole(lambda x: x.flatten(1).expand(len(x), 10))
    x = torch.zeros(n, 1, 1, 1)
    drawn = PGDR(eps=0.1)._classes(model, x, y, StepNoise(0, 0))
    counts = Counter(drawn.tolist())
    assert set(counts) == set(range(10)) - {3}
    assert all(abs(count - 1000) < 5 * 30 for count in counts.values())  # a deviation is about 30
    ends = PGDR(eps=0.1)._classes(model, x[:2], torch.tensor([9, 0]), Drawn(torch.tensor([-1.0, 1.0 - 2**-24])))
    assert ends.tolist() == [0, 9]


@pytest.mark.parametrize("kind", [PGDR, PGDLL])
def test_two_classes_leave_one_target(kind: Any, digits: Any) -> None:
    """With two classes log p_t rises where -log p_y does, so the images are those of plain PGD."""
    model, x, _ = digits
    two = Whole(lambda x: model(x)[:, :2])
    y = two(x).argmax(1)
    start = x + 0.05 * StepNoise(0, 0).uniform(x)
    for early in (False, True):
        expected = PGD(eps=0.1, steps=10, start=start, stop_early=early)(two, x, y)
        found = kind(eps=0.1, steps=10, start=start, stop_early=early)(two, x, y)
        assert (found - expected).abs().max() < 1e-9


@pytest.mark.parametrize("kind", [PGDR, PGDLL])
def test_any_other_prediction_ends_it(kind: Any, digits: Any) -> None:
    model, x, y = digits
    noise = ImageNoise(0, "R", list(range(64)))
    with PassCounter(model) as passes:
        x_adv = kind(eps=0.3, steps=40)(model, x, y, noise)
    towards = kind(eps=0.3, steps=40, stop_early=False)(model, x, y, noise)
    wrong = model(x_adv).argmax(1) != y
    assert wrong.double().mean() > 0.9 and passes.forward < 64 * 30
    assert (model(x_adv).argmax(1) != model(towards).argmax(1)).double().mean() > 0.2  # on the way to another class


@pytest.mark.parametrize("kind", [PGDR, PGDLL])
def test_cost_of_images_that_stand(kind: Any, digits: Any) -> None:
    model, x, _ = digits
    y = model(x[:4]).argmax(1)
    with PassCounter(model) as passes:
        kind(eps=0)(model, x[:4], y)
    assert (passes.forward, passes.input_gradient) == (400 + (1 if kind is PGDR else 4), 400)


@pytest.mark.parametrize("kind", [PGDR, PGDLL])
def test_in_blocks(kind: Any, digits: Any) -> None:
    model, x, y = digits
    noise, attack = ImageNoise(0, "R", list(range(64))), kind(eps=0.06, steps=8)
    expected = attack(model, x, y, noise)
    assert (attack(FixedBatchModel(model, 7, "fp64"), x, y, noise) - expected).abs().max() < 1e-9
    assert 0.1 < (model(expected).argmax(1) != y).double().mean() < 0.9


@pytest.mark.parametrize("kind", [PGDR, PGDLL])
def test_settings_out_of_range_are_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"steps \(0\) must be at least 1"):
        kind(eps=0.1, steps=0)
    with pytest.raises(ValueError, match="step_size -1 must be a finite number"):
        kind(eps=0.1, step_size=-1)

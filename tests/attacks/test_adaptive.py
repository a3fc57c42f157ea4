"""The adaptive attack against the methods' own attacks, and against the coupled loop written out."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from contract import build, every_method
from literal import Net, cross_entropy, kl, nuclear, sign_of_slope
from problems import trained_net, unchanged, within
from torch import Tensor, nn

from toughen.attacks import PGD, Adaptive
from toughen.core.cost import PassCounter
from toughen.core.rng import ImageNoise, StepNoise
from toughen.core.types import Batch, Images, Labels
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.methods import AWP, GAT, PAP, PGDAT, TRADES, Delayed, Ensemble, Hybrid, Method, NuAT, NuAT2

EPS = 0.1


@pytest.fixture
def digits(mnist: tuple[Images, Labels]) -> tuple[nn.Module, Images, Labels]:
    return trained_net(torch.float64).eval(), mnist[0][::2].double(), mnist[1][::2]


def from_json(method: Method, **settings: Any) -> Adaptive:
    """What an evaluation makes of a run's record."""
    return Adaptive(eps=EPS, **json.loads(json.dumps(method.adaptive)), **settings)


# ---- what a method says of itself


def distance(z: Tensor, clean: Tensor) -> Tensor:
    p, q = (each.exp() / each.exp().sum(1, keepdim=True) for each in (z, clean))
    return ((p - q) ** 2).sum(1).mean()


@pytest.mark.parametrize(
    ("method", "written"),
    [
        (NuAT(eps=EPS, lam=3), lambda z, clean, y: cross_entropy(z, y) + 3 / 12 * nuclear(z - clean)),
        (NuAT(eps=EPS, lam=3, divisor=64), lambda z, clean, y: cross_entropy(z, y) + 3 / 64 * nuclear(z - clean)),
        (NuAT2(eps=EPS, lam=3, divisor=64), lambda z, clean, y: cross_entropy(z, y) + 3 / 12 * nuclear(z - clean)),
        (GAT(eps=EPS, lam=5, jump=4), lambda z, clean, y: cross_entropy(z, y) + 20 * distance(z, clean)),
        (GAT(eps=EPS, lam=5, jump_at=None), lambda z, clean, y: cross_entropy(z, y) + 5 * distance(z, clean)),
        (TRADES(eps=EPS, beta=2), lambda z, clean, y: kl(clean, z)),
        (PAP(eps=EPS, over="trades"), lambda z, clean, y: kl(clean, z)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Method) else "",
)
def test_the_objective_is_the_methods(method: Any, written: Any) -> None:
    """Value and slope, against plain arithmetic and, where the method can be asked, against its own objective."""
    clean = 2 * torch.randn(12, 10, dtype=torch.float64)
    z, y = (clean + torch.randn_like(clean)).requires_grad_(), torch.arange(12) % 10
    found, expected = from_json(method).objective(clean)(z, y).mean(), written(z, clean, y)
    slopes = [torch.autograd.grad(each, z)[0] for each in (found, expected)]
    assert (found - expected).abs() < 1e-9 and (slopes[0] - slopes[1]).abs().max() < 1e-9
    assert slopes[1].abs().max() > 1e-4
    if isinstance(method, (NuAT, GAT)) and not isinstance(method, NuAT2):
        method.iteration = 1  # the second batch of an epoch has both terms
        assert (method.objective(clean)(z, y).mean() - found).abs() < 1e-12


@pytest.mark.parametrize(
    "method", [NuAT(eps=EPS), GAT(eps=EPS), NuAT2(eps=EPS)], ids=lambda method: type(method).__name__
)
def test_one_long_step_is_the_methods_own_attack(method: Any, mnist: tuple[Images, Labels]) -> None:
    """Images that the start does not fool; for NuAT2, whose second step has another objective, its first step."""
    x, y = mnist[0].double(), mnist[1]
    model = Net().eval()
    y = model(x).argmax(1)
    method.iteration = 1
    begin = (x + EPS / 2 * StepNoise(0, 0).sign(x)).clamp(0, 1)
    stands = model(begin).argmax(1) == y
    found = from_json(method, steps=1, step_size=EPS, start=begin)(model, x, y)
    if isinstance(method, NuAT2):
        z = model(x).detach()
        slope = sign_of_slope(lambda at: cross_entropy(model(at), y) + 4 / len(x) * nuclear(model(at) - z), begin)
        expected = (x + (begin + EPS * slope - x).clamp(-EPS, EPS)).clamp(0, 1)
    else:
        expected = method.craft(model, x, y, Batch(noise=StepNoise(0, 0))).x_adv
    assert stands.sum() > 10 and (found - expected)[stands].abs().max() < 1e-9


def test_many_steps_are_trades_own_attack(mnist: tuple[Images, Labels]) -> None:
    x, model = mnist[0].double(), Net().eval()
    y, method = model(x).argmax(1), TRADES(eps=EPS, steps=8, step_size=0.02)
    expected = method.craft(model, x, y, Batch(noise=StepNoise(0, 0))).x_adv
    found = from_json(method, steps=8, step_size=0.02, start="gaussian")(model, x, y, StepNoise(0, 0))
    stands = model(found).argmax(1) == y
    assert 0 < stands.sum() and (found - expected)[stands].abs().max() < 1e-9


def test_wrappers_say_what_their_last_method_says() -> None:
    inner = NuAT(eps=EPS)
    says = {"defence": "nuclear", "weight": 4.0}
    assert inner.adaptive == says and NuAT(eps=EPS, ramp=2.0).adaptive == says | {"weight": 2.0}
    assert AWP(inner=inner).adaptive == Delayed(after=inner).adaptive == says
    assert Delayed(before=TRADES(eps=EPS), after=inner, switch_epoch=1).adaptive == says
    assert Delayed(before=inner, after=PGDAT(eps=EPS), switch_epoch=1).adaptive is None
    assert Hybrid(cheap=NuAT(eps=EPS, lam=1), strong=NuAT2(eps=EPS, lam=2)).adaptive == says | {"weight": 2.0}
    assert TRADES(eps=EPS, crafter=PGDAT(eps=EPS)).adaptive == {"defence": "kl"}
    assert PGDAT(eps=EPS).adaptive is None and PAP(eps=EPS).adaptive is None
    assert Ensemble(eps=EPS, sources=["none"]).adaptive is None


@every_method
def test_every_method_says_what_can_be_made(name: str) -> None:
    method = build(name)
    if method.adaptive is not None:
        from_json(method, norm="l2")


# ---- the coupled loop


def written_out(model: Any, x: Tensor, y: Tensor, begin: Tensor, weight: float, steps: int, size: float) -> Tensor:
    """One group: all images go on, each is taken where it first falls."""
    x_adv, clean = begin.clone(), model(x).detach()
    taken: dict[int, Tensor] = {}

    def raised(at: Tensor) -> Tensor:
        return cross_entropy(model(at), y) + weight / len(x) * nuclear(model(at) - clean)

    for _ in range(steps):
        wrong = model(x_adv).argmax(1) != y
        taken = {row: x_adv[row] for row in range(len(x)) if wrong[row]} | taken
        slope = sign_of_slope(raised, x_adv)
        x_adv = (x + (x_adv + size * slope - x).clamp(-EPS / 2, EPS / 2)).clamp(0, 1)
    return torch.stack([taken.get(row, x_adv[row]) for row in range(len(x))])


def test_nuclear_agrees_with_the_loop_written_out(digits: Any) -> None:
    """Groups of 12, 12 and 8 images."""
    model, x, y = digits
    begin = (x + EPS / 2 * StepNoise(0, 0).uniform(x)).clamp(0, 1)
    attack = Adaptive(eps=EPS / 2, defence="nuclear", weight=4, group=12, steps=8, step_size=0.015)
    with unchanged(model), PassCounter(model) as passes:
        found = attack(model, x, y, StepNoise(0, 0))
    rows = torch.arange(32).split(12)
    expected = torch.cat([written_out(model, x[each], y[each], begin[each], 4, 8, 0.015) for each in rows])
    assert (found - expected).abs().max() < 1e-9 and within(found, x, "linf", EPS / 2)
    assert 0.1 < (model(found).argmax(1) != y).double().mean() < 0.9
    assert (passes.forward, passes.input_gradient) == (32 * 9, 32 * 8)


def test_groups_do_not_see_each_other(digits: Any) -> None:
    model, x, y = digits
    attack, noise = Adaptive(eps=EPS, defence="nuclear", group=8, steps=4), ImageNoise(0, "A", list(range(32)))
    whole = attack(model, x, y, noise)
    part = attack(model, x[:16], y[:16], noise.take(torch.arange(16)))
    assert (whole[:16] - part).abs().max() < 1e-9
    assert [Adaptive(eps=EPS, defence=each).batchwise for each in ("nuclear", "guided", "kl")] == [True, False, False]


# ---- all three


@pytest.mark.parametrize("defence", ["nuclear", "guided", "kl"])
def test_a_start_outside_the_ball_that_fools_does_not_end_the_attack(defence: Any, digits: Any) -> None:
    """Pure noise is misclassified; projected it is an image next to the clean one, which is not."""
    model, x, y = digits
    right = model(x).argmax(1) == y
    start = StepNoise(0, 0).uniform(x).add(1).div(2)
    wrong = model(start).argmax(1) != y
    attack = Adaptive(eps=EPS / 2, defence=defence, steps=20)
    usual, far = (
        model(Adaptive(**{**vars(attack), "start": begin})(model, x, y, StepNoise(0, 0))).argmax(1) != y
        for begin in ("uniform", start)
    )
    assert (right & wrong).double().mean() > 0.5
    assert (far & right).sum() >= 0.8 * (usual & right).sum() > 2


@pytest.mark.parametrize("defence", ["nuclear", "guided", "kl"])
def test_in_blocks(defence: Any, digits: Any) -> None:
    model, x, y = digits
    noise = ImageNoise(0, "A", list(range(32)))
    attack = Adaptive(eps=0.05, defence=defence, steps=6, group=10)
    expected = attack(model, x, y, noise)
    assert 0.1 < (model(expected).argmax(1) != y).double().mean() < 0.9
    assert (attack(FixedBatchModel(model, 7, "fp64"), x, y, noise) - expected).abs().max() < 1e-9


@pytest.mark.parametrize("defence", ["nuclear", "guided", "kl"])
def test_what_bf16_finds_is_confirmed(defence: Any, mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, trained_net().eval()
    noise = ImageNoise(0, "A", list(range(64)))
    blocks = FixedBatchModel(copy.deepcopy(model), 16, "bf16")
    found = Adaptive(eps=0.05, defence=defence, steps=10)(blocks, x, y, noise)
    exact = PGD(eps=0.05, steps=10, stop_early=True)(model, x, y, noise)
    broken = [(model(each).argmax(1) != y).float().mean() for each in (found, exact)]
    assert within(found, x, "linf", 0.05) and blocks.counts.confirmation > 0
    assert abs(broken[0] - broken[1]) < 0.12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, r"steps \(0\), group \(64\)"),
        ({"group": 0}, r"group \(0\)"),
        ({"divisor": 0}, r"divisor \(0\)"),
        ({"weight": -1}, "weight -1 must be a finite number"),
        ({"step_size": -1}, "step_size -1 must be a finite number"),
        ({"defence": "kl", "start": "none"}, "no gradient at the images themselves"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Adaptive(eps=0.1, **settings)


def test_an_unknown_defence_is_refused() -> None:
    attack = Adaptive(eps=0.1)
    object.__setattr__(attack, "defence", "trades")  # past the types that are checked while tests run
    with pytest.raises(ValueError, match="defence 'trades' is unknown"):
        attack.__post_init__()

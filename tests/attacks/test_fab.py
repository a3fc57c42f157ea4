"""FAB against its authors' program, exact optima, and models whose nearest adversarial image is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from problems import SmallNet, Whole, linear_problem, trained_net, within
from pyautoattack.fab_projections import projection_l2, projection_linf
from pyautoattack.fab_pt import FABAttack_PT
from scipy.optimize import linprog, minimize
from torch import Tensor, nn

from toughen.attacks.fab import FAB
from toughen.core.cost import PassCounter
from toughen.core.gradients import nearest_gradient
from toughen.core.objectives import LogitDifference
from toughen.core.rng import ImageNoise, Noise, StepNoise
from toughen.core.threat import Threat
from toughen.core.types import Images, Labels, Norm
from toughen.engine.fixed_batch import FixedBatchModel

NORMS: list[Norm] = ["linf", "l2"]
every_norm = pytest.mark.parametrize("norm", NORMS)
every_form = pytest.mark.parametrize("targets", [9, None], ids=["targeted", "untargeted"])
THEIR_NAME = {"linf": "Linf", "l2": "L2"}


@pytest.fixture
def in_double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The authors' program makes everything float32; here it works in float64."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def digits(mnist: tuple[Images, Labels]) -> tuple[SmallNet, Images, Labels]:
    """A float64 net and real images of all classes that it reads rightly."""
    model = trained_net(torch.float64).eval()
    x, y = mnist[0].double(), mnist[1]
    right = (model(x).argmax(1) == y).nonzero()[::3, 0][:16]
    return model, x[right], y[right]


def length(delta: Tensor, norm: Norm) -> Tensor:
    flat = delta.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.square().sum(1).sqrt()


def their_nearest(
    model: nn.Module, x: Images, y: Labels, norm: Norm, steps: int, number: int | None, **settings: Any
) -> Images:
    """The nearest image that one run of the authors' program finds, towards one target or towards any."""
    attack = FABAttack_PT(model, norm=THEIR_NAME[norm], n_iter=steps, device="cpu", **settings)
    attack.target_class = None if number is None else number + 1
    with torch.no_grad():
        found: Images = attack.attack_single_run(x, y, use_rand_start=False, is_targeted=number is not None)
    return found


# ---- the authors' program


@every_norm
@pytest.mark.parametrize("number", [1, 4, None])
def test_finds_the_image_that_the_authors_program_finds(
    number: int | None, norm: Norm, digits: tuple[SmallNet, Images, Labels], in_double: None
) -> None:
    model, x, y = digits
    expected = their_nearest(model, x, y, norm, 25, number)
    ours = FAB(eps=0.1, norm=norm, steps=25, targets=None if number is None else 1, first=number or 1, minimise=True)
    found = ours(model, x, y)
    assert (model(found).argmax(1) != y).all() and (found != x).flatten(1).any(1).all()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


class Asked(nn.Module):
    """A net that keeps the points at which it was asked, each of them once where it follows itself."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.points = net, list[Tensor]()

    def forward(self, x: Images) -> Tensor:
        if not self.points or not torch.equal(self.points[-1], x):
            self.points.append(x.detach().clone())
        out: Tensor = self.net(x)
        return out


@every_norm
@every_form
def test_asks_at_the_points_of_the_authors_program(
    targets: int | None, norm: Norm, digits: tuple[SmallNet, Images, Labels], in_double: None
) -> None:
    """Every iterate, before and after each step back, for one image at a time."""
    net, x, y = digits
    back = 0
    for row in range(4):
        theirs, ours = Asked(net), Asked(net)
        one, label = x[row : row + 1], y[row : row + 1]
        their_nearest(theirs, one, label, norm, 12, None if targets is None else 1)
        FAB(eps=0.1, norm=norm, steps=12, targets=targets and 1, minimise=True)(ours, one, label)
        # the last step back leads to a point at which nobody asks
        torch.testing.assert_close(torch.cat(ours.points), torch.cat(theirs.points), rtol=0, atol=1e-8)
        back += len(ours.points) - 13
    assert back > 8


@every_norm
def test_settings_mean_what_the_authors_settings_mean(
    norm: Norm, digits: tuple[SmallNet, Images, Labels], in_double: None
) -> None:
    model, x, y = digits
    expected = their_nearest(model, x[:4], y[:4], norm, 8, 1, alpha_max=0.3, eta=1.2, beta=0.6)
    ours = FAB(eps=0.1, norm=norm, steps=8, targets=1, minimise=True)
    found = replace(ours, alpha_max=0.3, eta=1.2, beta=0.6)(model, x[:4], y[:4])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)
    assert (ours(model, x[:4], y[:4]) - expected).abs().max() > 1e-4


@every_norm
@every_form
def test_breaks_the_images_that_the_authors_program_breaks(
    targets: int | None, norm: Norm, digits: tuple[SmallNet, Images, Labels], in_double: None
) -> None:
    model, x, y = digits
    theirs = FABAttack_PT(model, norm=THEIR_NAME[norm], n_iter=6, targeted=targets is not None, device="cpu")
    nearest = FAB(eps=0.0, norm=norm, steps=6, targets=targets, minimise=True)(model, x, y)
    eps = theirs.eps = float(length(nearest - x, norm).median()) * 1.001
    expected = theirs.perturb(x, y)
    found = FAB(eps=eps, norm=norm, steps=6, targets=targets)(model, x, y)
    fell = model(found).argmax(1) != y
    assert within(found, x, norm, eps) and 4 < fell.sum() < 12
    assert torch.equal(fell, model(expected).argmax(1) != y)


@every_norm
def test_random_starts_are_half_the_radius_away(norm: Norm, digits: tuple[SmallNet, Images, Labels]) -> None:
    net, x, y = digits
    model = Asked(net)
    with torch.no_grad():
        FAB(eps=0.2, norm=norm, steps=1, targets=None, first=2, minimise=True)(model, 0.5 + 0 * x, y, StepNoise(0, 0))
    start = model.points[1]
    torch.testing.assert_close(length(start - 0.5, norm), torch.full((len(x),), 0.1, dtype=torch.float64))


class Listed(Noise):
    """Torch's global noise, which notes the numbers of the restarts that it is asked for."""

    def __init__(self) -> None:
        self.numbers = list[int]()

    def restart(self, number: int) -> Noise:
        self.numbers.append(number)
        return self


def test_each_random_start_has_its_own_noise(digits: tuple[SmallNet, Images, Labels]) -> None:
    model, x, y = digits
    noise = Listed(), Listed()
    FAB(eps=0.001, steps=1, targets=3, restarts=2)(model, x[:2], y[:2], noise[0])
    FAB(eps=0.001, steps=1, targets=None, restarts=3)(model, x[:2], y[:2], noise[1])
    assert noise[0].numbers == [1, 3, 5] and noise[1].numbers == [1, 2]


# ---- projections


def planes(seed: int) -> tuple[Images, Images, Tensor, Tensor]:
    """Points on and off the faces of the box, normals with zeros, and values: near, far, beyond the box's end."""
    random = torch.Generator().manual_seed(seed)
    x = (torch.rand((24, 1, 4, 5), generator=random, dtype=torch.float64) * 1.6 - 0.3).clamp(0, 1)
    normal = torch.randn((24, 1, 4, 5), generator=random, dtype=torch.float64)
    normal[:, :, 0, 0] = 0
    size = torch.tensor([0.0, 0.1, 1.0, 3.0, 30.0, 1e-6], dtype=torch.float64).repeat(4)
    value = size * torch.randn(24, generator=random, dtype=torch.float64).sign()
    ends = torch.where((normal > 0) == (value > 0)[:, None, None, None], x, 1 - x)
    return x, normal, value, (normal.abs() * ends).flatten(1).sum(1) >= value.abs()


@every_norm
@pytest.mark.parametrize("seed", [0, 1])
def test_projections_agree_with_the_authors(norm: Norm, seed: int, in_double: None) -> None:
    x, normal, value, reached = planes(seed)
    assert 8 < reached.sum() < 24
    theirs = projection_linf if norm == "linf" else projection_l2
    flat, weight = x.flatten(1), normal.flatten(1)
    expected = theirs(flat, weight.clone(), (flat * weight).sum(1) - value).view_as(x)
    torch.testing.assert_close(Threat(norm, 0.1).onto_plane(x, normal, value), expected, rtol=0, atol=1e-12)


@every_norm
def test_projections_are_the_shortest_that_an_optimizer_finds(norm: Norm) -> None:
    x, normal, value, reached = planes(2)
    delta = Threat(norm, 0.1).onto_plane(x, normal, value)
    assert ((x + delta >= 0) & (x + delta <= 1)).all()
    left = value + (normal * delta).flatten(1).sum(1)
    assert (left[reached].abs() < 1e-12).all() and (left[~reached] * value[~reached].sign() > 0).all()
    for row in reached.nonzero()[:, 0].tolist()[:8]:
        flat, weight, want = x[row].flatten().numpy(), normal[row].flatten().numpy(), -float(value[row])
        best = shortest(norm, flat, weight, want)
        assert float(length(delta[row : row + 1], norm)) == pytest.approx(best, rel=1e-5, abs=1e-8)


def shortest(norm: Norm, x: Any, weight: Any, want: float) -> float:
    """The length of the shortest perturbation with this inner product, by scipy's general solvers."""
    d = len(x)
    if norm == "linf":  # minimise r, where -r <= delta_i <= r
        eye, one = np.eye(d), -np.ones((d, 1))
        bounds = [*zip(-x, 1 - x, strict=True), (0, None)]
        upper = np.block([[eye, one], [-eye, one]])
        found = linprog([*np.zeros(d), 1], upper, np.zeros(2 * d), [[*weight, 0]], [want], bounds=bounds)
        return float(found.fun)
    limits = list(zip(-x, 1 - x, strict=True))
    plane = {"type": "eq", "fun": lambda delta: weight @ delta - want, "jac": lambda delta: weight}
    found = minimize(
        lambda delta: delta @ delta,
        np.zeros(d),
        jac=lambda delta: 2 * delta,
        bounds=limits,
        constraints=plane,
        method="SLSQP",
        options={"ftol": 1e-14},
    )
    return float(np.sqrt(found.fun))


@every_norm
def test_projections_of_degenerate_planes(norm: Norm) -> None:
    """A zero normal moves nothing; tiny ones, whose squares underflow, move as others do."""
    threat, x, normal, value, _ = Threat(norm, 0.1), *planes(0)
    assert not threat.onto_plane(x, 0 * normal, value).any()
    x, normal, value = x.float(), normal.float(), value.float()
    expected = threat.onto_plane(x, normal, value)
    torch.testing.assert_close(threat.onto_plane(x, normal * 2**-90, value * 2**-90), expected, rtol=0, atol=0)
    for row in (1, 2, 3):  # each image by itself, bit for bit
        part = slice(row, row + 1)
        assert torch.equal(threat.onto_plane(x[part], normal[part], value[part]), expected[part])


def test_the_dual_norm_is_the_steepest_slope() -> None:
    _, normal, _, _ = planes(0)
    for norm in NORMS:
        threat = Threat(norm, 0.1)
        torch.testing.assert_close(threat.dual(normal), (normal * threat.steepest(normal)).flatten(1).sum(1))


# ---- models whose nearest adversarial image is known


@every_norm
@every_form
def test_the_distance_to_a_plane(targets: int | None, norm: Norm) -> None:
    """A linear model's boundary is met exactly, but for the overshoot of at most 5 % that eta asks for."""
    model, x, y, distance = linear_problem(norm)
    found = FAB(eps=0.01 * distance, norm=norm, steps=12, targets=targets, minimise=True)(model, x, y)
    assert (model(found).argmax(1) != y).all()
    assert 1 < float(length(found - x, norm)) / distance < 1.01


@every_norm
@every_form
@pytest.mark.parametrize("k", [2, 3])
def test_two_and_three_classes(targets: int | None, k: int, norm: Norm) -> None:
    """Class j scores w_j.x, so the nearest boundary is that of the smallest (w_0 - w_j).x / dual norm."""
    random = torch.Generator().manual_seed(3)
    weight = torch.randn((k, 16), generator=random, dtype=torch.float64)
    x = 0.5 + 0.01 * torch.randn((1, 1, 4, 4), generator=random, dtype=torch.float64)
    offset = -weight @ x.flatten() - torch.tensor([0, 0.3, 0.4], dtype=torch.float64)[:k]
    model = Whole(lambda x: x.flatten(1) @ weight.T + offset)
    ahead, slope = torch.tensor([0.3, 0.4], dtype=torch.float64)[: k - 1], weight[0] - weight[1:]
    nearest = float((ahead / (slope.abs().sum(1) if norm == "linf" else slope.norm(dim=1))).min())
    y = torch.tensor([0])
    for factor, broken in [(0.99, False), (1.01, True)]:
        found = FAB(eps=factor * nearest, norm=norm, steps=12, targets=targets)(model, x, y)
        assert within(found, x, norm, factor * nearest) and bool(model(found).argmax() != 0) is broken
    closest = FAB(eps=0.001, norm=norm, steps=12, targets=targets, minimise=True)(model, x, y)
    assert nearest < float(length(closest - x, norm)) < 1.01 * nearest


# ---- use


@every_norm
def test_an_image_gets_the_same_in_any_batch_and_in_any_block(
    norm: Norm, digits: tuple[SmallNet, Images, Labels]
) -> None:
    net, x, y = digits
    for settings in ({"targets": 2}, {"targets": None, "restarts": 2}, {"targets": 2, "minimise": True}):
        attack = FAB(eps=0.1 if norm == "linf" else 1.0, norm=norm, steps=4, **settings)
        whole = attack(net, x, y, ImageNoise(0, "fab", list(range(16))))
        rows = [11, 2, 7]
        for model in (
            net,
            FixedBatchModel(net, 1, "fp64"),
            FixedBatchModel(net, 2, "fp64"),
            FixedBatchModel(net, 5, "fp64"),
        ):
            part = attack(model, x[rows], y[rows], ImageNoise(0, "fab", rows))
            torch.testing.assert_close(part, whole[rows], rtol=0, atol=1e-8)


def test_within_one_block_size_leaving_images_out_changes_nothing(digits: tuple[SmallNet, Images, Labels]) -> None:
    net, x, y = digits[0].float(), digits[1].float(), digits[2]
    model, attack = FixedBatchModel(net, 8, "fp32"), FAB(eps=0.1, steps=8, targets=2)
    whole, some = attack(model, x, y), [0, 3, 4, 9, 15]
    assert torch.equal(attack(model, x[some], y[some]), whole[some])


def test_a_search_in_low_precision_finds_the_boundary_of_the_model(digits: tuple[SmallNet, Images, Labels]) -> None:
    """It breaks every image, at float32's distance within 4 % after 20 steps; uncorrected, it never broke some."""
    net, x, y = digits[0].float(), digits[1].float(), digits[2]
    attack = FAB(eps=0.1, steps=20, targets=1, minimise=True)
    expected = length(attack(net, x, y) - x, "linf")
    model = FixedBatchModel(net, 16, "bf16")
    found = attack(model, x, y)
    assert (net(found).argmax(1) != y).all() and 16 <= model.counts.confirmation <= 16 * 20
    torch.testing.assert_close(length(found - x, "linf"), expected, rtol=0.04, atol=0)


@every_form
def test_rounds_may_be_run_one_by_one(targets: int | None, digits: tuple[SmallNet, Images, Labels]) -> None:
    model, x, y = digits
    full = FAB(eps=0.12, steps=4, targets=targets and 3, restarts=2 if targets else 3)
    whole = full(model, x, y, ImageNoise(0, "fab", list(range(16))))
    fell = model(whole).argmax(1) != y
    assert 2 < fell.sum() < 14
    found, rows = x.clone(), torch.arange(16)
    for number in (1, 2, 3):
        one = replace(full, first=number, targets=1) if targets else replace(full, first=number, restarts=1)
        found[rows] = one(model, x[rows], y[rows], ImageNoise(0, "fab", rows.tolist()))
        rows = (model(found).argmax(1) == y).nonzero()[:, 0]
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-9)


def test_minimise_keeps_the_nearest_of_all_rounds(digits: tuple[SmallNet, Images, Labels]) -> None:
    model, x, y = digits
    attack = FAB(eps=0.1, steps=4, targets=3, minimise=True)
    single = torch.stack([length(replace(attack, first=k, targets=1)(model, x, y) - x, "linf") for k in (1, 2, 3)])
    nearest = length(attack(model, x, y) - x, "linf")
    torch.testing.assert_close(nearest, single.amin(0), rtol=0, atol=1e-9)
    assert (single.argmin(0) > 0).any()
    wrong = (y + 1) % 10
    assert torch.equal(attack(model, x, wrong), x)  # already misread: nothing is nearer than the image itself
    far = Whole(lambda x: torch.stack([1 + x.flatten(1).sum(1), 0 * x[:, 0, 0, 0]], 1))
    assert torch.equal(attack(far, x, 0 * y), x)  # and where no image of the box is misread there is none


# ---- passes


@every_form
def test_passes_of_an_image_that_stands(targets: int | None, digits: tuple[SmallNet, Images, Labels]) -> None:
    """The clean images once; steps + 1 looks and steps gradients; a crossing costs a forward, the first a gradient."""
    net, x, y = digits
    m = 1 if targets else 9
    never = Whole(lambda x: net(x) + 50 * nn.functional.one_hot(y, 10))  # no step of these crosses
    with PassCounter(never) as passes:
        FAB(eps=0.001, steps=5, targets=targets and 1)(never, x, y)
    assert (passes.forward, passes.input_gradient) == (16 * (1 + 6), 16 * 5 * m)
    asked = Asked(net)
    with PassCounter(asked) as passes:
        FAB(eps=0.001, steps=40, targets=targets and 1)(asked, x[:1], y[:1])
    crossings = len(asked.points) - 41
    assert 10 < crossings <= 40 and passes.weight_gradient == 0
    assert 1 + 41 + crossings <= passes.forward < 1 + 2 * 40  # theirs has 3 + 2 x 40
    assert 40 * m <= passes.input_gradient < 1.2 * 40 * m


def test_blocks_count_passes_and_take_planes_only_where_that_saves_some(
    digits: tuple[SmallNet, Images, Labels],
) -> None:
    net, x, y = digits
    model = FixedBatchModel(net, 16, "fp64")
    FAB(eps=0.001, steps=20, targets=1)(model, x, y)
    assert 16 * 20 <= model.counts.gradient <= 16 * 24
    assert 16 * 21 <= model.counts.forward <= 16 * 41


def test_images_beyond_the_wanted_ones_only_go_forward(digits: tuple[SmallNet, Images, Labels]) -> None:
    net, x, y = digits
    seek = [LogitDifference((y + 1) % 10), LogitDifference((y + 2) % 10)]
    both = nearest_gradient(net, x, y, seek, lambda found: found.value)
    for model in (net, FixedBatchModel(net, 4, "fp64")):
        some = nearest_gradient(model, x, y, seek, lambda found: found.value, 6)
        torch.testing.assert_close(some.logits, both.logits, rtol=0, atol=1e-12)
        torch.testing.assert_close(some.gradient[:6], both.gradient[:6], rtol=0, atol=1e-12)
        torch.testing.assert_close(some.value[:6], both.value[:6], rtol=0, atol=1e-12)
        assert not some.gradient[8:].any()
    for row, towards in enumerate(both.logits.gather(1, torch.stack([each.towards for each in seek], 1)).argmin(1)):
        image = x[row : row + 1].clone().requires_grad_()
        out = net(image)[0]
        (slope,) = torch.autograd.grad(out[seek[towards].towards[row]] - out[y[row]], image)
        torch.testing.assert_close(both.gradient[row : row + 1], slope, rtol=0, atol=1e-12)


# ---- settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, r"steps \(0\) must be at least 1"),
        ({"restarts": 0}, r"restarts \(0\) must be at least 1"),
        ({"targets": 0}, r"targets \(0\) must be at least 1"),
        ({"first": 0}, r"first \(0\) must be at least 1"),
        ({"alpha_max": 1.1}, "alpha_max 1.1 is a share"),
        ({"beta": -0.1}, "beta -0.1 is a share"),
        ({"eta": 0.9}, "eta 0.9 must be a finite number, not below 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FAB(eps=0.1, **settings)


def test_no_images_and_no_radius(mnist: tuple[Images, Labels]) -> None:
    (x, y), model = mnist, trained_net()
    assert FAB(eps=0.1)(model, x[:0], y[:0], Noise()).shape == (0, 1, 28, 28)
    assert torch.equal(FAB(eps=0, steps=3)(model, x, y), x)

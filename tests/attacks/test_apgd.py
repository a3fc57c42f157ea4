"""Auto-PGD against its authors' program, point by point in float64; its objectives against values worked by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from problems import Whole, linear_problem, trained_net, within
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from torch import Tensor, nn

from toughen.attacks import Attack
from toughen.attacks.apgd import APGD, APGDT, checkpoints, wrong_classes
from toughen.core.cost import PassCounter
from toughen.core.objectives import DLR, NuclearAscent, Objective, TargetedDLR, cross_entropy, dlr, margin, margin_loss
from toughen.core.rng import ImageNoise
from toughen.core.types import Images, Labels, Logits, Mask, Norm
from toughen.engine.fixed_batch import FixedBatchModel

Digits = tuple[Images, Labels]
NORMS = {"linf": "Linf", "l2": "L2"}
# radii at which no digit falls that is far from the others, and at which many do, some of them late
HOLDS: dict[Norm, float] = {"linf": 1 / 64, "l2": 1 / 4}
FALLS: dict[Norm, float] = {"linf": 3 / 64, "l2": 3 / 4}

every_norm = pytest.mark.parametrize("norm", NORMS)


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The authors' program in float64, for whatever it makes of its own."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def digits(mnist: Digits) -> Digits:
    """Those of the images that the net reads, in float64."""
    x, y = mnist[0].double(), mnist[1]
    right = net()(x).argmax(1) == y
    assert right.sum() > 48
    return x[right], y[right]


@pytest.fixture
def sure(digits: Digits) -> Digits:
    """Those that the net reads by a wide margin: none falls at a small radius."""
    x, y = (each[margin(net()(digits[0]), digits[1]) > 1.5] for each in digits)
    assert len(y) > 24
    return x[:32], y[:32]


@pytest.fixture
def wavy() -> nn.Module:
    """The same net behind a wavy curve, so that its gradients mislead and where an attack starts matters."""
    model = net()
    return Whole(lambda x: model(x + 0.1 * torch.sin(60 * (x - 0.5))))


def net() -> nn.Module:
    return trained_net(torch.float64).eval()


class Recorded(nn.Module):
    """A model that keeps what it was asked and answered, where a gradient was wanted and where none was."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.asked: list[tuple[Tensor, Tensor]] = []
        self.plain: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor) -> Any:
        out = self.model(x)
        (self.asked if x.requires_grad else self.plain).append((x.detach().clone(), out.detach().clone()))
        return out


def reference(norm: str, eps: float, **settings: Any) -> Callable[[nn.Module], Any]:
    kind = APGDAttack_targeted if "n_target_classes" in settings else APGDAttack
    return partial(kind, norm=NORMS[norm], eps=eps, device=torch.device("cpu"), **settings)


def assert_same_points(
    points: list[tuple[Tensor, Tensor]], reference_points: list[tuple[Tensor, Tensor]], y: Labels
) -> Mask:
    """Our points of one restart are the reference's of the images that stood until then; returns which stand."""
    standing, ours = torch.ones_like(y, dtype=torch.bool), iter(points)
    for x_adv, out in reference_points:
        if not standing.any():
            break
        torch.testing.assert_close(next(ours)[0], x_adv[standing], rtol=0, atol=1e-9)
        standing = standing & (out.argmax(1) == y)
    assert next(ours, None) is None
    return standing


def points(model: Recorded) -> list[tuple[Tensor, Tensor]]:
    """Each point of a single restart of ours: the last one needs no gradient."""
    assert len(model.plain) <= 1
    return model.asked + model.plain


# ---- the authors' program


@every_norm
@pytest.mark.parametrize("radius", [HOLDS, FALLS], ids=["holds", "falls"])
@pytest.mark.parametrize(("loss", "objective"), [("ce", cross_entropy), ("dlr", dlr)], ids=["ce", "dlr"])
def test_goes_through_the_references_points(
    loss: str, objective: Objective, radius: dict[Norm, float], norm: Norm, digits: Digits, sure: Digits, double: None
) -> None:
    """From the same draws of the same generator: 101 points, less those of images that fell."""
    (x, y), eps = (each[::2] for each in (sure if radius is HOLDS else digits)), radius[norm]
    theirs, ours = Recorded(net()), Recorded(net())
    attack = reference(norm, eps, loss=loss)(theirs)
    attack.init_hyperparam(x)
    torch.manual_seed(3)
    best, stands, _, broken = attack.attack_single_run(x, y)
    torch.manual_seed(3)
    found = APGD(eps=eps, norm=norm, objective=objective)(ours, x, y)
    standing = assert_same_points(points(ours), theirs.asked, y)
    assert len(theirs.asked) == 101 and len(ours.asked) == 100
    assert torch.equal(standing, stands) and torch.equal(net()(found).argmax(1) == y, stands)
    torch.testing.assert_close(found[standing], best[standing], rtol=0, atol=1e-9)
    assert within(found, x, norm, eps)
    if radius is FALLS:
        when = [int((net()(each).argmax(1) != y).sum()) for each, _ in theirs.asked]
        assert when[0] < when[-1] and 0 < standing.sum() < len(y)
    else:
        assert standing.all()


@every_norm
@pytest.mark.parametrize("classes", [2, 3, 4, 10])
def test_targets_go_through_the_references_points(
    classes: int, norm: Norm, digits: Digits, double: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every target from the same draws; with fewer than four classes the reference is given the plain margin."""

    def towards(self: Any, z: Tensor, y: Tensor) -> Tensor:
        rows = torch.arange(len(z))
        return z[rows, self.y_target] - z[rows, y]

    if classes < 4:
        monkeypatch.setattr(APGDAttack_targeted, "dlr_loss_targeted", towards)
    some = (digits[1] < classes).nonzero()[:, 0][:: 3 if classes == 10 else 1]
    x, y, steps, targets, whole = digits[0][some], digits[1][some], 20, min(classes - 1, 9), net()
    model = Whole(lambda images: whole(images)[:, :classes])
    theirs, ours = Recorded(model), Recorded(model)
    eps = FALLS[norm] * {2: 4, 3: 2, 4: 2, 10: 1}[classes]
    expected = reference(norm, eps, n_iter=steps, n_target_classes=targets, seed=3)(theirs).perturb(x, y)
    torch.manual_seed(3)
    found = APGDT(eps=eps, norm=norm, steps=steps)(ours, x, y)
    standing = torch.arange(len(x))
    assert len(ours.plain) <= 1 + targets  # the clean images, and each target's last point
    for number in range(targets):
        there = theirs.asked[number * (steps + 1) : (number + 1) * (steps + 1)]
        if not there:
            break
        stands = torch.ones(len(standing), dtype=torch.bool)
        for at, (x_adv, out) in enumerate(there):
            if not stands.any():
                break
            mine = ours.asked.pop(0) if at < steps else ours.plain.pop(1)
            torch.testing.assert_close(mine[0], x_adv[stands], rtol=0, atol=1e-9)
            stands = stands & (out.argmax(1) == y[standing])
        standing = standing[stands]
    assert ours.asked == [] and len(ours.plain) == 1  # nothing else was asked
    fell = model(expected).argmax(1) != y
    assert torch.equal(model(found).argmax(1) != y, fell) and 0 < fell.sum() < len(x)


@every_norm
def test_averages_the_gradients_of_a_model_that_answers_at_random(norm: Norm, sure: Digits, double: None) -> None:
    """The reference draws as ours does, as long as no image falls, once more for each gradient of the last point."""
    (x, y), eps = (each[::4] for each in sure), HOLDS[norm] / 2
    trained = net()
    noisy = Whole(lambda images: trained(images + 0.05 * torch.randn_like(images)))
    theirs, ours = Recorded(noisy), Recorded(noisy)
    attack = reference(norm, eps, n_iter=10, eot_iter=3, loss="ce")(theirs)
    attack.init_hyperparam(x)
    torch.manual_seed(3)
    _, stands, _, _ = attack.attack_single_run(x, y)
    torch.manual_seed(3)
    APGD(eps=eps, norm=norm, steps=10, eot=3)(ours, x, y)
    assert stands.all() and len(theirs.asked) == 33 and (len(ours.asked), len(ours.plain)) == (30, 1)
    for (mine, out), (other, their_out) in zip(points(ours), theirs.asked, strict=False):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-9)
        torch.testing.assert_close(out, their_out, rtol=0, atol=1e-9)
    assert not torch.equal(ours.asked[0][1], ours.asked[1][1])


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7, 10, 17, 33, 50, 100, 1000])
def test_checkpoints(steps: int) -> None:
    """Where the reference's own counters stand, in the words of its lines."""
    interval, expected, since = max(int(0.22 * steps), 1), {}, 0
    for at in range(1, steps):
        since += 1
        if since == interval:
            expected[at], since = interval, 0
            interval = max(interval - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
    assert checkpoints(steps) == expected
    if steps == 100:
        assert list(expected) == [22, 41, 57, 70, 80, 87, 93, 99]


@pytest.mark.parametrize(("loss", "objective"), [("ce", cross_entropy), ("dlr", dlr)], ids=["ce", "dlr"])
@pytest.mark.parametrize("steps", [1, 2, 9, 20])
def test_few_steps(steps: int, loss: str, objective: Objective, digits: Digits, double: None) -> None:
    """The first checkpoint comes after one step, where the reference compares the value with 0: CE's is above it."""
    (x, y), theirs, ours = digits, Recorded(net()), Recorded(net())
    attack = reference("linf", 3 / 64, n_iter=steps, loss=loss)(theirs)
    attack.init_hyperparam(x)
    torch.manual_seed(3)
    attack.attack_single_run(x, y)
    torch.manual_seed(3)
    APGD(eps=3 / 64, steps=steps, objective=objective)(ours, x, y)
    assert_same_points(points(ours), theirs.asked, y)


# ---- passes


def test_passes(sure: Digits) -> None:
    x, y = (each[::8] for each in sure)
    n = len(x)
    for attack, forward, gradient in [
        (APGD(eps=1 / 64), 101, 100),
        (APGD(eps=1 / 64, steps=7, restarts=3), 24, 21),
        (APGD(eps=1 / 64, steps=7, eot=4), 29, 28),
        (APGDT(eps=1 / 64, steps=7), 1 + 9 * 8, 9 * 7),
        (APGDT(eps=1 / 64, steps=7, first=8, targets=5), 1 + 2 * 8, 2 * 7),
    ]:
        with PassCounter(model := net()) as passes:
            x_adv = attack(model, x, y)
        assert (model(x_adv).argmax(1) == y).all()
        assert (passes.forward, passes.input_gradient, passes.weight_gradient) == (n * forward, n * gradient, 0)


def test_an_image_that_falls_leaves_at_once() -> None:
    """A step of twice the radius crosses the boundary, so the second point is the last."""
    model, x, y, distance = linear_problem("linf")
    with PassCounter(model) as passes:
        x_adv = APGD(eps=1.5 * distance)(model, x, y)
    assert model(x_adv).argmax(1) != y and (passes.forward, passes.input_gradient) == (2, 2)
    with PassCounter(model) as passes:
        APGD(eps=0.1 * distance, restarts=4)(model, x, y + 1)  # wrong from the start
    assert (passes.forward, passes.input_gradient) == (1, 1)


# ---- restarts and targets, one by one or all


@every_norm
def test_restarts_go_on_with_the_images_that_stand(norm: Norm, digits: Digits, wavy: nn.Module) -> None:
    (x, y), model = digits, wavy
    attack, index = APGD(eps=FALLS[norm], norm=norm, steps=4), list(range(len(y)))
    standing, broken = torch.ones_like(y, dtype=torch.bool), []
    expected = x.clone()
    for number in range(3):
        found = attack(model, x, y, ImageNoise(0, "apgd", index, number))
        expected[standing] = found[standing]
        standing &= model(found).argmax(1) == y
        broken.append(int((~standing).sum()))
    assert 0 < broken[0] < broken[2] < len(x)
    found = replace(attack, restarts=3)(model, x, y, ImageNoise(0, "apgd", index))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@every_norm
def test_targets_can_be_run_one_by_one(norm: Norm, digits: Digits, wavy: nn.Module) -> None:
    (x, y), model = digits, wavy
    attack, expected, rows, fell = APGDT(eps=FALLS[norm], norm=norm, steps=2), x.clone(), torch.arange(len(x)), []
    for number in range(1, 11):  # the tenth has nothing left to do
        single = replace(attack, first=number, targets=1)
        found = single(model, x[rows], y[rows], ImageNoise(0, "apgd-t", rows.tolist()))
        if number == 10:
            assert torch.equal(found, x[rows])
            break
        expected[rows] = found
        stands = model(found).argmax(1) == y[rows]
        fell.append(int((~stands).sum()))
        rows = rows[stands]
    assert fell[0] and sum(fell[1:]) and len(rows)
    found = attack(model, x, y, ImageNoise(0, "apgd-t", list(range(len(x)))))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("make", "numbers"),
    [(partial(APGD, restarts=3), [0, 1, 2]), (partial(APGDT, targets=3), [0, 1, 2]), (partial(APGDT, first=8), [7, 8])],
)
def test_each_round_has_its_own_start(make: Callable[..., Attack], numbers: list[int], sure: Digits) -> None:
    drawn = []

    class Watched(ImageNoise):
        def random(self, like: Tensor, kind: str) -> Tensor:
            drawn.append(self.number)
            return super().random(like, kind)

    (x, y), model = (each[:2] for each in sure), net()
    make(eps=1 / 64, steps=1)(model, x, y, Watched(0, "apgd", [0, 1]))
    assert drawn == numbers


def test_wrong_classes() -> None:
    out = torch.tensor([[3.0, 9.0, 1.0, 5.0], [3.0, 9.0, 1.0, 5.0]])
    model, y = Whole(lambda x: out), torch.tensor([1, 3])
    assert wrong_classes(model, torch.zeros(2, 1, 1, 1), y).tolist() == [[3, 0, 2], [1, 0, 2]]


def test_targets_are_those_of_the_exact_logits(digits: Digits) -> None:
    """A search that sees the logits upside down must not choose by them."""

    class Upside(FixedBatchModel):
        def forward(self, x: Images) -> Logits:
            return -super().forward(x)

    (x, y), model = digits, net()
    assert torch.equal(wrong_classes(Upside(model, 8, "fp64"), x, y), wrong_classes(model, x, y))


# ---- an image's result is its own


@every_norm
@pytest.mark.parametrize(
    "make", [APGD, partial(APGD, objective=dlr, restarts=2), partial(APGDT, targets=3)], ids=["ce", "dlr", "t"]
)
def test_an_image_alone_and_among_others(make: Callable[..., Attack], norm: Norm, digits: Digits) -> None:
    (x, y), model = digits, net()
    attack = make(eps=FALLS[norm], norm=norm, steps=9)
    whole = attack(model, x, y, ImageNoise(0, "apgd", list(range(len(x)))))
    stands = model(whole).argmax(1) == y
    some = torch.cat([stands.nonzero()[:2, 0], (~stands).nonzero()[-2:, 0]]).tolist()
    assert len(some) == 4
    for row in some:
        alone = attack(model, x[[row]], y[[row]], ImageNoise(0, "apgd", [row]))
        torch.testing.assert_close(alone, whole[[row]], rtol=0, atol=1e-9)
    blocks = FixedBatchModel(model, 7, "fp64")
    torch.testing.assert_close(
        attack(blocks, x, y, ImageNoise(0, "apgd", list(range(len(x))))), whole, rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("make", [APGD, partial(APGDT, targets=2)], ids=["ce", "t"])
def test_what_is_not_confirmed_goes_on(make: Callable[..., Attack], digits: Digits) -> None:
    """A search whose every find is taken back gives each image its full budget."""

    class Never(FixedBatchModel):
        def confirm(self, x: Images, y: Labels, fell: Mask) -> Mask:
            return torch.zeros_like(fell)

    (x, y), rounds = (each[:16] for each in digits), 1 if make is APGD else 2
    blocks = Never(net(), 8, "fp64")
    make(eps=0.1, steps=10)(blocks, x, y)
    assert (blocks.counts.forward, blocks.counts.gradient) == (16 * 11 * rounds, 16 * 10 * rounds)


def test_search_in_bf16_returns_what_float32_confirms(digits: Digits) -> None:
    x, y = digits[0].float(), digits[1]
    model = trained_net().eval()
    blocks, standing = FixedBatchModel(model, 16, "bf16"), torch.ones_like(y, dtype=torch.bool)
    attack = APGD(eps=3 / 64, steps=20)
    x_adv = attack(blocks, x, y, ImageNoise(0, "apgd", list(range(len(x)))))
    fell = model(x_adv).argmax(1) != y
    alike = model(attack(model, x, y, ImageNoise(0, "apgd", list(range(len(x)))))).argmax(1) != y
    assert within(x_adv, x, "linf", 3 / 64) and standing.sum() > fell.sum() > 0
    assert (fell != alike).sum() <= 2


# ---- few classes, bad gradients


@every_norm
@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("make", [APGD, partial(APGD, objective=dlr), APGDT], ids=["ce", "dlr", "t"])
def test_few_classes(make: Callable[..., Attack], classes: int, norm: Norm, digits: Digits) -> None:
    """Every attack does what PGD's direction does on a plane: beyond the distance it breaks it, before it doesn't."""
    linear, x, y, distance = linear_problem(norm)
    model = Whole(lambda images: linear(images)[:, :classes])
    for factor, broken in [(0.99, False), (1.1, True)]:
        x_adv = make(eps=factor * distance, norm=norm)(model, x, y)
        assert within(x_adv, x, norm, factor * distance) and (model(x_adv).argmax(1) != y).item() is broken


@every_norm
def test_a_gradient_that_is_no_number_moves_nothing(norm: Norm) -> None:
    """The square root's slope at 0 times 0; an image of NaN would be counted as fallen."""

    def model(x: Tensor) -> Tensor:
        far = (x.flatten(1).sum(1) * 0).sqrt()
        return torch.stack([far + 1, far], 1)

    x = torch.rand(3, 1, 4, 4)
    x_adv = APGD(eps=0.5, norm=norm, steps=5)(Whole(model), x, torch.zeros(3, dtype=torch.int64))
    assert within(x_adv, x, norm, 0.5)


@pytest.mark.parametrize("make", [APGD, APGDT])
def test_no_images(make: Callable[..., Attack]) -> None:
    x = torch.zeros(0, 1, 28, 28)
    assert make(eps=0.1)(net(), x, torch.zeros(0, dtype=torch.int64)).shape == x.shape


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(APGD, steps=0), r"steps \(0\), restarts \(1\) and eot \(1\) must be at least 1"),
        (partial(APGD, restarts=0), r"restarts \(0\)"),
        (partial(APGD, eot=0), r"eot \(0\)"),
        (partial(APGD, rho=1.5), "rho 1.5 is a share of steps: it must be in 0..1"),
        (partial(APGD, objective=NuclearAscent(None, 1.0)), "couples the images of a batch"),
        (partial(APGDT, steps=0), r"steps \(0\)"),
        (partial(APGDT, rho=-1), "rho -1"),
        (partial(APGDT, targets=0), r"targets \(0\) and first \(1\) must be at least 1"),
        (partial(APGDT, first=0), r"targets \(9\) and first \(0\) must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[..., Attack], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(eps=0.1)


# ---- objectives


def test_dlr_worked_by_hand() -> None:
    logits = torch.tensor([[7.0, 5.0, 1.0, 3.0], [7.0, 5.0, 1.0, 3.0]], dtype=torch.float64)
    y = torch.tensor([0, 3])
    assert dlr(logits, y).tolist() == pytest.approx([-2 / 4, 4 / 4])
    assert dlr(logits[:, :3], y.clamp(max=2)).tolist() == pytest.approx([-2 / 6, 6 / 6])
    assert dlr(logits[:, :2], y.clamp(max=1)).tolist() == [-2, 2]


def test_targeted_dlr_worked_by_hand() -> None:
    logits = torch.tensor([[7.0, 5.0, 1.0, 3.0, 0.0]] * 3, dtype=torch.float64)
    y, objective = torch.tensor([0, 0, 3]), TargetedDLR(torch.tensor([1, 4, 0]))
    assert objective(logits, y).tolist() == pytest.approx([-2 / 5, -7 / 5, 4 / 5])  # 7 - (3 + 1) / 2
    assert objective.select(torch.tensor([2]))(logits[2:], y[2:]).tolist() == pytest.approx([4 / 5])
    three = TargetedDLR(torch.tensor([1, 2, 0]))
    assert three(logits[:, :3], torch.tensor([0, 0, 2])).tolist() == [-2, -6, 6]
    assert objective.fooled(logits, y).tolist() == [False, False, True]


@pytest.mark.parametrize("objective", [DLR(), TargetedDLR(torch.tensor([2, 3, 0, 1]))], ids=["dlr", "targeted"])
@pytest.mark.parametrize("classes", [4, 10])
def test_dlr_agrees_with_the_reference(objective: Objective, classes: int) -> None:
    """Values and gradients; the second label is wrong in some rows."""
    logits = torch.randn(4, classes, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 1, 2, 3])
    attack = reference("linf", 0.1, n_target_classes=3)(net())
    attack.y_target = torch.tensor([2, 3, 0, 1])
    expected = attack.dlr_loss(logits, y) if isinstance(objective, DLR) else attack.dlr_loss_targeted(logits, y)
    torch.testing.assert_close(objective(logits, y), expected)
    (slope,), (wanted,) = (torch.autograd.grad(each.sum(), logits) for each in (objective(logits, y), expected))
    torch.testing.assert_close(slope, wanted)


def test_dlr_does_not_change_with_the_logits_scale(digits: Digits) -> None:
    """Where cross-entropy's gradient vanishes, DLR goes on as before."""
    (x, y), whole = digits, net()
    x, y = x[::2], y[::2]
    fallen = []
    for scale in (1.0, 1e4):
        model = Whole(lambda images, scale=scale: scale * whole(images))  # type: ignore[misc]
        x_adv = APGD(eps=3 / 64, steps=20, objective=dlr)(model, x, y, ImageNoise(0, "a", list(range(len(x)))))
        fallen.append(model(x_adv).argmax(1) != y)
    assert torch.equal(*fallen) and fallen[0].any()
    assert margin_loss(whole(x), y).max() < 0
